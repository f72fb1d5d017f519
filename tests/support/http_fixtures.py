"""The HTTP app over a real, empty database: `from tests.support.http_fixtures import *`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

import httpx
import jwt
import psycopg
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support.services import service_dsn
from tocsin.client import notify
from tocsin.dev.pages.demo import dev_routes
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.store.credential import create_api_key
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.settings import Settings

SECRET = "the secret of these tests, 32 bytes and more"
URL = "https://notify.test"
DEVELOPMENT_URL = "http://localhost:8000"
KEY = b"k" * 32
DEVELOPMENT_KEY = "the key of `tocsin up` in these tests, 32 bytes and more"
METRICS_TOKEN = "the-token-of-the-metrics"
LINKS = Links(URL, KEY)

Db = psycopg.Connection[Any]
NewNotification = Callable[..., int]


def token(sub: str = "alice", *, ttl: float = 600, key: str = SECRET, **claims: Any) -> str:
    """Returns a JWT as the host app makes it."""
    payload = {"sub": sub, "exp": int(time.time() + ttl), **claims}
    algorithm = payload.pop("algorithm", "HS256")
    return jwt.encode(payload, key, algorithm=algorithm)


def bearer(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials}"}


def transport_to(app: Litestar, peer: str = "127.0.0.1") -> httpx.ASGITransport:
    """Calls the app without a socket, as if from `peer`."""
    return httpx.ASGITransport(app, client=(peer, 1234))  # type: ignore[arg-type]


def development_app(settings: Settings, database: Database) -> Litestar:
    """Returns the app as `tocsin up` runs it."""
    return create_app(
        settings,
        database,
        BadgeHub(database),
        link_key=KEY,
        extra_routes=dev_routes(),
        development_key=DEVELOPMENT_KEY,
    )


@pytest.fixture
def settings() -> Settings:
    """Returns the settings of the app under test."""
    return Settings(
        jwt_secret=SECRET,
        jwt_algorithms=("HS256",),
        public_url=URL,
        metrics_token=METRICS_TOKEN,
    )


@pytest_asyncio.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """The app's pool."""
    pool = Database(service_dsn(dsn), max_size=6)
    await pool.open()
    yield pool
    await pool.close()


class CurrentDatabase:
    """The database of the test that is running, for an app that is made once for many tests."""

    current: Database

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)


@cache
def _make_shared_app(settings: Settings, dsn: str) -> tuple[Litestar, CurrentDatabase]:
    """Makes the app once, since that takes longer than most tests. Its subprocess connects to `dsn`."""
    database: Any = CurrentDatabase()
    database.current = Database(dsn)
    return create_app(settings, database, BadgeHub(database), link_key=KEY), database


@pytest_asyncio.fixture
async def app(
    request: pytest.FixtureRequest, settings: Settings, database: Database
) -> AsyncIterator[Litestar]:
    """The app, which other tests use before and after, except with the mark `own_app`."""
    # Not started, since only streams need it to listen: a connection that is given up half-way would keep PostgreSQL
    # from dropping the test's database until it times out.
    if request.node.get_closest_marker("own_app"):
        app = create_app(settings, database, BadgeHub(database), link_key=KEY)
    else:
        app, shared = _make_shared_app(settings, database.dsn)
        shared.current = database
    yield app
    await app.state.offload.stop()


@pytest_asyncio.fixture
async def anyone(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without credentials."""
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        yield client


@pytest_asyncio.fixture
async def alice(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A person, signed in."""
    transport = transport_to(app)
    headers = bearer(token("alice"))
    async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as client:
        yield client


@pytest_asyncio.fixture
async def bob(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Another one."""
    transport = transport_to(app)
    headers = bearer(token("bob"))
    async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as client:
        yield client


@pytest_asyncio.fixture
async def machine(app: Litestar, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """An app with a key."""
    _, key = await create_api_key(database, "tests")
    transport = transport_to(app)
    async with httpx.AsyncClient(transport=transport, base_url=URL, headers=bearer(key)) as client:
        yield client


@pytest.fixture
def people(db: Db) -> None:
    """Alice, Bob and Carol."""
    for name in ("alice", "bob", "carol"):
        db.execute("select tocsin.upsert_recipient(%s, %s)", (name, f"{name}@example.com"))


@pytest.fixture
def new_notification(db: Db, people: None) -> NewNotification:
    """Returns a function that notifies Alice (or `recipient`) and returns the id of the notification."""

    def _new_notification(recipient: str = "alice", **named: Any) -> int:
        arguments = {"event_type": "forum.new_reply", "title": "New reply", **named}
        event_id = notify(db, recipient=recipient, **arguments)
        row = db.execute(
            "select notification_id from tocsin.notification where event_id = %s", (event_id,)
        ).fetchone()
        assert row is not None
        return int(row[0])

    return _new_notification
