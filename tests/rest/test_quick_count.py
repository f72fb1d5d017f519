"""The badge before Litestar: the same responses as from Litestar, and the same rights."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar
from msgspec.structs import replace
from structlog.testing import capture_logs

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import (
    KEY,
    METRICS_TOKEN,
    SECRET,
    URL,
    Db,
    NewNotification,
    bearer,
    token,
    transport_to,
)
from tests.support.services import until
from tocsin.engine.badge.hub import BadgeHub, UnreadCounts
from tocsin.engine.model import Badge
from tocsin.engine.store.database import Database
from tocsin.http import middleware, tokens
from tocsin.http.app import create_app
from tocsin.http.tokens import TokenVerifier
from tocsin.settings import Settings

pytestmark = pytest.mark.own_app

COUNT = "/api/notifications/unread-count/"
TOKEN = token(ttl=86_400)  # made with the module, and used when its tests run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets each count which is returned before Litestar."""
    counted: list[int] = []
    send_badge = middleware.send_badge

    async def noted(send: Any, badge: Badge, *more: Any) -> None:
        counted.append(badge.count)
        await send_badge(send, badge, *more)

    monkeypatch.setattr(middleware, "send_badge", noted)
    return counted


def without_date(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name != "date"}


def by_the_app(headers: dict[str, str]) -> dict[str, str]:
    """Returns the same credentials in a form that is left to the app."""
    return headers | {"Authorization": f"bearer {token()}"}


async def test_it_is_like_the_response_of_the_app(
    anyone: httpx.AsyncClient, new_notification: NewNotification, quick: list[int]
) -> None:
    new_notification()
    good = bearer(token())
    first, second = [await anyone.get(COUNT, headers=each) for each in (good, by_the_app(good))]
    assert quick == [1]
    assert first.json() == second.json() == {"count": 1, "unseen": 1}
    assert without_date(first) == without_date(second)
    new_notification()
    assert (await anyone.get(COUNT, headers=good)).json() == {"count": 2, "unseen": 2}
    found = await anyone.get(COUNT.rstrip("/"), params={"x": "y"}, headers=good)
    assert found.json() == {"count": 2, "unseen": 2}
    assert quick == [1, 2, 2]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"tocsin_token={TOKEN}"},
        {"Cookie": f'theme=dark; x="a;b"; tocsin_token="{TOKEN}"; lang=de'},
        {"Authorization": f"Bearer {TOKEN}", "Origin": "https://elsewhere.test"},
        {"Authorization": f"Bearer {TOKEN}", "Cookie": f"tocsin_token={token('bob')}"},
    ],
)
async def test_new_tokens_cookies_and_origins_are_quick(
    anyone: httpx.AsyncClient,
    new_notification: NewNotification,
    quick: list[int],
    headers: dict[str, str],
) -> None:
    new_notification()
    first, second = [
        await anyone.get(COUNT, headers=each) for each in (headers, by_the_app(headers))
    ]
    assert first.json() == {"count": 1, "unseen": 1}
    assert without_date(first) == without_date(second)
    assert quick == [1]


