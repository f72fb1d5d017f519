"""The calls of apps and people at a steady pace, with exponential gaps between them; counts what it did.

People by the first letter of their id: `p` has an address, `a` an iPhone, `f` an Android phone, `w` a browser that
accepts pushes, `h` a webhook, `c` a channel of Slack, `s` follows the stream, and `r` has 40 unread notifications and
reads them.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from bench.caller import Caller
from bench.rounds import until

# Slack takes one message a second for a channel, so there are many of them
PEOPLE = {"p": 10_000, "a": 2_000, "f": 2_000, "w": 500, "h": 500, "c": 5_000, "s": 1_000, "r": 500}
UNREAD = 40  # of each reader
AT_ONCE = 200  # people of a fan-out
_CONNECTIONS = 8
_CALLERS = 4
_PLAIN, _MAIL, _PUSH = "billing.bench", "billing.bench_mail", "billing.bench_push"
_SETUP = (
    f"""
    insert into tocsin.event_type (event_type, category, label, position, default_channels)
    values
        ('{_PLAIN}', 'billing', 'Bench', 1000, '{{in_app}}'),
        ('{_MAIL}', 'billing', 'Bench', 1001, '{{in_app,email}}'),
        ('{_PUSH}', 'billing', 'Bench', 1002, '{{in_app,push}}')
    """,
    *(
        f"""
        insert into tocsin.recipient (recipient_id, email, name)
        select '{kind}' || i, '{kind}' || i || '@example.com', 'Person ' || i
        from generate_series(1, {number}) i
        """
        for kind, number in PEOPLE.items()
    ),
    """
    insert into tocsin.device (token, recipient_id, platform, provider)
    select case left(recipient_id, 1)
            when 'a' then lpad(to_hex(substr(recipient_id, 2)::integer), 64, '0')
            else 'pixel-' || recipient_id
        end,
        recipient_id,
        case left(recipient_id, 1) when 'a' then 'ios' else 'android' end,
        case left(recipient_id, 1) when 'a' then 'apns' else 'fcm' end
    from tocsin.recipient
    where recipient_id ~ '^[af]'
    """,
    f"""
    select tocsin.notify(
        '{_PLAIN}', array(select 'r' || i from generate_series(1, {PEOPLE["r"]}) i), 'Text ' || n
    )
    from generate_series(1, {UNREAD}) n
    """,
    "analyze",
)
_BROWSER = """
    insert into tocsin.device (token, recipient_id, platform, provider, keys)
    values (%s, %s, 'web', 'web_push', %s)
"""
_TARGET = """
    insert into tocsin.target (channel, kind, name, url, recipient_id, secrets)
    select %s, %s, recipient_id, %s || recipient_id, recipient_id, %s
    from tocsin.recipient
    where left(recipient_id, 1) = %s
"""
_SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
_UNREAD = """
    select notification_id, recipient_id
    from tocsin.notification
    where recipient_id ~ '^r' and read_at is null
"""
_BODY = "Bob: the mill it is. We meet at ten, in front of the old gate."
_NOTIFY = "select tocsin.notify(%s, %s, 'New reply', %s, '/forums/7/posts/12')"
LEFT = """
    select exists (select from tocsin.event_queue)
        or exists (select from tocsin.lease)
        or exists (select from tocsin.unread_delta)
        or exists (select from tocsin.delivery d where d.due_at is not null)
