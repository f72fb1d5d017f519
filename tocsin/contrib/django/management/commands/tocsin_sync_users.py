"""manage.py tocsin_sync_users: makes recipients of users whose save sent no signal."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser

from tocsin.contrib.django.people import sync_users

_WIDTH = 30


class Command(BaseCommand):
    """Also after bulk_create(), update(), and once when Tocsin is added to a project."""

    help = "Creates or changes the recipients of all users, in batches. Can be repeated, and interrupted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=1000, help="Users in a transaction (1000)."
        )

    def handle(self, *, batch: int, **_: Any) -> None:
        users = get_user_model()._default_manager.all()
        total, left_out = users.count(), 0
        for fault in sync_users(
            users, batch=max(batch, 1), progress=lambda n: self._show(n, total)
        ):
            left_out += 1
            self.stderr.write(f"\r{fault}")
        if self.stderr.isatty():
            self.stderr.write("")
        self.stdout.write(f"{total} users are recipients, {left_out} values were left out.")

    def _show(self, done: int, total: int) -> None:
        if self.stderr.isatty():
            filled = _WIDTH * done // max(total, 1)
            bar = "#" * filled + "." * (_WIDTH - filled)
            self.stderr.write(f"\r[{bar}] {done} of {total}", ending="")
