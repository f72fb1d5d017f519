"""An event of a topic with very many followers over HTTP: its progress, and a dry run of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.large_fan_out import TOPIC, fan_out_at_once, follow

EVENTS = "/api/events/"
FOLLOWERS = 30


@pytest.fixture(autouse=True)
def followers(db: Db) -> None:
    fan_out_at_once(db, 10)
    follow(db, FOLLOWERS)
    db.execute("update tocsin.subscription set level = 'muted' where recipient_id = 'p9'")


def event(**named: Any) -> dict[str, Any]:
    return {"event_type": "bulletin.new_org", "topic": TOPIC, "title": "News"} | named


async def progress(machine: httpx.AsyncClient, event_id: int) -> list[Any]:
    found = (await machine.get(f"{EVENTS}{event_id}/")).json()
    return [found["fanned_out_at"] is not None, found["fanned_out"], found["total"]]


def advance(db: Db, people: int) -> None:
    db.execute("select tocsin.advance_fan_outs(%s)", (people,))


async def test_an_event_shows_how_many_of_how_many_are_notified(
    machine: httpx.AsyncClient, db: Db
) -> None:
    posted = await machine.post(EVENTS, json=event())
    assert (posted.status_code, posted.json()["notifications"]) == (202, 0)
    event_id = posted.json()["event_id"]
    assert await progress(machine, event_id) == [False, 0, FOLLOWERS]
    advance(db, 12)
    assert await progress(machine, event_id) == [False, 12, FOLLOWERS]
    advance(db, 30)
    assert await progress(machine, event_id) == [True, FOLLOWERS - 1, FOLLOWERS - 1]


async def test_of_a_cancelled_one_both_are_what_was_notified(
    machine: httpx.AsyncClient, db: Db
) -> None:
    event_id = (await machine.post(EVENTS, json=event())).json()["event_id"]
    advance(db, 12)
    cancelled = await machine.post(f"{EVENTS}{event_id}/cancel/")
    assert cancelled.json() == {"cancelled": 12}
    advance(db, 12)
    assert await progress(machine, event_id) == [False, 12, 12]


async def test_other_events_show_it_too(machine: httpx.AsyncClient, db: Db) -> None:
    at_once = event(topic=None, recipients=["p1", "p2"])
    later = {"send_at": "2030-01-01T00:00:00Z"}
    for posted, expected in (
        (at_once, [True, 2, 2]),
        (at_once | later, [False, 0, 2]),
        (event(**later), [False, 0, None]),
    ):
        event_id = (await machine.post(EVENTS, json=posted)).json()["event_id"]
        assert await progress(machine, event_id) == expected


async def test_a_dry_run_has_the_first_decisions_and_stores_nothing(
    machine: httpx.AsyncClient, db: Db
) -> None:
    found = (await machine.post(EVENTS, json=event(dry_run=True))).json()
    assert found["notifications"] == FOLLOWERS
    decided = found["decisions"]["p1"]["email"]
    assert (decided["decision"], decided["reason"]) == ("on", "default")
    assert found["decisions"]["p9"]["in_app"]["reason"] == "muted"
    assert db.execute("select count(*) from tocsin.event").fetchone() == (0,)
