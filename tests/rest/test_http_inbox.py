"""A person's inbox over HTTP."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification
from tocsin.client import notify

INBOX = "/api/notifications/"


async def ids(client: httpx.AsyncClient, **query: Any) -> list[int]:
    response = await client.get(INBOX, params=query)
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["results"]]


async def count(client: httpx.AsyncClient) -> int:
    response = await client.get(f"{INBOX}unread-count/")
    assert response.status_code == 200
    return int(response.json()["count"])


async def test_a_valid_token_of_nobody_yet_reads_an_empty_inbox(alice: httpx.AsyncClient) -> None:
    listed = (await alice.get(INBOX)).json()
    assert listed["results"] == []
    assert (listed["next"], listed["previous"]) == (None, None)
    assert await count(alice) == 0
    assert (await alice.post(f"{INBOX}mark-all-read/", json={"as_of": listed["as_of"]})).json() == {
        "marked": 0
    }


async def test_a_notification_reads_as_it_was_created(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification(
        body="Monday.",
        action_url="/forums/7",
        metadata={"thread_id": 7},
        initiator="bob",
        body_html="<b>Monday.</b>",
    )
    found = (await alice.get(f"{INBOX}{id_}/")).json()
    assert list(found) == [
        "id", "event_id", "event_type", "category", "title", "body", "body_html", "action_url", "metadata",
        "initiator", "subject", "read", "read_at", "created_at", "archived",
        "actions", "acted", "initiator_profile",
    ]  # fmt: skip
    assert found["category"] == "forum"
    assert found["metadata"] == {"thread_id": 7}
    assert (found["read"], found["read_at"]) == (False, None)
    assert found["created_at"].endswith("Z")
    assert (await alice.get(INBOX)).json()["results"] == [found]


async def test_body_html_comes_sanitised(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification(
        body_html='<b onclick="x()">hi</b><script>x()</script><a href="javascript:x()">y</a><img src=x>'
    )
    for found in (
        (await alice.get(f"{INBOX}{id_}/")).json(),
        (await alice.get(INBOX)).json()["results"][0],
    ):
        assert found["body_html"] == '<b>hi</b><a rel="noopener noreferrer">y</a>'


async def test_pages_lead_through_all_and_back(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    created = [new_notification() for _ in range(7)]
    seen, pages = [], []
    previous = ""
    url: str | None = f"{INBOX}?limit=3"
    while url:
        page = (await alice.get(url)).json()
        pages.append([each["id"] for each in page["results"]])
        seen += pages[-1]
        previous, url = page["previous"], page["next"]
    assert seen == created[::-1]
    assert [len(each) for each in pages] == [3, 3, 1]
    back = (await alice.get(previous)).json()
    assert [each["id"] for each in back["results"]] == pages[1]
    first = (await alice.get(back["previous"])).json()
    assert [each["id"] for each in first["results"]] == pages[0]
    assert first["previous"] is None
    assert [each["id"] for each in (await alice.get(first["next"])).json()["results"]] == pages[1]


async def test_a_page_of_large_ones_is_shorter_and_leads_on(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    ids = [new_notification(body="é" * 100_000, body_html="<p>x</p>" * 10_000) for _ in range(13)]
    first = (await alice.get("/api/notifications/?limit=20")).json()
    assert [each["id"] for each in first["results"]] == ids[:1:-1]
    second = (await alice.get(first["next"])).json()
    assert [each["id"] for each in second["results"]] == ids[1::-1]
    assert second["next"] is None
    back = (await alice.get(second["previous"])).json()
    assert back["results"] == first["results"]


async def test_ties_in_time_neither_repeat_nor_vanish(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    created = [new_notification() for _ in range(9)]
    db.execute("update tocsin.notification set created_at = '2026-01-01 12:00:00.5+02'")
    seen: list[int] = []
    page: dict[str, Any] = {}
    url: str | None = f"{INBOX}?limit=2"
    while url:
        page = (await alice.get(url)).json()
        seen += [each["id"] for each in page["results"]]
        url = page["next"]
    assert seen == created[::-1]
    assert page["results"][0]["created_at"] == "2026-01-01T10:00:00.500000Z"


async def test_pages_stay_put_while_new_ones_arrive(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    created = [new_notification() for _ in range(4)]
    first = (await alice.get(f"{INBOX}?limit=2")).json()
    newer = [new_notification() for _ in range(3)]
    assert [e["id"] for e in (await alice.get(first["next"])).json()["results"]] == created[1::-1]
    refreshed = (await alice.get((await alice.get(first["next"])).json()["previous"])).json()
    assert [e["id"] for e in refreshed["results"]] == created[:1:-1]
    assert [e["id"] for e in (await alice.get(refreshed["previous"])).json()["results"]] == newer[
        1::-1
    ]


async def test_filters_and_their_links(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    replies = [new_notification() for _ in range(3)]
    mention = new_notification(event_type="forum.mention")
    billing = new_notification(event_type="billing.invoice_issued")
    await alice.patch(f"{INBOX}{replies[0]}/read/")
    assert await ids(alice, read="true") == [replies[0]]
    assert await ids(alice, read="false", category="forum") == [mention, *replies[:0:-1]]
    assert await ids(alice, event_type="billing.invoice_issued") == [billing]
    page = (
        await alice.get(INBOX, params={"read": "false", "category": "forum", "limit": 1})
    ).json()
    assert [e["id"] for e in (await alice.get(page["next"])).json()["results"]] == [replies[2]]
    assert page["next"].startswith(
        "https://notify.test/api/notifications/?limit=1&read=false&category=forum&cursor="
    )


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("cursor=zzz", "cursor"),
        ("cursor=%F0", "query"),
        ("read=maybe", "read"),
        ("event_type=forum.new_repyl", "event_type"),
        ("category=foru", "category"),
        ("category=%00", "category"),
        ("unread=true", "unread"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_wrong_query_names_its_field_and_the_cure(
    alice: httpx.AsyncClient, query: str, field: str
) -> None:
    response = await alice.get(f"{INBOX}?{query}")
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["field"] == field
    assert response.json()["errors"][0]["message"]


async def test_reading_and_unreading_move_the_badge(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification()
    assert await count(alice) == 1
    read = (await alice.patch(f"{INBOX}{id_}/read/")).json()
    assert read["read"] is True
    assert read["read_at"].endswith("Z")
    assert await count(alice) == 0
    again = (await alice.patch(f"{INBOX}{id_}/read", json={"read": True})).json()
    assert again["read_at"] == read["read_at"]
    unread = (await alice.patch(f"{INBOX}{id_}/read/", json={"read": False})).json()
    assert (unread["read"], unread["read_at"]) == (False, None)
    assert await count(alice) == 1


async def test_an_archived_one_leaves_list_and_badge(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    id_ = new_notification()
    for _ in range(2):
        response = await alice.delete(f"{INBOX}{id_}/")
        assert (response.status_code, response.content) == (204, b"")
    assert await ids(alice) == []
    assert await count(alice) == 0
    assert (await alice.get(f"{INBOX}{id_}/")).status_code == 200


async def test_mark_all_marks_what_the_list_could_show(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    new_notification(event_type="billing.invoice_issued")
    as_of = (await alice.get(INBOX)).json()["as_of"]
    late = new_notification()
    assert (await alice.post(f"{INBOX}mark-all-read/", json={"category": "billing"})).json() == {
        "marked": 1
    }
    assert (await alice.post(f"{INBOX}mark-all-read/", json={"as_of": as_of})).json() == {
        "marked": 1
    }
    assert await ids(alice, read="false") == [late]
    assert (await alice.post(f"{INBOX}mark-all-read/")).json() == {"marked": 1}
    assert await count(alice) == 0


async def test_mark_all_leaves_what_commits_after_the_list(
    alice: httpx.AsyncClient, dsn: str, people: None
) -> None:
    with psycopg.connect(dsn) as other:
        notify(other, recipient="alice", event_type="forum.new_reply", title="late")
        as_of = (await alice.get(INBOX)).json()["as_of"]
        other.commit()
    assert (await alice.post(f"{INBOX}mark-all-read/", json={"as_of": as_of})).json() == {
        "marked": 0
    }
    assert await count(alice) == 1


@pytest.mark.parametrize(
    "as_of", ["zzz", "1MQ", "1MCsxKw", "1MSs5KzUr", "1MSs5KzgsMw", "x" * 30_000]
)
async def test_a_wrong_as_of_is_refused(alice: httpx.AsyncClient, as_of: str) -> None:
    response = await alice.post(f"{INBOX}mark-all-read/", json={"as_of": as_of})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "as_of"


async def test_one_with_the_inbox_off_is_found_by_id_only(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    await alice.patch(
        "/api/notification-preferences/", json={"overrides": {"*": {"in_app": False}}}
    )
    id_ = new_notification(action_url="/x")
    assert await ids(alice) == []
    assert await count(alice) == 0
    assert (await alice.get(f"{INBOX}{id_}/")).status_code == 200
    assert (await alice.get(f"{INBOX}{id_}/open/")).status_code == 303
    why = (await alice.get(f"{INBOX}{id_}/why/")).json()["channels"]
    assert why[0]["sentence"] == "You turned the inbox off for everything."


@pytest.mark.parametrize(
    ("statement", "reason", "sentence"),
    [
        ("select tocsin.cancel(%(event)s)", "cancelled", "It was taken back since."),
        ("select tocsin.withdraw('thread:7')", "withdrawn", "It was taken back since."),
        (
            "select tocsin.notify('forum.new_reply', array['alice'], 'B', subject => 'thread:7', replaces => true)",
            "replaced",
            "A newer one of the same subject took its place.",
        ),
    ],
)
async def test_why_gives_the_reason_for_which_a_notification_left_the_inbox(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    statement: str,
    reason: str,
    sentence: str,
) -> None:
    id_ = new_notification(subject="thread:7")
    event = (await alice.get(f"{INBOX}{id_}/")).json()["event_id"]
    db.execute(statement, {"event": event})
    (inbox,) = [
        each
        for each in (await alice.get(f"{INBOX}{id_}/why/")).json()["channels"]
        if each["channel"] == "in_app"
    ]
    assert (inbox["decision"], inbox["reason"]) == ("off", reason)
    assert inbox["sentence"] == f"The inbox is on for New reply by default. {sentence}"
    by_sql = "select decision, reason from tocsin.why('alice', %s) where channel = 'in_app'"
    assert db.execute(by_sql, (event,)).fetchall() == [("off", reason)]


async def test_open_marks_read_and_leads_there(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    path, absolute = (
        new_notification(action_url="/forums/7?a=1#ü"),
        new_notification(action_url="https://example.com/x%20y"),
    )
    response = await alice.get(f"{INBOX}{path}/open/")
    assert (response.status_code, response.headers["location"]) == (
        303,
        "/forums/7?a=1#%C3%BC",
    )
    response = await alice.get(f"{INBOX}{absolute}/open")
    assert response.headers["location"] == "https://example.com/x%20y"
    assert (await alice.get(f"{INBOX}{new_notification()}/open/")).status_code == 204
    assert await count(alice) == 0


PERSONAL = [
    ("GET", ""),
    ("PATCH", "read/"),
    ("DELETE", ""),
    ("GET", "open/"),
    ("GET", "why/"),
]


@pytest.mark.parametrize(("method", "path"), PERSONAL)
async def test_another_persons_is_not_found(
    bob: httpx.AsyncClient,
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    method: str,
    path: str,
) -> None:
    id_ = new_notification(action_url="/secret")
    theirs = await bob.request(method, f"{INBOX}{id_}/{path}")
    nobodys = await bob.request(method, f"{INBOX}{id_ + 1}/{path}")
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.content == nobodys.content
    assert await count(alice) == 1
    assert await ids(alice) == [id_]


@pytest.mark.parametrize(
    "id_", ["0", "-1", "9223372036854775808", "99999999999999999999999", "abc", "1.5", "%00"]
)
@pytest.mark.parametrize(("method", "path"), PERSONAL)
async def test_an_impossible_id_is_not_found(
    alice: httpx.AsyncClient, id_: str, method: str, path: str
) -> None:
    assert (await alice.request(method, f"{INBOX}{id_}/{path}")).status_code == 404


async def test_lists_counts_and_mark_all_are_ones_own(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    assert await ids(bob) == []
    assert await count(bob) == 0
    assert (await bob.post(f"{INBOX}mark-all-read/")).json() == {"marked": 0}
    assert await count(alice) == 1


async def test_a_cancelled_one_leaves_list_and_badge(
    alice: httpx.AsyncClient, machine: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    found = (await alice.get(f"{INBOX}{new_notification()}/")).json()
    response = await machine.post(f"/api/events/{found['event_id']}/cancel/")
    assert response.json() == {"cancelled": 1}
    assert await ids(alice) == []
    assert await count(alice) == 0


async def test_a_row_held_by_an_app_is_a_conflict_to_try_again(
    alice: httpx.AsyncClient, new_notification: NewNotification, dsn: str
) -> None:
    id_ = new_notification()
    with psycopg.connect(dsn) as other:
        other.execute("select from tocsin.notification for update")
        response = await alice.patch(f"{INBOX}{id_}/read/")
        assert response.status_code == 409
        assert response.headers["retry-after"] == "1"
    assert (await alice.patch(f"{INBOX}{id_}/read/")).status_code == 200


async def test_counts_agree_under_concurrent_reads(
    alice: httpx.AsyncClient, new_notification: NewNotification, dsn: str
) -> None:
    created = [new_notification() for _ in range(10)]

    def more() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            for _ in range(20):
                notify(other, recipient="alice", event_type="forum.new_reply", title="more")

    writer = threading.Thread(target=more)
    writer.start()
    await asyncio.gather(*(alice.patch(f"{INBOX}{id_}/read/") for id_ in created + created))
    await asyncio.to_thread(writer.join)
    assert await count(alice) == 20
    assert len(await ids(alice, read="false", limit=100)) == 20


@pytest.mark.parametrize(
    ("method", "path", "sent", "begins"),
    [
        ("GET", INBOX, {"cursor": "zz"}, "cursor is not"),
        ("GET", INBOX, {"group_key": "zz"}, "group_key is not"),
        ("GET", INBOX, {"category": "nope"}, "The filter names"),
        ("GET", INBOX, {"subject": "a b"}, "subject is not"),
        ("POST", f"{INBOX}mark-all-read/", {"subject": "a b"}, "subject is not"),
        ("POST", f"{INBOX}archive-all/", {"subject": "a\n"}, "subject is not"),
        ("POST", f"{INBOX}seen/", {"as_of": "zz"}, "as_of is not"),
        ("POST", f"{INBOX}seen/", {"as_of": "2zz"}, "as_of is of another version"),
        ("GET", INBOX, {"cursor": "2zz"}, "cursor is of another version"),
        ("GET", INBOX, {"cursor": "2zz", "grouped": "true"}, "cursor is of another version"),
        ("GET", INBOX, {"group_key": "2zz"}, "group_key is of another version"),
        ("POST", f"{INBOX}undo/", {"undo": "zz"}, "undo is not"),
        ("PATCH", "/api/digest-preferences/", {"timezone": "Mars/Base"}, "Unknown timezone"),
    ],
)
async def test_a_problem_spells_the_name_of_a_field_as_it_is(
    alice: httpx.AsyncClient, method: str, path: str, sent: dict[str, str], begins: str
) -> None:
    named = "params" if method == "GET" else "json"
    response = await alice.request(method, path, **{named: sent})  # type: ignore[arg-type]
    assert response.status_code == 422
    assert response.json()["detail"].startswith(begins), response.json()
    assert response.json()["detail"].endswith(".")


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ("nope", "There is no such field. There are: limit, "),
        ("catgory", "There is no such field; did you mean category? There are: limit, "),
    ],
)
async def test_an_unknown_filter_is_an_error_that_names_those_there_are(
    alice: httpx.AsyncClient, given: str, begins: str
) -> None:
    response = await alice.get(INBOX, params={given: "1"})
    (error,) = response.json()["errors"]
    assert (response.status_code, error["field"]) == (422, given)
    assert error["message"].startswith(begins)
