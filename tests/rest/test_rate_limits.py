"""Rate limits of people, keys and addresses: who is refused, with which headers, and who is counted behind a proxy."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
import pytest
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import SECRET, URL, bearer, development_app, token, transport_to
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import ServingProcesses, SharedState
from tocsin.http.errors import TooManyRequests
from tocsin.http.middleware import Limiter, client_address
from tocsin.settings import DEFAULT_RATE_LIMITS, RateLimit, Settings, to_networks

pytestmark = pytest.mark.own_app

COUNT = "/api/notifications/unread-count/"
LIST = "/api/notifications/"
MINUTE = 60


@pytest.fixture  # type: ignore[no-redef]
def settings() -> Settings:
    """Returns settings with small limits, and a network of proxies."""
    return Settings(
        jwt_secret=SECRET,
        jwt_algorithms=("HS256",),
        public_url=URL,
        rate_limits=tuple(RateLimit(each.name, 3, MINUTE) for each in DEFAULT_RATE_LIMITS),
        trusted_proxies=("10.0.0.0/8", "fd00::/8"),
    )


def client(app: Litestar, peer: str = "203.0.113.7", **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport_to(app, peer), base_url=URL, headers=headers)


async def statuses(caller: httpx.AsyncClient, path: str, times: int, **named: Any) -> list[int]:
    return [
        (await caller.request(named.get("method", "GET"), path)).status_code for _ in range(times)
    ]


async def test_a_person_beyond_the_limit_is_refused_with_the_time_to_wait(app: Litestar) -> None:
    async with client(app, **bearer(token())) as alice, client(app, **bearer(token("bob"))) as bob:
        assert await statuses(alice, LIST, 3) == [200] * 3
        refused = await alice.get(LIST)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["ratelimit-policy"] == '"reads";q=3;w=60'
        assert refused.headers["ratelimit"] == f'"reads";r=0;t={refused.headers["retry-after"]}'
        assert "3 requests in 60 seconds (the limit reads)" in refused.json()["detail"]
        # from any address; not other people, and not what has a limit of its own
        assert await statuses(bob, LIST, 1) == [200]
        assert (await alice.post("/api/notifications/mark-all-read/")).status_code == 200
        assert await statuses(alice, "/api/stream-ticket/", 4, method="POST") == [201] * 3 + [429]


async def test_the_count_is_a_read_on_its_quick_way_too(app: Litestar) -> None:
    async with client(app, **bearer(token())) as alice:
        assert await statuses(alice, COUNT, 5) == [200, 200, 200, 429, 429]
        assert await statuses(alice, LIST, 1) == [429]


async def test_a_key_has_limits_of_its_own(app: Litestar, machine: httpx.AsyncClient) -> None:
    key = machine.headers["Authorization"]
    async with client(app, Authorization=key) as caller:
        assert await statuses(caller, "/api/events/", 4) == [200] * 3 + [429]
        assert await statuses(caller, "/api/recipients/alice/", 4, method="DELETE") == [
            404, 404, 404, 429,
        ]  # fmt: skip


async def test_an_address_without_credentials_has_a_limit_and_probes_have_none(
    app: Litestar,
) -> None:
    async with client(app) as anyone, client(app, "203.0.113.8") as other:
        assert await statuses(anyone, LIST, 4) == [401] * 3 + [429]
        assert await statuses(anyone, "/unsubscribe/x/", 1) == [429]
        assert await statuses(anyone, "/healthz", 5) == [200] * 5
        assert await statuses(other, "/unsubscribe/x/", 1) == [404]


async def test_keys_of_operators_can_not_be_guessed_quickly(app: Litestar) -> None:
    async with client(app) as anyone:
        tries = [
            (await anyone.post("/ops/session/", json={"key": f"tocsin_{n}"})).status_code
            for n in range(4)
        ]
        assert tries == [401, 401, 401, 429]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client_is"),
    [
        # not a proxy: what it writes does not count
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("203.0.113.7", "10.0.0.1", "203.0.113.7"),
        # a proxy's last entry counts, not what the client wrote before it
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.1, 198.51.100.1", "198.51.100.1"),
        # two proxies in a row
        ("10.0.0.1", "192.0.2.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("fd00::1", "[2001:db8:1:2::5]:443", "2001:db8:1:2::99"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        # a proxy's own request, and what is no address
        ("10.0.0.1", "", None),
        ("10.0.0.1", "unknown", None),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", None),
    ],
)
def test_behind_proxies_the_last_hop_that_is_none_counts(
    settings: Settings, peer: str, forwarded: str, client_is: str | None
) -> None:
    scope: Any = {"client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    found = client_address(scope, to_networks(settings.trusted_proxies))
    wanted: Any = {"client": (client_is, 1), "headers": []}
    assert found == (client_is and client_address(wanted, to_networks(settings.trusted_proxies)))


def test_without_trusted_proxies_a_private_peer_may_be_one() -> None:
    forwarded = [(b"x-forwarded-for", b"198.51.100.1")]
    for peer, counted in (("127.0.0.1", False), ("10.0.0.1", False), ("203.0.113.7", True)):
        scope: Any = {"client": (peer, 1), "headers": forwarded}
        assert (client_address(scope, ()) is not None) is counted


async def test_a_forged_header_allows_no_more_requests(app: Litestar) -> None:
    async with client(app) as anyone:
        found = [
            (await anyone.get(LIST, headers={"X-Forwarded-For": f"198.51.100.{n}"})).status_code
            for n in range(4)
        ]
        assert found == [401] * 3 + [429]


async def test_make_up_has_no_limits(settings: Settings, database: Database) -> None:
    app = development_app(settings, database)
    async with client(app, "127.0.0.1", Host="localhost:8000", **bearer(token())) as alice:
        assert await statuses(alice, COUNT, 5) == [200] * 5


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


def test_a_bucket_fills_again_in_the_time_of_the_limit(clock: list[float]) -> None:
    limiter = Limiter(RateLimit("reads", 4, 60), lambda: clock[0])
    for _ in range(4):
        limiter.count("alice")
    with pytest.raises(TooManyRequests) as refused:
        limiter.count("alice")
    assert refused.value.retry_after == 15
    clock[0] += 15.1
    limiter.count("alice")
    with pytest.raises(TooManyRequests):
        limiter.count("alice")
    clock[0] += 61
    for _ in range(4):
        limiter.count("alice")


def test_several_processes_share_the_rate_and_each_has_the_whole_bucket(clock: list[float]) -> None:
    processes = ServingProcesses()
    processes.learn(SharedState(3, []))
    limiters = [Limiter(RateLimit("reads", 4, 60), lambda: clock[0], processes) for _ in range(3)]
    passed = 0
    for _ in range(10 * 60):
        clock[0] += 1
        for limiter in limiters:
            with suppress(TooManyRequests):
                limiter.count("alice")
                passed += 1
    assert 3 * 4 + 9 * 4 <= passed <= 3 * 4 + 10 * 4
    with pytest.raises(TooManyRequests) as refused:
        limiters[0].count("alice")
    assert 15 < refused.value.retry_after <= 45
    processes.learn(SharedState(1, []))  # the others ended
    clock[0] += 61
    for _ in range(4):
        limiters[0].count("alice")


def test_callers_are_forgotten_once_their_bucket_is_full(clock: list[float]) -> None:
    limiter = Limiter(RateLimit("address", 2, 60), lambda: clock[0])
    for number in range(200_000):
        limiter.count(number)
    assert limiter.callers <= 100_000
    limiter.count(199_999)
    with pytest.raises(TooManyRequests):
        limiter.count(199_999)
    for _ in range(3):
        clock[0] += 61
        limiter.count("bob")
    assert limiter.callers <= 2
