"""Apps and people of one run: they carry out the plan, and record the result of each call."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import psycopg
from msgspec import Struct

from faults.plan import STREAMS, TOPICS, Action

SECRET = "a secret of at least thirty-two bytes, for the fault runner"
CALL_SECONDS = 6.0
RETRY_SECONDS = 60.0  # how long an app repeats an HTTP call with an unknown outcome
GONE = (psycopg.OperationalError, OSError, TimeoutError)

COMMITTED, UNKNOWN, NOTHING = "committed", "unknown", "nothing"


class AppEvent(Struct):
    """What an app knows about an event."""

    action: Action
    people: tuple[int, ...]
    outcome: str
    at: float  # Unix seconds, when its outcome was known
    event_id: int = 0
    send_at: float = 0.0


class Revocation(Struct):
    """A cancellation or an opt-out that committed."""

    kind: str
    at: float
    marker: str = ""
    person: int = -1
    event_type: str = ""


def person_id(number: int) -> str:
    return f"p{number}"


def address(number: int) -> str:
    return f"p{number}@example.com"


class Load:
    """The calls of one run; `dsn` and `ports` are the current addresses of the database and the HTTP processes."""

    def __init__(self, dsn: Callable[[], str], ports: list[int], api_key: str) -> None:
        self._dsn = dsn
        self._ports = ports
        self._api_key = api_key
        self.app_events: dict[int, AppEvent] = {}
        self.revocations: list[Revocation] = []
        self.responses: Counter[str] = Counter()
        self.badges: dict[int, int] = {}  # the last badge of each stream
        self.refused: list[str] = []  # refusals that no fault explains
        self._client = new_client(CALL_SECONDS)

    # Running.

    async def run(self, actions: tuple[Action, ...]) -> None:
        """Runs each action at its time, whether or not earlier ones have ended."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for action in actions:
                await asyncio.sleep(max(0.0, started + action.at - time.monotonic()))
                group.create_task(self._do(action))

    async def _do(self, action: Action) -> None:
        await getattr(self, f"_{action.kind}")(action)

    # An app.

    async def _sql(self, action: Action) -> None:
        statement = "select tocsin.notify(%s, %s, %s)"
        arguments = (action.event_type, self._ids(action), _title(action))
        await self._notify(action, action.people, statement, arguments)

    _crowd = _sql

    async def _topic(self, action: Action) -> None:
        followers = tuple(TOPICS[action.mode])
        statement = "select tocsin.notify_topic(%s, %s, %s)"
        await self._notify(
            action, followers, statement, (action.mode, action.event_type, _title(action))
        )

    async def _scheduled(self, action: Action) -> None:
        at = datetime.now(UTC) + timedelta(seconds=action.seconds)
        statement = "select tocsin.notify(%s, %s, %s, send_at => %s)"
        arguments = (action.event_type, self._ids(action), _title(action), at)
        app_event = await self._notify(action, action.people, statement, arguments)
        app_event.send_at = at.timestamp()

    async def _notify(
        self, action: Action, people: tuple[int, ...], statement: str, arguments: tuple[Any, ...]
    ) -> AppEvent:
        app_event = self.app_events[action.number] = AppEvent(action, people, NOTHING, 0.0)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                async with self._connection() as connection:
                    if action.mode in {"commit", "rollback", "slow"}:
                        await self._in_a_transaction(app_event, connection, statement, arguments)
                    else:
                        app_event.outcome = UNKNOWN
                        await self._execute(app_event, connection, statement, arguments)
                        app_event.outcome = COMMITTED
        except GONE as error:
            self.responses[type(error).__name__] += 1
        except psycopg.Error as error:
            app_event.outcome = NOTHING
            self.refused.append(f"{action.kind}: {error}")
        app_event.at = time.time()
        return app_event

    async def _in_a_transaction(
        self, app_event: AppEvent, connection: Any, statement: str, arguments: tuple[Any, ...]
    ) -> None:
        await connection.set_autocommit(False)
        await self._execute(app_event, connection, statement, arguments)
        if app_event.action.mode == "slow":
            await asyncio.sleep(min(2.0, app_event.action.seconds))
        if app_event.action.mode == "rollback":
            await connection.rollback()
            return
        app_event.outcome = UNKNOWN
        await connection.commit()
        app_event.outcome = COMMITTED

    async def _execute(
        self, app_event: AppEvent, connection: Any, statement: str, arguments: tuple[Any, ...]
    ) -> None:
        row = await (await connection.execute(statement, arguments)).fetchone()
        app_event.event_id = int(row[0])

    async def _http(self, action: Action) -> None:
        app_event = self.app_events[action.number] = AppEvent(action, action.people, UNKNOWN, 0.0)
        body = {
            "event_type": action.event_type,
            "recipients": self._ids(action),
            "title": _title(action),
        }
        headers = {
            "Authorization": f"Bearer {self._api_key}",
            "Idempotency-Key": f"key-{action.number}",
        }
        until = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < until:
            response = await self._call("POST", "/api/events/", headers, body)
            if response is not None and response.status_code == 202:
                app_event.event_id = int(response.json()["event_id"])
                app_event.outcome = COMMITTED
                break
            if response is not None and response.status_code not in {409, 429, 500, 503}:
                self.refused.append(f"http: {response.status_code} {response.text[:200]}")
                break
            await asyncio.sleep(0.5)
        app_event.at = time.time()

    async def _cancel(self, action: Action) -> None:
        target = self.app_events.get(action.target)
        if target is None or target.outcome != COMMITTED:
            return
        try:
            async with asyncio.timeout(CALL_SECONDS):
                async with self._connection() as connection:
                    await connection.execute("select tocsin.cancel(%s)", (target.event_id,))
        except GONE as error:
            self.responses[type(error).__name__] += 1
        except psycopg.Error as error:
            # an asynchronous failover may lose the event, which the invariants judge
            if "there is no event" not in str(error):
                self.refused.append(f"cancel: {error}")
        else:
            marker = target.action.marker
            self.revocations.append(Revocation("cancel", time.time(), marker))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn(), autocommit=True, connect_timeout=3
        )
        async with connection:
            yield connection

    # People.

    async def _opt_out(self, action: Action) -> None:
        person = action.people[0]
        body = {"overrides": {action.event_type: {"email": False}}}
        path = "/api/notification-preferences/"
        response = await self._call("PATCH", path, bearer(person), body)
        if response is not None and response.status_code == 200:
            self.revocations.append(
                Revocation("opt_out", time.time(), person=person, event_type=action.event_type)
            )

    async def _read_one(self, action: Action) -> None:
        headers = bearer(action.people[0])
        page = await self._call("GET", "/api/notifications/?read=false&limit=5", headers)
        if page is not None and page.status_code == 200 and page.json()["results"]:
            number = page.json()["results"][-1]["id"]
            await self._call("PATCH", f"/api/notifications/{number}/read/", headers)

    async def _read_all(self, action: Action) -> None:
        path = "/api/notifications/mark-all-read/"
        await self._call("POST", path, bearer(action.people[0]))

    async def count(self, person: int) -> int:
        """Returns the count by REST; -1 without a response."""
        path = "/api/notifications/unread-count/"
        response = await self._call("GET", path, bearer(person))
        if response is None or response.status_code != 200:
            return -1
        return int(response.json()["count"])

    async def follow(self, person: int) -> None:
        """Follows a person's stream, and resumes it whenever it is cut."""
        last = ""
        while True:
            headers = bearer(person) | ({"Last-Event-ID": last} if last else {})
            url = f"{self._base()}/api/notifications/stream/"
            timeout = httpx.Timeout(5.0, read=20.0)
            with suppress(httpx.HTTPError):
                async with self._client.stream(
                    "GET", url, headers=headers, timeout=timeout
                ) as response:
                    name = ""
                    async for line in response.aiter_lines():
                        if line.startswith("id: "):
                            last = line[4:]
                        elif line.startswith("event: "):
                            name = line[7:]
                        elif line.startswith("data: ") and name == "badge":
                            self.badges[person] = json.loads(line[6:])["count"]
            await asyncio.sleep(0.2)

    def streams(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.follow(person)) for person in STREAMS]

    # Both.

    async def _call(
        self, method: str, path: str, headers: dict[str, str], body: object = None
    ) -> httpx.Response | None:
        """Returns the response; None if the connection ended without one."""
        try:
            response = await self._client.request(
                method, self._base() + path, headers=headers, json=body
            )
        except httpx.HTTPError as error:
            self.responses[type(error).__name__] += 1
            return None
        self.responses[str(response.status_code)] += 1
        return response

    def _base(self) -> str:
        return f"http://127.0.0.1:{random.choice(self._ports)}"

    @staticmethod
    def _ids(action: Action) -> list[str]:
        return [person_id(number) for number in action.people]


def new_client(timeout: float) -> httpx.AsyncClient:
    """Returns a new connection for each call, so that no call uses one that a fault has cut."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=timeout, limits=limits)


def bearer(person: int) -> dict[str, str]:
    claims = {"sub": person_id(person), "exp": int(time.time()) + 3600}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


def _title(action: Action) -> str:
    return f"{action.marker} of {action.kind}"
