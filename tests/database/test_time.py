"""Deliveries that wait to be read first, or for the end of quiet hours, by due times in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tests.support.services import mail_catcher, mails, running, until
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.engine.store.catalogue_file import CatalogueError, parse_catalogue
from tocsin.migrate import apply_catalogue

QUIET = "/api/quiet-hours/"
CATALOGUE = """
[event_types]
"shop.message" = { label = "Message", channels = ["in_app", "email"], delay = { email = "10m" } }
"shop.ping" = { label = "Ping", channels = ["in_app", "email"], skip_if_read = ["email"] }
"shop.alarm" = { label = "Alarm", channels = ["in_app", "email"], priority = "high" }
"shop.letter" = { label = "Letter", channels = ["in_app", "email"], alone = true }
"""


@pytest.fixture
def shop(dsn: str) -> None:
    """Event types that wait."""
    apply_catalogue(dsn, parse_catalogue(CATALOGUE, "shop.toml"))


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    async with mail_catcher(tmp_path / "mails") as catcher:
        yield catcher


def worker(dsn: str, mailbox: MailCatcher, folder: Path) -> Any:
    settings = {
        "database_url": dsn,
        "smtp_url": mailbox.url,
        "public_url": "https://notify.example",
        "data_dir": str(folder),
    }
    return running("worker", log=folder / "worker.log", settings=settings)


def deliveries(db: Db) -> dict[str, tuple[str, str | None]]:
    """State and reason, by title."""
    rows = db.execute(
        "select e.title, d.state::text, d.reason from tocsin.delivery d join tocsin.event e using (event_id)"
    )
    return {title: (state, reason) for title, state, reason in rows}


def hours_around(now: datetime) -> dict[str, str]:
    """Quiet hours that began an hour ago and end in two."""
    starts, ends = now - timedelta(hours=1), now + timedelta(hours=2)
    return {"starts": f"{starts:%H:%M}", "ends": f"{ends:%H:%M}", "timezone": "UTC"}


async def test_a_mail_waits_to_be_read_first(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    shop: None,
    db: Db,
    dsn: str,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    seen = new_notification(event_type="shop.message", title="seen")
    new_notification(event_type="shop.message", title="unseen")
    gone = new_notification(event_type="shop.message", title="archived")
    assert set(deliveries(db).values()) == {("deferred", "delayed")}
    why = (await alice.get(f"/api/notifications/{seen}/why/")).json()
    assert "It waits for you to read it first, until" in str(why)
    await alice.patch(f"/api/notifications/{seen}/read/")
    await alice.delete(f"/api/notifications/{gone}/")
    db.execute("update tocsin.delivery set due_at = due_at - interval '10 minutes'")

    async with worker(dsn, mailbox, tmp_path):
        await until(
            lambda: all(state in ("sent", "skipped") for state, _ in deliveries(db).values()), 30
        )

    assert deliveries(db) == {
        "seen": ("skipped", "already_read"),
        "unseen": ("sent", None),
        "archived": ("skipped", "already_read"),
    }
    assert [mail["subject"] for mail in mails(tmp_path / "mails")] == ["unseen"]


async def test_quiet_hours_hold_back_what_is_not_urgent(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    shop: None,
    db: Db,
    dsn: str,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    new_notification(title="before")
    chosen = (await alice.put(QUIET, json=hours_around(datetime.now(UTC)))).json()
    assert chosen == (await alice.get(QUIET)).json()
    new_notification(title="within")
    new_notification(title="urgent", event_type="shop.alarm")
    new_notification("bob", title="to another")
    assert deliveries(db)["within"] == ("deferred", "quiet_hours")
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 3, "unseen": 3}

    async with worker(dsn, mailbox, tmp_path):
        # what was on its way before is held back at the presend check
        await until(lambda: deliveries(db)["before"] == ("deferred", "quiet_hours"))
        await until(lambda: deliveries(db)["urgent"] == ("sent", None))
        await until(lambda: deliveries(db)["to another"] == ("sent", None))
        row = db.execute(
            "select min(due_at), max(due_at) from tocsin.delivery where reason = 'quiet_hours'"
        ).fetchone()
        assert row is not None
        assert row[1] - row[0] < timedelta(minutes=1)
        assert f"{row[0].astimezone(UTC):%H:%M}" == chosen["ends"]
        none = (await alice.put(QUIET, json={"starts": None, "ends": None})).json()
        assert (none["starts"], none["ends"]) == (None, None)
        await until(
            lambda: deliveries(db)["within"] == deliveries(db)["before"] == ("sent", None), 30
        )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"starts": "22:00", "ends": None}, "ends"),
        ({"starts": "22:00", "ends": "22:00"}, "ends"),
        ({"starts": "22:00", "ends": "07:00", "timezone": "Nowhere/Land"}, "timezone"),
    ],
)
async def test_half_quiet_hours_are_refused(
    alice: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    response = await alice.put(QUIET, json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("starts", "ends", "zone", "at", "until_"),
    [
        ("22:00", "07:00", "UTC", "2026-03-01T23:00Z", "2026-03-02T07:00Z"),
        ("22:00", "07:00", "UTC", "2026-03-01T06:59Z", "2026-03-01T07:00Z"),
        ("22:00", "07:00", "UTC", "2026-03-01T07:00Z", None),
        ("22:00", "07:00", "UTC", "2026-03-01T21:59Z", None),
        ("12:00", "14:00", "UTC", "2026-03-01T13:00Z", "2026-03-01T14:00Z"),
        ("12:00", "14:00", "UTC", "2026-03-01T14:00Z", None),
        ("22:00", "07:00", "Asia/Kathmandu", "2026-03-01T18:00Z", "2026-03-02T01:15Z"),
        # the clock goes from 2 to 3 in the night: an hour less of quiet
        ("22:00", "07:00", "Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T05:00Z"),
        # and the end itself may be skipped
        ("22:00", "02:30", "Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T01:30Z"),
        # the hour that comes twice
        ("22:00", "02:30", "Europe/Berlin", "2026-10-25T00:10Z", "2026-10-25T01:30Z"),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(
    db: Db, starts: str, ends: str, zone: str, at: str, until_: str | None
) -> None:
    row = db.execute(
        "select tocsin.quiet_until(row('x', %s, %s, %s, now())::tocsin.quiet_hours, %s)",
        (starts, ends, zone, at),
    ).fetchone()
    assert row == (None if until_ is None else datetime.fromisoformat(until_),)


async def test_what_must_go_alone_does(
    new_notification: NewNotification,
    shop: None,
    db: Db,
    dsn: str,
    mailbox: MailCatcher,
    tmp_path: Path,
) -> None:
    for title in ("one", "two"):
        new_notification(event_type="shop.letter", title=title)
    async with worker(dsn, mailbox, tmp_path):
        await until(lambda: {state for state, _ in deliveries(db).values()} == {"sent"})
    assert sorted(mail["subject"] for mail in mails(tmp_path / "mails")) == ["one", "two"]


def test_a_delay_is_shorter_than_the_time_to_live() -> None:
    late = CATALOGUE.replace('email = "10m"', 'email = "3d"')
    with pytest.raises(CatalogueError, match="time_to_live of 3d; make that longer"):
        parse_catalogue(late, "shop.toml")


def test_the_inbox_itself_does_not_wait() -> None:
    with pytest.raises(CatalogueError, match="in_app is the inbox itself"):
        parse_catalogue(
            CATALOGUE.replace('delay = { email = "10m" }', 'delay = { in_app = "1m" }'), "x"
        )


# The whole inbox.


async def test_a_mark_all_can_be_undone(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    for number in range(3):
        new_notification(title=str(number))
    kept = new_notification(title="read before")
    await alice.patch(f"/api/notifications/{kept}/read/")
    marked = await alice.post("/api/notifications/mark-all-read/", json={"category": "forum"})
    assert marked.json() == {"marked": 3}
    again = new_notification(title="new since")
    first = (await alice.get("/api/notifications/?read=true")).json()["results"][-1]["id"]
    await alice.patch(f"/api/notifications/{first}/read/", json={"read": False})
    await alice.patch(f"/api/notifications/{first}/read/")

    undo = {"undo": marked.headers["Tocsin-Undo"]}
    undone = await alice.post("/api/notifications/undo/", json=undo)

    assert undone.json() == {"undone": 2}
    assert (await alice.post("/api/notifications/undo/", json=undo)).json() == {"undone": 0}
    unread = (await alice.get("/api/notifications/?read=false")).json()["results"]
    assert len(unread) == 3
    assert again in [each["id"] for each in unread]
    assert (await alice.get("/api/notifications/unread-count/")).json() == {"count": 3, "unseen": 3}


async def test_an_undo_is_ones_own_and_real(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    marked = await alice.post("/api/notifications/mark-all-read/")
    undo = {"undo": marked.headers["Tocsin-Undo"]}
    url = "/api/notifications/undo/"
    assert (await bob.post(url, json=undo)).json() == {"undone": 0}
    bad = await alice.post(url, json={"undo": "yesterday"})
    assert bad.status_code == 422
    assert "Tocsin-Undo" in bad.json()["errors"][0]["message"]


async def test_counts_by_category_add_up(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    url = "/api/notifications/unread-count/by-category/"
    assert (await alice.get(url)).json() == {"count": 0, "categories": {}}
    for event_type in (
        "forum.new_reply",
        "forum.mention",
        "election.opened",
        "billing.payment_due",
    ):
        new_notification(event_type=event_type)
    assert (await alice.get(url)).json() == {"count": 3, "categories": {"election": 1, "forum": 2}}
