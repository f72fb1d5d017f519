"""tocsin import django-notifications, from the tables of the real package (it runs with Django up to 5.0)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
SERVICE_PYTHON = os.environ.get("SERVICE_PYTHON", str(ROOT / ".venv/bin/python"))
SERVER = os.environ["FRAMEWORKS_DSN"]
NAME = f"django_notifications_{os.getpid()}"

FILL = """
from accounts.models import Member, Order
from notifications.signals import notify
alice = Member.objects.create_user("alice", first_name="Alice")
bob = Member.objects.create_user("bob", first_name="Bob")
order = Order.objects.create(number=7)
for n in range(50):
    notify.send(bob, recipient=alice, verb="shipped", target=order, description=f"Parcel {n}", url=f"/orders/{n}/")
notify.send(order, recipient=alice, verb="was paid")
alice.notifications.filter(description="Parcel 3").mark_all_as_read()
print("unread", alice.notifications.unread().count())
"""


def run(*command: str, **environ: str) -> str:
    done = subprocess.run(
        command,
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": "", **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manage(*arguments: str) -> str:
    settings = {"DJANGO_SETTINGS_MODULE": "project.settings_notifications"}
    return run(sys.executable, "manage.py", *arguments, FRAMEWORKS_DATABASE=NAME, **settings)


def test_the_inbox_of_django_notifications_moves_over() -> None:
    dsn = psycopg.conninfo.make_conninfo(SERVER, dbname=NAME)
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(f"create database {NAME}".encode())
        try:
            manage("migrate")
            assert "unread 50" in manage("shell", "-c", FILL)
            command = (SERVICE_PYTHON, "-m", "tocsin", "import", "django-notifications")
            types = ("--event-type", "shop.order_sent", "--batch", "20")
            once = run(*command, *types, TOCSIN_DATABASE_URL=dsn)
            again = run(*command, *types, TOCSIN_DATABASE_URL=dsn)
            with psycopg.connect(dsn) as found:
                titles = found.execute(
                    "select distinct title, initiator is null from tocsin.event order by 1"
                ).fetchall()
                times = found.execute(
                    "select count(*) from tocsin.notification n"
                    " join notifications_notification d on d.timestamp = n.created_at"
                ).fetchone()
                count = found.execute("select tocsin.unread_count('1')").fetchone()
        finally:
            server.execute(f"drop database if exists {NAME}".encode())
    assert once == "51 imported, 0 were imported before, 0 refused.\n"
    assert again == "0 imported, 51 were imported before, 0 refused.\n"
    assert titles == [("Bob shipped", False), ("Was paid", True)]
    assert times == (51,)
    assert count == (50,)