"""
Act = Callable[[], Coroutine[Any, Any, None]]


def prepare(owner: psycopg.Connection, far_ends: dict[str, Any]) -> None:
    """Creates people and event types, in a database without any; the far ends are those of other_far_ends.py."""
    for statement in _SETUP:
        owner.execute(statement.encode())
    for number, each in enumerate(far_ends["browsers"], start=1):
        owner.execute(_BROWSER, (each["endpoint"], f"w{number}", Jsonb(each["keys"])))
    secrets = Jsonb([{"secret": _SECRET}])
    owner.execute(_TARGET, ("webhook", None, far_ends["webhook"] + "-", secrets, "h"))
    owner.execute(_TARGET, ("chat", "slack", far_ends["chat"], None, "c"))


def finish(owner: psycopg.Connection) -> None:
    """Returns when all that was notified is delivered and counted."""
    until(lambda: owner.execute(LEFT).fetchone() == (False,), 120)


class PacedLoad:
    """One app, and people who call the given processes; its connections stay open."""

    def __init__(self, dsn: str) -> None:
        self.counts: Counter[str] = Counter()
        self._dsn = dsn
        self._unread: list[tuple[int, str]] = []
        self._connections: list[psycopg.AsyncConnection] = []
        self._free: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
        self._free_callers: asyncio.Queue[Caller] = asyncio.Queue()

    async def open(self) -> None:
        """Opens the app's connections, and makes each kind of call once on each of them."""
        for _ in range(_CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
            self._connections.append(connection)
            for event_type, kind in ((_PLAIN, "p"), (_MAIL, "p"), (_PUSH, "a"), (_PUSH, "w")):
                for people in ([_one(kind)], [_one(kind), _one(kind)]) * 6:  # until plans are kept
                    await connection.execute(_NOTIFY, (event_type, people, _BODY), prepare=True)
            self._free.put_nowait(connection)
        cursor = await self._connections[0].execute(_UNREAD)
        self._unread = await cursor.fetchall()
        random.shuffle(self._unread)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    async def run(self, paces: dict[str, float], seconds: float, ports: list[int]) -> None:
        """Makes calls of each kind, so many a second."""
        self.counts.clear()
        self._free_callers = asyncio.Queue()
        callers = [Caller(ports[number % len(ports)]) for number in range(_CALLERS)]
        for caller in callers:
            self._free_callers.put_nowait(caller)
        try:
            async with asyncio.TaskGroup() as group:
                for name, rate in paces.items():
                    group.create_task(self._pace(group, name, rate, seconds))
        finally:
            for caller in callers:
                caller.close()

    async def _pace(self, group: asyncio.TaskGroup, name: str, rate: float, seconds: float) -> None:
        act: Act = getattr(self, f"call_{name.replace(' ', '_').replace('-', '_')}")
        at = started = time.monotonic()
        while (at := at + random.expovariate(rate)) < started + seconds:
            if (early := at - time.monotonic()) > 0.0005:
                await asyncio.sleep(early)
            group.create_task(act())

    async def call_notify(self) -> None:
        await self._notify(_PLAIN, [_one("p")])

    async def call_mail(self) -> None:
        await self._notify(_MAIL, [_one("p")], "mail")

    async def call_push(self) -> None:
        """Notifies a person with one device, by APNs or FCM."""
        await self._notify(_PUSH, [_one(random.choice("af"))], "push")

    async def call_web_push(self) -> None:
        """Notifies a person with one browser."""
        await self._notify(_PUSH, [_one("w")], "web push")

    async def call_webhook(self) -> None:
        """Notifies a person with a webhook."""
        await self._notify(_PLAIN, [_one("h")], "webhook")

    async def call_chat(self) -> None:
        """Notifies a person with a channel of Slack."""
        await self._notify(_PLAIN, [_one("c")], "chat")

    async def call_stream(self) -> None:
        """Notifies a person who has a stream open."""
        await self._notify(_PLAIN, [f"s{random.randrange(200) + 1}"], "stream")

    async def call_fan_out(self) -> None:
        await self._notify(_PLAIN, _many())
        self.counts["further person"] += AT_ONCE - 1

    async def call_fan_out_with_mail(self) -> None:
        await self._notify(_MAIL, _many())
        self.counts["further person"] += AT_ONCE - 1
        self.counts["mail of a fan-out"] += AT_ONCE

    async def call_count(self) -> None:
        await self._call("count", _one("r"), "GET", "/api/notifications/unread-count/")

    async def call_list(self) -> None:
        await self._call("list", _one("r"), "GET", "/api/notifications/")

    async def call_mark_read(self) -> None:
        number, person = self._unread.pop()
        await self._call("mark read", person, "PATCH", f"/api/notifications/{number}/read/")

    async def _notify(self, event_type: str, people: list[str], *more: str) -> None:
        connection = await self._free.get()
        await connection.execute(_NOTIFY, (event_type, people, _BODY), prepare=True)
        self._free.put_nowait(connection)
        self.counts.update(("notify", *more))

    async def _call(self, name: str, person: str, method: str, path: str) -> None:
        caller = await self._free_callers.get()
        status, _ = await caller.ask(person, method, path)
        self._free_callers.put_nowait(caller)
        if status >= 400:
            raise SystemExit(f"{method} {path}: {status}")
        self.counts[name] += 1


def _one(kind: str) -> str:
    return f"{kind}{random.randrange(PEOPLE[kind]) + 1}"


def _many() -> list[str]:
    return [f"p{each + 1}" for each in random.sample(range(PEOPLE["p"]), AT_ONCE)]
