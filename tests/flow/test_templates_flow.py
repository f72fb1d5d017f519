"""A worker with a host's templates: it refuses broken ones, and one that fails costs its own mail only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import Service, mail_catcher, mail_count, mails, running, until
from tocsin.dev.mail_catcher import MailCatcher

Db = psycopg.Connection[Any]
REPLY = "notifications/forum/new_reply"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "templates"
    (made / "notifications/forum").mkdir(parents=True)
    return made


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


def worker(
    dsn: str, mailbox: MailCatcher, folder: Path, tmp_path: Path, **more: str
) -> AbstractAsyncContextManager[Service]:
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "templates_dir": str(folder),
    }
    return running("worker", log=tmp_path / "worker.log", settings=settings | more)


def notify_people(db: Db, title: str, *, recipients: list[str], metadata: str = "{}") -> None:
    db.execute(
        "select tocsin.upsert_recipient(n, n || '@example.com') from unnest(%s::text[]) n",
        (recipients,),
    )
    db.execute(
        "select tocsin.notify('forum.new_reply', %s, %s, metadata => %s::jsonb)",
        (recipients, title, metadata),
    )


async def test_a_worker_refuses_templates_that_would_fail(
    dsn: str, mailbox: MailCatcher, folder: Path, tmp_path: Path
) -> None:
    (folder / f"{REPLY}.html").write_text("<p>\n{{ tilte }}</p>")
    (folder / f"{REPLY}.txt").write_text("{% if %}")
    async with worker(dsn, mailbox, folder, tmp_path) as process:
        assert await asyncio.wait_for(process.process.wait(), 30) == 1
        (line,) = process.log.splitlines()
        assert line == f"{REPLY}.txt:1: Expected an expression, got 'end of statement block'"
    (folder / f"{REPLY}.txt").unlink()
    async with worker(dsn, mailbox, folder, tmp_path) as process:
        assert await asyncio.wait_for(process.process.wait(), 30) == 1
        last = process.log.splitlines()[-1]
        assert last == f"{REPLY}.html:2: unknown variable 'tilte' (did you mean 'title'?)"


async def test_an_override_is_what_arrives(
    db: Db, dsn: str, mailbox: MailCatcher, folder: Path, tmp_path: Path
) -> None:
    (folder / "brand.toml").write_text(
        'name = "Acme"\naccent = "#8a3b12"\nfooter = "1 High Street"'
    )
    (folder / f"{REPLY}.txt").write_text(
        '{% extends "tocsin/notifications/email.txt" %}{% block content %}Dear reader,\n\n{{ super() }}{% endblock %}'
    )
    async with worker(dsn, mailbox, folder, tmp_path) as process:
        await process.wait_for_log("leading")
        notify_people(db, "Roses", recipients=["alice"])
        await until(lambda: mail_count(mailbox.folder) == 1)
    (mail,) = mails(mailbox.folder)
    assert mail["text"].startswith("Dear reader,")
    assert mail["text"].rstrip().endswith("1 High Street")
    assert "1 High Street" in mail["html"]


async def test_a_template_that_fails_costs_its_own_mail_and_no_other(
    db: Db, dsn: str, mailbox: MailCatcher, folder: Path, tmp_path: Path
) -> None:
    (folder / f"{REPLY}.html").write_text(
        "<p>{{ title }} {{ 12 // metadata.get('number', 1) }}</p>"
    )
    async with worker(dsn, mailbox, folder, tmp_path) as process:
        await process.wait_for_log("leading")
        others = [f"person{number}" for number in range(5)]
        notify_people(db, "Zero", recipients=others, metadata='{"number": 0}')
        notify_people(db, "Roses", recipients=["alice"], metadata='{"number": 2}')
        await until(lambda: mail_count(mailbox.folder) == 1)
        await until(lambda: failed(db) == 5)
        assert f"{REPLY}.html:1: ZeroDivisionError in an expression" in process.log
        assert "Traceback" not in process.log
        notify_people(db, "Still here", recipients=["alice"])
        await until(lambda: mail_count(mailbox.folder) == 2)
    assert {mail["subject"] for mail in mails(mailbox.folder)} == {"Roses", "Still here"}


async def test_while_templates_are_developed_a_broken_one_is_a_warning(
    db: Db, dsn: str, mailbox: MailCatcher, folder: Path, tmp_path: Path
) -> None:
    template = folder / f"{REPLY}.txt"
    template.write_text("{{ tilte }}")
    async with worker(dsn, mailbox, folder, tmp_path, templates_reload="true") as process:
        await process.wait_for_log("unknown variable 'tilte'")
        await process.wait_for_log("leading")
        template.write_text("Corrected: {{ title }}")
        notify_people(db, "Roses", recipients=["alice"])
        await until(lambda: mail_count(mailbox.folder) == 1)
    assert mails(mailbox.folder)[0]["text"].strip() == "Corrected: Roses"


def failed(db: Db) -> int:
    row = db.execute(
        "select count(*) from tocsin.delivery where state = 'failed' and reason = 'render_failed'"
    ).fetchone()
    return int(row[0]) if row else 0
