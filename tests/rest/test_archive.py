"""What a person takes out of their inbox, finds again and brings back; and the undo of a change of many."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tocsin.engine.badge.open_stream import events_since
from tocsin.engine.store.badge import InboxChange
from tocsin.engine.store.pagination import Position, to_opaque

INBOX = "/api/notifications/"
UNDO = f"{INBOX}undo/"


async def listed(client: httpx.AsyncClient, **filters: Any) -> list[int]:
    response = await client.get(INBOX, params=filters)
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["results"]]


async def archive_of(client: httpx.AsyncClient, **filters: Any) -> list[int]:
    return await listed(client, archived=True, **filters)


async def unread(client: httpx.AsyncClient) -> int:
    return int((await client.get(f"{INBOX}unread-count/")).json()["count"])


async def put(client: httpx.AsyncClient, id_: int, archived: bool) -> httpx.Response:
    return await client.patch(f"{INBOX}{id_}/", json={"archived": archived})


async def undo(client: httpx.AsyncClient, changed: httpx.Response) -> int:
    response = await client.post(UNDO, json={"undo": changed.headers["Tocsin-Undo"]})
    assert response.status_code == 200, response.text
    return int(response.json()["undone"])


async def test_one_goes_to_the_archive_and_comes_back_as_it_was(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    read, new = new_notification(), new_notification()
    await alice.patch(f"{INBOX}{read}/read/")
    for id_ in (read, new):
        response = await put(alice, id_, True)
        assert (response.status_code, response.json()["archived"]) == (200, True)
    assert (await listed(alice), await archive_of(alice), await unread(alice)) == (
        [],
        [new, read],
        0,
    )
    for id_, was_read in ((read, True), (new, False)):
        back = (await put(alice, id_, False)).json()
        assert (back["archived"], back["read"]) == (False, was_read)
    assert (await listed(alice), await archive_of(alice), await unread(alice)) == (
        [new, read],
        [],
        1,
    )


async def test_twice_is_as_once(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    id_ = new_notification()
    for archived in (True, True, False, False):
        assert (await put(alice, id_, archived)).json()["archived"] is archived
    assert await unread(alice) == 1
    changes = db.execute("select change from tocsin.inbox_change order by at").fetchall()
    assert changes == [("archived",), ("unarchived",)]


async def test_what_is_read_in_the_archive_stays_read_when_it_comes_back(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification()
    await alice.delete(f"{INBOX}{id_}/")
    await alice.patch(f"{INBOX}{id_}/read/")
    assert await unread(alice) == 0
    await put(alice, id_, False)
    assert await unread(alice) == 0


async def test_the_archive_has_filters_and_pages(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    replies = [new_notification(subject=f"forum.thread:{number % 2}") for number in range(5)]
    bill = new_notification(event_type="billing.payment_confirmed")
    kept = new_notification()
    await alice.patch(f"{INBOX}{replies[0]}/read/")
    for id_ in (*reversed(replies), bill):  # the order of the list is not that of archiving
        await alice.delete(f"{INBOX}{id_}/")
    newest_first = [bill, *reversed(replies)]
    assert await archive_of(alice) == newest_first
    assert await listed(alice) == [kept]
    assert await archive_of(alice, category="billing") == [bill]
    assert await archive_of(alice, event_type="forum.new_reply") == newest_first[1:]
    assert await archive_of(alice, read=True) == [replies[0]]
    assert await archive_of(alice, read=False, category="forum") == newest_first[1:-1]
    assert await archive_of(alice, subject="forum.thread:1") == [replies[3], replies[1]]
    first = (await alice.get(INBOX, params={"archived": True, "limit": 4})).json()
    second = (await alice.get(first["next"])).json()
    assert [each["id"] for each in first["results"] + second["results"]] == newest_first
    assert second["next"] is None
    back = (await alice.get(second["previous"])).json()
    assert [each["id"] for each in back["results"]] == newest_first[:4]


async def test_ones_own_alone(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification()
    assert (await put(bob, id_, True)).status_code == 404
    changed = await alice.post(f"{INBOX}archive-all/")
    assert (await put(bob, id_, False)).status_code == 404
    assert await undo(bob, changed) == 0
    assert await archive_of(bob) == []
    assert await archive_of(alice) == [id_]


async def test_what_was_cancelled_or_never_listed_does_not_come_back(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    cancelled = new_notification()
    await alice.delete(f"{INBOX}{cancelled}/")
    db.execute("select tocsin.cancel((select max(event_id) from tocsin.event))")
    overrides = {"overrides": {"*": {"in_app": False}}}
    await alice.patch("/api/notification-preferences/", json=overrides)
    never = new_notification()
    for id_ in (cancelled, never):
        response = await put(alice, id_, False)
        assert response.status_code == 409
        assert "was cancelled or replaced" in response.json()["detail"]
    assert await archive_of(alice) == []
    assert await unread(alice) == 0


@pytest.mark.parametrize("body", [{}, {"archived": None}, {"archived": 1}, {"read": True}, []])
async def test_a_wrong_body_changes_nothing(
    alice: httpx.AsyncClient, new_notification: NewNotification, body: Any
) -> None:
    id_ = new_notification()
    response = await alice.patch(f"{INBOX}{id_}/", json=body)
    assert response.status_code in (400, 422)
    assert await listed(alice) == [id_]


async def test_all_that_a_list_showed_is_archived_and_nothing_later(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    bill, reply = new_notification(event_type="billing.payment_confirmed"), new_notification()
    as_of = (await alice.get(INBOX)).json()["as_of"]
    later = new_notification()
    body = {"category": "forum", "as_of": as_of}
    changed = await alice.post(f"{INBOX}archive-all/", json=body)
    assert changed.json() == {"archived": 1}
    assert (await listed(alice), await archive_of(alice)) == ([later, bill], [reply])
    assert await unread(alice) == 2


async def test_what_was_read_can_be_archived_at_once(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    read, new = new_notification(), new_notification()
    await alice.patch(f"{INBOX}{read}/read/")
    changed = await alice.post(f"{INBOX}archive-all/", json={"read": True})
    assert changed.json() == {"archived": 1}
    assert (await listed(alice), await archive_of(alice)) == ([new], [read])


async def test_an_undo_brings_back_what_that_call_archived(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    before, read, new, restored = (new_notification() for _ in range(4))
    await alice.delete(f"{INBOX}{before}/")
    await alice.patch(f"{INBOX}{read}/read/")
    changed = await alice.post(f"{INBOX}archive-all/")
    assert changed.json() == {"archived": 3}
    later = new_notification()
    await alice.delete(f"{INBOX}{later}/")
    await put(alice, restored, False)
    await put(alice, restored, True)  # by itself, after that call
    assert await undo(alice, changed) == 2
    assert await listed(alice) == [new, read]
    assert await archive_of(alice) == [later, restored, before]
    assert await unread(alice) == 1
    assert await undo(alice, changed) == 0


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("change", ["read", "archive"])
async def test_what_was_done_to_a_group_can_be_undone(
    alice: httpx.AsyncClient, new_notification: NewNotification, change: str, members: int
) -> None:
    ids = [new_notification(subject="forum.thread:1") for _ in range(members)][::-1]
    page = (await alice.get(INBOX, params={"grouped": True})).json()
    ((group, key),) = [(each["count"], each["group_key"]) for each in page["results"]]
    assert group == members
    if change == "read":
        changed = await alice.patch(f"{INBOX}groups/{key}/read/")
    else:
        changed = await alice.delete(f"{INBOX}groups/{key}/")
        assert (await listed(alice), await archive_of(alice)) == ([], ids)
    assert await unread(alice) == 0
    later = new_notification(subject="forum.thread:1")
    assert await undo(alice, changed) == members
    assert await listed(alice) == [later, *ids]
    assert await unread(alice) == members + 1


async def test_the_archive_has_no_groups(alice: httpx.AsyncClient, people: None) -> None:
    response = await alice.get(INBOX, params={"archived": True, "grouped": True})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "archived"


@pytest.mark.parametrize(
    "token", ["yesterday", to_opaque("read"), to_opaque("sent 2026-01-01T00:00:00+00:00")]
)
async def test_an_undo_that_no_call_returned_is_refused(
    alice: httpx.AsyncClient, token: str
) -> None:
    response = await alice.post(UNDO, json={"undo": token})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "undo"
    assert "Tocsin-Undo" in error["message"]


async def test_nothing_to_archive_is_no_change(
    alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    assert (await alice.post(f"{INBOX}archive-all/")).json() == {"archived": 0}
    assert db.execute("select count(*) from tocsin.inbox_change").fetchone() == (0,)


def test_streams_receive_which_came_back() -> None:
    before = Position("5:5:")
    changes = [InboxChange(1, "unarchived", [7, 8]), InboxChange(1, "archived", None)]
    back, many = events_since(before, "6:6:", [], changes)
    assert (back.event, back.data) == ("unarchived", b'{"ids":[7,8]}')
    assert (many.event, many.data) == ("resync", b"{}")


async def test_of_very_many_streams_read_the_list_again(
    alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute(
        "select tocsin.notify('forum.new_thread', array['alice'], 'x') from generate_series(1, 1001)"
    )
    changed = await alice.post(f"{INBOX}archive-all/")
    assert changed.json() == {"archived": 1001}
    assert await undo(alice, changed) == 1001
    created = db.execute("select change, notification_ids from tocsin.inbox_change order by at")
    assert created.fetchall() == [("archived", None), ("unarchived", None)]
    assert await unread(alice) == 1001
