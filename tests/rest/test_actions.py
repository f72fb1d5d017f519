"""Actions: the buttons of a notification, pressed from several devices, and read by the app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db

ACTIONS = [
    {"key": "accept", "label": "Accept", "style": "primary"},
    {"key": "decline", "label": "Decline", "url": "/why"},
]
Invite = Callable[..., tuple[int, int]]


@pytest.fixture
def invite(db: Db, people: None) -> Invite:
    """Notifies alice, with buttons; returns the ids of event and notification."""

    def notify(**named: Any) -> tuple[int, int]:
        listed = "".join(f", {name} => %({name})s" for name in named)
        row = db.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], 'Will you come?',"
            f" actions => %(actions)s{listed})",
            {"actions": Jsonb(ACTIONS), **named},
        ).fetchone()
        assert row is not None
        found = db.execute(
            "select notification_id from tocsin.notification where event_id = %s", row
        ).fetchone()
        assert found is not None
        return row[0], found[0]

    return notify


def press(client: httpx.AsyncClient, notification: int, key: str) -> Any:
    return client.post(f"/api/notifications/{notification}/actions/{key}/")


def chosen(db: Db, after: int | None = 0) -> list[Any]:
    return db.execute(
        "select seq, event_id, recipient, key from tocsin.actions_since(%s)", (after,)
    ).fetchall()


async def test_the_first_press_counts_and_marks_read(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    event, notification = invite()
    before = (await alice.get(f"/api/notifications/{notification}/")).json()
    assert before["actions"] == [
        {"key": "accept", "label": "Accept", "url": None, "style": "primary"},
        {"key": "decline", "label": "Decline", "url": "/why", "style": None},
    ]
    assert before["acted"] is None
    response = await press(alice, notification, "accept")
    assert response.status_code == 200
    pressed = response.json()
    assert pressed["acted"]["key"] == "accept"
    assert pressed["acted"]["at"].endswith("Z")
    assert pressed["read"]
    assert (await alice.get("/api/notifications/unread-count/")).json()["count"] == 0
    assert (await press(alice, notification, "accept")).json() == pressed
    listed = (await alice.get("/api/notifications/")).json()["results"]
    assert [each["acted"] for each in listed] == [pressed["acted"]]
    other = await press(alice, notification, "decline")
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["detail"] == "The first choice counts, which was accept."
    assert other.json()["reason"] == "chosen"
    assert other.json()["acted"] == pressed["acted"]
    assert "retry-after" not in other.headers
    rows = chosen(db)
    assert [row[1:] for row in rows] == [(event, "alice", "accept")]
    assert chosen(db, rows[-1][0]) == []
    # max(seq) of an app that has handled none yet
    assert chosen(db, None) == rows


async def test_what_is_not_there_is_a_404(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    _, notification = invite()
    assert (await press(alice, notification, "maybe")).status_code == 404
    assert (await press(bob, notification, "accept")).status_code == 404
    assert (await press(alice, 999_999, "accept")).status_code == 404
    row = db.execute(
        "select tocsin.notify('forum.new_reply', array['alice'], 'Without buttons')"
    ).fetchone()
    assert row is not None
    listed = (await alice.get("/api/notifications/")).json()["results"]
    assert listed[0]["actions"] is None
    assert (await press(alice, listed[0]["id"], "accept")).status_code == 404
    assert chosen(db) == []


async def test_what_is_over_is_refused_in_words(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    cancelled_event, cancelled = invite()
    db.execute("select tocsin.cancel(%s)", (cancelled_event,))
    _, replaced = invite(subject="s", replaces=True)
    invite(subject="s", replaces=True)
    expired_event, expired = invite()
    db.execute(
        "update tocsin.event set expires_at = now() - interval '1 hour' where event_id = %s",
        (expired_event,),
    )
    words = {cancelled: "cancelled", replaced: "newer", expired: "over"}
    for notification, word in words.items():
        response = await press(alice, notification, "accept")
        assert response.status_code == 409
        assert word in response.json()["detail"]
    assert chosen(db) == []


async def test_fifty_presses_at_once_are_one(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    _, notification = invite()
    keys = ["accept", "decline"] * 25
    responses = await asyncio.gather(*(press(alice, notification, key) for key in keys))
    rows = chosen(db)
    assert len(rows) == 1
    for key, response in zip(keys, responses, strict=True):
        assert response.status_code == (200 if key == rows[0][3] else 409)


async def test_no_lower_number_appears_behind_one_that_was_read(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    pressed = [invite()[1] for _ in range(30)]
    seen: list[int] = []

    async def press_all() -> None:
        for response in await asyncio.gather(*(press(alice, each, "accept") for each in pressed)):
            assert response.status_code in {200, 409}

    pressing = asyncio.create_task(press_all())
    while not pressing.done():
        seen += [row[0] for row in chosen(db, seen[-1] if seen else 0)]
        await asyncio.sleep(0)
    await pressing
    seen += [row[0] for row in chosen(db, seen[-1] if seen else 0)]
    assert seen == [row[0] for row in chosen(db)]


def test_a_press_waits_for_one_that_is_not_committed(
    alice: httpx.AsyncClient, invite: Invite, db: Db, dsn: str
) -> None:
    first, second = invite()[1], invite()[1]
    with psycopg.connect(dsn) as late:
        late.execute("select tocsin.press_action('alice', %s, 'accept')", (first,))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            db.execute("select tocsin.press_action('alice', %s, 'accept')", (second,))
        assert chosen(db) == []
    assert len(chosen(db)) == 1


async def test_other_devices_learn_of_a_press(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    _, notification = invite()
    row = db.execute("select pg_current_snapshot()::text").fetchone()
    assert row is not None
    await press(alice, notification, "decline")
    news = db.execute(
        "select tocsin.stream_updates(array['alice'], array['alice'], array[%s]::pg_snapshot[],"
        " array[null]::pg_snapshot[], array[null]::bigint[], 10)",
        row,
    ).fetchone()
    assert news is not None
    changes = json.loads(news[0])["changes"]
    assert [change["change"] for change in changes] == ["read", "acted"]
    assert changes[1]["acted"]["key"] == "decline"


async def test_a_choice_is_erased_with_its_person(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    _, notification = invite()
    await press(alice, notification, "accept")
    db.execute("select tocsin.erase_recipient('alice')")
    assert chosen(db) == []


async def test_a_press_stops_the_messages_that_still_wait(
    alice: httpx.AsyncClient, invite: Invite, db: Db
) -> None:
    db.execute("update tocsin.channel set available = true")
    _, pressed = invite()
    invite()
    await press(alice, pressed, "accept")
    rows = db.execute(
        "select d.notification_id = %s, s.withheld from tocsin.delivery d"
        " cross join tocsin.delivery_snapshot(d.delivery_id) s where d.channel = 'email' order by 1",
        (pressed,),
    ).fetchall()
    assert rows == [(False, None), (True, "already_read")]
    db.execute(
        "update tocsin.event_type set mandatory_channels = '{email}'"
        " where event_type = 'forum.new_reply'"
    )
    rows = db.execute(
        "select s.withheld from tocsin.delivery d"
        " cross join tocsin.delivery_snapshot(d.delivery_id) s where d.notification_id = %s",
        (pressed,),
    ).fetchall()
    assert rows == [(None,)]
