"""Single mails to one person that are due together: one mail, and each delivery settled for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import mail_catcher, mails, running, until
from tocsin.dev.mail_catcher import MailCatcher

Db = psycopg.Connection[Any]


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


def notify_people(db: Db, event_type: str, *titles: str, recipients: str = "alice") -> None:
    for title in titles:
        db.execute(
            "select tocsin.notify(%s, string_to_array(%s, ','), %s, 'Body of ' || %s::text, '/t')",
            (event_type, recipients, title, title),
        )


def states(db: Db) -> dict[str, int]:
    return dict(
        db.execute("select state::text, count(*) from tocsin.delivery group by 1").fetchall()
    )


async def delivered(db: Db, dsn: str, mailbox: MailCatcher, folder: Path, count: int) -> list[Any]:
    """Works until so many deliveries came to an end; the mails that arrived, by subject."""
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(folder),
    }
    async with running("worker", log=folder / "worker.log", settings=settings):
        await until(
            lambda: (
                sum(n for state, n in states(db).items() if state in ("sent", "cancelled")) == count
            ),
        )
    return sorted(mails(folder / "mails"), key=lambda mail: mail["subject"])


async def test_what_is_due_together_comes_as_one_mail_and_what_must_go_alone_does(
    db: Db, dsn: str, mailbox: MailCatcher, tmp_path: Path
) -> None:
    db.execute(
        "select tocsin.upsert_recipient(n, n || '@example.com') from unnest('{alice,bob}'::text[]) n"
    )
    notify_people(db, "bulletin.new_chapter", "First", "Second", "Third")
    notify_people(db, "bulletin.new_chapter", "For Bob", recipients="bob")
    notify_people(db, "compliance.overdue", "Mandatory")
    notify_people(db, "billing.payment_due", "Urgent", "Urgent too")

    arrived = await delivered(db, dsn, mailbox, tmp_path, 7)

    assert [(mail["to"], mail["subject"]) for mail in arrived] == [
        (["bob@example.com"], "For Bob"),
        (["alice@example.com"], "Mandatory"),
        (["alice@example.com"], "Third and 2 more"),
        (["alice@example.com"], "Urgent"),
        (["alice@example.com"], "Urgent too"),
    ]
    together = arrived[2]
    assert all(
        title in together["text"] and title in together["html"] for title in ("First", "Second")
    )
    assert together["text"].count("https://notify.example/c/") == 3
    assert db.execute(
        "select count(distinct delivery_id), count(*) from tocsin.attempt where outcome = 'sent'"
    ).fetchone() == (7, 7)


async def test_one_that_was_taken_back_is_not_in_the_mail(
    db: Db, dsn: str, mailbox: MailCatcher, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    notify_people(db, "bulletin.new_chapter", "First", "Second", "Third")
    # taken back while it is being claimed: the presend check is what stops it
    db.execute("update tocsin.event set cancelled_at = now() where title = 'Second'")

    (mail,) = await delivered(db, dsn, mailbox, tmp_path, 3)

    assert mail["subject"] == "Third and 1 more"
    assert "Second" not in mail["text"] + mail["html"]
    assert states(db) == {"sent": 2, "cancelled": 1}