async def test_a_page_of_an_allowed_origin_may_read_it(
    settings: Settings, database: Database, quick: list[int]
) -> None:
    own = replace(settings, allowed_origins=("https://app.example.com",))
    app = create_app(own, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        for origin in ("https://app.example.com", "https://evil.example", "null"):
            headers = bearer(token()) | {"Origin": origin}
            first, second = [
                await client.get(COUNT, headers=each) for each in (headers, by_the_app(headers))
            ]
            assert without_date(first) == without_date(second)
            allowed = first.headers.get("access-control-allow-origin")
            assert allowed == (origin if origin.startswith("https://app.") else None)
    assert quick == [0, 0, 0]


async def test_it_responds_behind_the_prefix_of_the_public_url(
    database: Database, quick: list[int]
) -> None:
    settings = Settings(
        jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url="https://app.test/notify/"
    )
    app = create_app(settings, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url="https://app.test", headers=bearer(token())
    ) as client:
        for path in (COUNT, f"/notify{COUNT}", f"/notify{COUNT}".rstrip("/")):
            assert (await client.get(path)).json() == {"count": 0, "unseen": 0}
        assert (await client.get(f"/other{COUNT}")).status_code == 404
    assert quick == [0, 0, 0]


async def test_what_it_is_not_sure_of_goes_on_to_the_app(
    anyone: httpx.AsyncClient, people: None, quick: list[int]
) -> None:
    good = bearer(token())
    for method, status in (("POST", 405), ("HEAD", 200), ("OPTIONS", 204), ("PUT", 405)):
        first, second = [await anyone.request(method, COUNT, headers=good) for _ in range(2)]
        assert first.status_code == second.status_code == status, method
        assert without_date(first) == without_date(second)
    cookie = {"Cookie": f"tocsin_token={token()}"}
    for headers, status in (
        ({}, 401),
        ({"Authorization": token()}, 401),
        (cookie | {"Authorization": token()}, 401),
        ({"Authorization": f"bearer {token()}"}, 200),
        ({"Authorization": f"Bearer  {token()}"}, 200),
        ({"Cookie": f"other_tocsin_token={token()}"}, 401),
        ({"Cookie": f"tocsin_token={token(key='another secret of at least 32 bytes')}"}, 401),
        (bearer("tocsin_nonsense"), 401),
        (bearer(token()[:-1]), 401),
        (bearer(token(ttl=-1)), 401),
    ):
        for _ in range(2):
            assert (await anyone.get(COUNT, headers=headers)).status_code == status, headers
    twice = [("Authorization", f"Bearer {token(who)}") for who in ("alice", "bob")]
    await anyone.get(COUNT, headers=twice)
    assert quick == []
    for path in (COUNT.replace("-", "%2D"), "/" + COUNT, COUNT.replace("api/", "api%2F")):
        await anyone.get(path, headers=good)
    assert quick == []


async def test_a_token_is_quick_for_its_own_person_alone(
    anyone: httpx.AsyncClient, new_notification: NewNotification, quick: list[int]
) -> None:
    new_notification("alice")
    for _ in range(2):
        for who, count in (("alice", 1), ("bob", 0), ("carol", 0)):
            response = await anyone.get(COUNT, headers=bearer(token(who)))
            assert response.json() == {"count": count, "unseen": count}
    assert quick == [1, 0, 0] * 2


async def test_a_remembered_token_that_expired_is_refused_by_the_app(
    anyone: httpx.AsyncClient, quick: list[int]
) -> None:
    short = bearer(token(ttl=2))
    assert (await anyone.get(COUNT, headers=short)).status_code == 200
    await until(lambda: time.time() >= jwt_expiry(short))
    response = await anyone.get(COUNT, headers=short)
    assert response.status_code == 401
    assert "expired" in response.json()["detail"]
    assert quick == [0]


def jwt_expiry(headers: dict[str, str]) -> float:
    import jwt

    text = headers["Authorization"].removeprefix("Bearer ")
    return float(jwt.decode(text, options={"verify_signature": False})["exp"])


async def test_the_tokens_used_longest_ago_are_forgotten_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_REMEMBERED", 3)
    verifier = TokenVerifier(settings)
    texts = [token(name) for name in "abcd"]
    for text in texts[:3]:
        await verifier.verify(text)
    assert verifier.remembered(texts[0]) is not None
    await verifier.verify(texts[3])
    assert [verifier.remembered(text) is not None for text in texts] == [True, False, True, True]


async def test_a_database_that_is_gone_is_unavailable(
    alice: httpx.AsyncClient, database: Database, quick: list[int]
) -> None:
    assert (await alice.get(COUNT)).status_code == 200
    await database.close()
    kill_sessions(database.dsn)
    response = await alice.get(COUNT)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.headers["content-type"] == "application/problem+json"
    assert quick == [0]


async def test_a_session_that_was_killed_is_replaced(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, dsn: str, quick: list[int]
) -> None:
    for count in range(1, 4):
        new_notification()
        kill_sessions(dsn)
        assert (await alice.get(COUNT)).json() == {"count": count, "unseen": count}
    assert quick == [1, 2, 3]


def kill_sessions(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as killer:
        killer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() and query like '%badges_in_order%'"
        )


async def test_a_client_that_disconnects_costs_the_others_no_response(
    database: Database, new_notification: NewNotification
) -> None:
    new_notification()
    counts = UnreadCounts(database)
    gone, staying = counts.read("alice"), [counts.read(name) for name in ("alice", "bob", "alice")]
    gone.cancel()
    assert [each.count for each in await asyncio.gather(*staying)] == [1, 0, 1]


async def test_ids_of_any_characters_are_counted(
    database: Database, db: Db, new_notification: NewNotification
) -> None:
    names = ['a"b', "a\\b", "{a,b}", "NULL", " a ", "ä✓🙂", "a'b", "%s", "$1", "zzz"]
    counts = UnreadCounts(database)
    for number, name in enumerate(names[:-1], 1):
        db.execute("select tocsin.upsert_recipient(%s)", (name,))
        for _ in range(number):
            new_notification(name)
    expected = [*range(1, len(names)), 0]
    found = await asyncio.gather(*(counts.read(name) for name in names))
    assert [each.count for each in found] == expected


async def test_a_query_larger_than_the_socket_buffer_gets_its_result(database: Database) -> None:
    counts = UnreadCounts(database)
    names = [f"{'x' * 180}{number}" for number in range(20_000)]
    found = await asyncio.gather(*(counts.read(name) for name in names))
    assert {(each.count, each.unseen) for each in found} == {(0, 0)}


async def test_they_are_counted_and_logged_once_a_second(
    app: Litestar, alice: httpx.AsyncClient, quick: list[int]
) -> None:
    with capture_logs() as lines:
        for _ in range(5):
            await alice.get(COUNT)
        await until(lambda: any(line["event"] == "requests" for line in lines))
    (line,) = [line for line in lines if line["event"] == "requests"]
    assert len(quick) == line["requests"] == 5
    assert line["route"] == "/api/notifications/unread-count"
    assert (line["method"], line["status"]) == ("GET", 200)
    text = (await alice.get("/metrics/", headers=bearer(METRICS_TOKEN))).text
    series = '{method="GET",route="/api/notifications/unread-count",status="200"}'
    assert f"tocsin_http_requests_total{series} 5.0" in text
    assert 'tocsin_http_request_seconds_count{route="/api/notifications/unread-count"} 5.0' in text
