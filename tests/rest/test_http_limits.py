"""Requests that would block the event loop: their limits, and how they are refused.

Work is counted in calls of functions, not in time, so that a busy machine changes nothing.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import LINKS, URL, bearer, token
from tocsin.engine.model import Invalid
from tocsin.engine.text import nearest
from tocsin.http.apps.events import PostedEvent
from tocsin.http.people.preferences import ChangedPreferences
from tocsin.http.requests import decode

pytestmark = pytest.mark.own_app

EVENTS = "/api/events/"
MOST_CALLS = 60_000  # of functions, Python's own among them: some 10 ms


class Calls:
    """How many functions were called."""

    count = 0


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()

    def note(_frame: object, event: str, _argument: object) -> None:
        calls.count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def like(name: str, number: int) -> str:
    """Another name of the same letters, which is the slowest to compare."""
    return f"{name[number % len(name) :]}{number:06}{name}"[:90]


HOSTILE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unknown fields": (
        "POST",
        "/ops/session/",
        {"json": {like("key", number): 0 for number in range(300)}},
    ),
    "unknown fields of a person": (
        "POST",
        "/api/notifications/mark-all-read/",
        {"json": {like("event_type_category", number)[:30]: 0 for number in range(1600)}},
    ),
    "unknown preferences": (
        "PATCH",
        "/api/notification-preferences/",
        {"json": {"overrides": {like("forum.new_reply", n)[:30]: {} for n in range(900)}}},
    ),
    "unknown channels": (
        "PATCH",
        "/api/notification-preferences/",
        {"json": {"overrides": {"*": {like("in_app", number): True for number in range(600)}}}},
    ),
    "an unknown category": (
        "PATCH",
        "/api/digest-preferences/",
        {"json": {"categories": ["forum" * 12_000]}},
    ),
    "parameters": ("GET", "/api/notifications/?" + "a=&" * 10_000, {}),
    "a quoted cookie": (
        "GET",
        "/api/me/",
        {"headers": {"Cookie": 'tocsin_token="' + '\\"' * 15_000 + '"'}},
    ),
    "cookies": (
        "GET",
        "/ops/api/overview/",
        {"headers": {"Cookie": "a=b;" * 8_000}},
    ),
    "languages": ("GET", "/settings/", {"headers": {"Accept-Language": "a;q=0.1," * 4_000}}),
    "a long token": ("GET", "/api/me/", {"headers": {"Authorization": "Bearer " + "e" * 30_000}}),
    "a cursor": ("GET", "/api/notifications/?cursor=" + "A" * 30_000, {}),
    "a form": ("POST", "/ops/session/", {"data": {f"a{number}": "b" for number in range(400)}}),
}


@pytest.mark.parametrize(("method", "path", "sent"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_request_costs_little(
    app: Litestar, method: str, path: str, sent: dict[str, Any]
) -> None:
    calls = Calls()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        with counted() as of_app:
            await app(scope, receive, send)
        calls.count = of_app.count

    headers = bearer(token())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(watched), base_url=URL, headers=headers
    ) as alice:
        await alice.get("/settings/")  # what is imported with the first request is not its fault
        if "Cookie" in sent.get("headers", {}):
            del alice.headers["Authorization"]
        response = await alice.request(method, path, **sent)
    assert 400 <= response.status_code < 500 or path == "/settings/"
    assert len(response.content) < 20_000
    assert calls.count < MOST_CALLS


def test_the_first_unknown_fields_are_named_and_fewer_compared() -> None:
    body = json.dumps({f"titlee{number}": 0 for number in range(5_000)}).encode()
    with pytest.raises(Invalid) as refused, counted() as calls:
        decode(body, PostedEvent)
    messages = [message for _, message in refused.value.fields]
    assert len(messages) == 20
    assert ["did you mean title?" in each for each in messages] == [True] * 3 + [False] * 17
    assert calls.count < MOST_CALLS


def test_a_name_is_compared_with_the_most_likely_ones() -> None:
    known = [f"category{number}.type" for number in range(2_000)]
    with counted() as calls:
        assert nearest("category77.typ", known) == ["category77.type"]
        assert nearest("category77.type" * 50, known) == []
    assert calls.count < MOST_CALLS
    assert nearest("titel", ["body", "title", "topic"]) == ["title"]
    assert nearest("", ["body"]) == []


@pytest.mark.parametrize("inner", ['"x"', r'"\\u0000"', "[]"])
@pytest.mark.parametrize("depth", [62, 70, 900, 5_000])
def test_what_is_nested_deeply_is_refused_at_its_field(depth: int, inner: str) -> None:
    nested = f'{{"a":{"[" * depth}{inner}{"]" * depth}}}'
    body = f'{{"event_type":"forum.mention","title":"x","metadata":{nested}}}'.encode()
    if depth == 62 and inner != "[]":
        assert decode(body, PostedEvent).metadata
        return
    with pytest.raises(Invalid) as refused:
        decode(body, PostedEvent)
    ((field, message),) = refused.value.fields
    assert field in ("metadata", "body")
    assert "64 levels" in message


NUL_IN_900_LEVELS = (
    b'{"event_type":"forum.mention","title":"x","recipients":["p1"],"metadata":{"a":'
    + b'{"a":' * 900
    + rb'"\u0000"'
    + b"}" * 902
)


def test_what_is_nested_deeply_is_refused_before_it_is_decoded() -> None:
    """Else its objects set off collections of garbage, of which the full ones hold the event loop."""
    collections = 0

    def note(phase: str, _info: dict[str, int]) -> None:
        nonlocal collections
        collections += phase == "start"

    gc.callbacks.append(note)
    try:
        for _ in range(20):
            with pytest.raises(Invalid, match="metadata is nested too deeply"):
                decode(NUL_IN_900_LEVELS, PostedEvent)
    finally:
        gc.callbacks.remove(note)
    assert collections <= 2


async def test_a_body_of_many_lists_is_decoded_in_the_subprocess(
    app: Litestar, machine: httpx.AsyncClient, people: None
) -> None:
    event = {"event_type": "forum.mention", "title": "x", "recipients": ["alice"]}
    for lists, pid in ((400, None), (600, int)):
        response = await machine.post(EVENTS, json=event | {"metadata": {"a": [[]] * lists}})
        assert response.status_code == 202
        assert isinstance(app.state.offload.pid, pid or type(None))


def test_brackets_in_texts_nest_nothing() -> None:
    text = '[{\\"[' * 100 + "\\\\"
    body = f'{{"event_type":"forum.mention","title":"{text}","metadata":{{"a[":"b\\\\"}}}}'.encode()
    assert decode(body, PostedEvent).title.startswith('[{"[')


def test_overrides_have_a_most() -> None:
    body = json.dumps({"overrides": {f"a{number}": {} for number in range(1_001)}}).encode()
    with pytest.raises(Invalid) as refused:
        decode(body, ChangedPreferences)
    assert refused.value.fields[0][0] == "overrides"


async def test_a_body_that_is_too_large_is_refused_with_the_limit(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    large = b" " * 64_001
    responses = {
        "64,000": await alice.patch("/api/notification-preferences/", content=large),
        "4,000": await anyone.post("/ops/session/", content=large),
    }
    for most, response in responses.items():
        assert response.status_code == 413
        assert f"larger than the {most} bytes" in response.json()["detail"]


async def test_more_recipients_than_a_call_takes_are_refused(machine: httpx.AsyncClient) -> None:
    event = {"event_type": "forum.mention", "title": "x", "recipients": ["a"] * 100_001}
    response = await machine.post(EVENTS, json=event, timeout=60)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "recipients"
    assert "100000" in response.json()["errors"][0]["message"]


async def test_nobody_who_is_not_signed_in_has_a_body_read(app: Litestar) -> None:
    for method, path in (("POST", EVENTS), ("PATCH", "/api/notification-preferences/")):
        status, received = await call(app, method, path, {}, [])
        assert (status, received) == (401, 0)


async def test_a_client_that_goes_away_is_no_error(
    app: Litestar, machine: httpx.AsyncClient, people: None
) -> None:
    key = machine.headers["Authorization"]
    person = bearer(token())["Authorization"]
    form = "multipart/form-data; boundary=x"
    link = LINKS.unsubscribe("alice", "forum.new_reply", datetime.now(UTC)).removeprefix(URL)
    for method, path, headers in (
        ("POST", EVENTS, {"authorization": key}),
        ("PATCH", "/api/notification-preferences/", {"authorization": person}),
        ("POST", "/ops/session/", {}),
        ("POST", link, {"content-type": form}),
    ):
        for sent in ([], [b"{" * 3_000]):
            with capture_logs() as lines:
                status, _ = await call(app, method, path, headers, sent)
            assert status == 499
            assert [line["log_level"] for line in lines] == ["info"]


async def call(
    app: Litestar, method: str, path: str, headers: dict[str, str], sent: list[bytes]
) -> tuple[int, int]:
    """The status of a request whose client sends some of its body and goes; and how often it was read."""
    statuses, reads = [], 0

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for chunk in sent:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        while True:
            yield {"type": "http.disconnect"}

    waiting = messages()

    async def receive() -> Any:
        nonlocal reads
        reads += 1
        return await anext(waiting)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1234),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "state": {},
        "extensions": {},
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    return statuses[0], reads
