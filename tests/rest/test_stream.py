"""The stream, over a real server and a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
from msgspec import structs

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import METRICS_TOKEN, Db, NewNotification, bearer, token
from tests.support.services import LONGEST, free_port, until
from tocsin.engine.model import Unavailable
from tocsin.engine.store.badge import PREPARATION
from tocsin.engine.store.database import Database
from tocsin.engine.store.libpq import ListenConnection
from tocsin.engine.store.recipient import erase_recipient
from tocsin.http.app import serve
from tocsin.http.protocol import Limits
from tocsin.settings import Settings

STREAM = "/api/notifications/stream/"


class Reader:
    """Reads a stream event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block's fields; a comment is the field ''."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(LONGEST):
            async for line in self._lines:
                if not line:
                    return fields
                name, _, text = line.partition(":")
                fields[name] = text.strip()
        return fields

    async def until(self, event: str) -> dict[str, str]:
        """The next event of that name; AssertionError where the stream ends before."""
        while block := await self.block():
            if block.get("event") == event:
                return block
        raise AssertionError(f"no {event}")

    async def badge(self, count: int) -> dict[str, str]:
        """The badge with that count; others may come before."""
        while True:
            block = await self.until("badge")
            if json.loads(block["data"])["count"] == count:
                return block


@pytest.fixture
def limits() -> Limits | None:
    """Of the server's connections; None: those of production."""
    return None


@pytest_asyncio.fixture
async def url(
    settings: Settings, dsn: str, database: Database, limits: Limits | None
) -> AsyncIterator[str]:
    """A server of this test's own."""
    port = free_port()
    started = asyncio.Event()
    own = structs.replace(settings, database_url=dsn, port=port)
    task = asyncio.create_task(serve(own, started=started, limits=limits))
    async with asyncio.timeout(LONGEST):
        await started.wait()
    # once the listeners are there, they can be stopped cleanly
    async with (
        httpx.AsyncClient(timeout=LONGEST) as client,
        client.stream(
            "GET", f"http://127.0.0.1:{port}{STREAM}", headers=bearer(token())
        ) as response,
    ):
        await Reader(response).badge(0)
    yield f"http://127.0.0.1:{port}"
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(LONGEST):
        await task


@asynccontextmanager
async def reading(url: str, *, query: str = "", **headers: str) -> AsyncIterator[Reader]:
    async with httpx.AsyncClient(timeout=LONGEST) as client:
        async with client.stream("GET", f"{url}{STREAM}{query}", headers=headers) as response:
            yield Reader(response)


async def test_a_stream_opens_at_once_and_moves_with_the_inbox(
    url: str, new_notification: NewNotification
) -> None:
    async with (
        reading(url, **bearer(token())) as stream,
        httpx.AsyncClient(timeout=LONGEST) as client,
    ):
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert 2000 <= int((await stream.block())["retry"]) <= 6000
        await stream.badge(0)
        id_ = await asyncio.to_thread(new_notification)
        assert json.loads((await stream.until("notification"))["data"])["id"] == id_
        await stream.badge(1)
        path = f"{url}/api/notifications/{id_}/read/"
        await client.patch(path, headers=bearer(token()))
        read = json.loads((await stream.until("read"))["data"])
        assert read == {"ids": [id_], "read": True}
        await stream.badge(0)


async def test_a_reconnect_replays_what_was_missed(
    url: str, new_notification: NewNotification
) -> None:
    async with reading(url, **bearer(token())) as stream:
        last = (await stream.badge(0))["id"]
    id_ = await asyncio.to_thread(new_notification)
    for query, headers in (("", {"Last-Event-ID": last}), (f"?last_event_id={last}", {})):
        async with reading(url, query=query, **bearer(token()), **headers) as stream:
            assert json.loads((await stream.until("notification"))["data"])["id"] == id_
    async with reading(url, query="?last_event_id=nonsense", **bearer(token())) as stream:
        await stream.until("resync")


async def test_the_stream_of_an_erased_person_ends_and_the_next_one_is_empty(
    url: str, new_notification: NewNotification, db: Db, database: Database
) -> None:
    await asyncio.to_thread(new_notification)
    async with reading(url, **bearer(token())) as stream:
        await stream.badge(1)
        await erase_recipient(database, "alice")
        await stream.until("expired")
        assert await stream.block() == {}, "the end"
    async with reading(url, **bearer(token())) as stream:
        await stream.badge(0)
        # of a person who is not known (yet) it stays open, whatever is announced
        db.execute("select tocsin.announce(array['alice'])")
        db.execute("select tocsin.upsert_recipient('alice')")
        await asyncio.to_thread(new_notification)
        await stream.badge(1)


async def test_a_stream_ends_with_its_token(url: str) -> None:
    async with reading(url, **bearer(token(ttl=2))) as stream:
        await stream.until("expired")
        assert await stream.block() == {}


async def test_a_ticket_opens_one_stream_at_a_time(url: str, people: None, db: Db) -> None:
    async with httpx.AsyncClient(timeout=LONGEST) as client:
        response = await client.post(f"{url}/api/stream-ticket/", headers=bearer(token()))
        assert response.status_code == 201
        query = f"?ticket={response.json()['ticket']}"
        async with reading(url, query=query) as stream:
            await stream.badge(0)
            second = await client.get(f"{url}{STREAM}{query}")
            assert second.status_code == 409
            assert second.headers["retry-after"]
        await released(db)
        async with reading(url, query=query) as stream:
            await stream.badge(0)
        await released(db)  # else that would come later, and make it usable again
        db.execute("update tocsin.stream_ticket set in_use_until = null, usable_until = now()")
        late = await client.get(f"{url}{STREAM}{query}")
        assert late.status_code == 401
        assert (await client.get(f"{url}{STREAM}?ticket=nonsense")).status_code == 401


async def released(db: Db) -> None:
    """Until the service has noticed the end of the ticket's stream."""
    in_use = "select from tocsin.stream_ticket where in_use_until is not null"
    await until(lambda: db.execute(in_use).fetchone() is None)


async def test_too_many_streams_are_refused_with_the_cure(url: str) -> None:
    open_ones = [reading(url, **bearer(token())) for _ in range(20)]
    streams = [await each.__aenter__() for each in open_ones]
    for stream in streams:
        await stream.block()
    async with httpx.AsyncClient(timeout=LONGEST) as client:
        response = await client.get(f"{url}{STREAM}", headers=bearer(token()))
        assert response.status_code == 429
        assert response.headers["retry-after"]
        assert "close one" in response.json()["detail"]
    for each in open_ones:
        await each.__aexit__(None, None, None)


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests under way are not ended by the grace period, which is short otherwise."""
    monkeypatch.setattr("tocsin.http.app._GRACE", 600)


async def test_a_stop_ends_open_streams_at_once(long_grace: None, url: str) -> None:
    async with reading(url, **bearer(token())) as stream:
        await stream.badge(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await stream.block() == {}  # and does not hang


class Replaced(ListenConnection):
    """As its connection is lost, another one of this process gets the number of its socket."""

    def _lose(self, error: Exception) -> None:
        super()._lose(error)
        found = list(socket.socketpair())
        while self._socket not in {each.fileno() for each in found}:
            found += socket.socketpair()
        self.others = found
        same = next(each for each in found if each.fileno() == self._socket)
        connecting = self._loop.create_connection(asyncio.Protocol, sock=same)
        self.connected = self._loop.create_task(connecting)


async def test_a_lost_connection_leaves_the_number_of_its_socket_to_the_next(
    db: Db, dsn: str
) -> None:
    connection = await Replaced.open(
        dsn, PREPARATION, on_notice=lambda *_: None, on_free=lambda: None
    )
    assert isinstance(connection, Replaced)
    holding = asyncio.create_task(connection.hold())
    await asyncio.sleep(0)
    db.execute("select pg_terminate_backend(%s)", (connection._connection.info.backend_pid,))
    with pytest.raises(Unavailable):
        await holding
    transport, _ = await connection.connected
    assert not transport.is_closing()
    transport.abort()
    for each in connection.others:
        each.close()


@pytest.mark.parametrize("limits", [Limits(write_seconds=0.3)])
async def test_the_socket_of_a_reader_that_stops_reading_is_closed(
    url: str, new_notification: NewNotification
) -> None:
    address = "127.0.0.1", int(url.rpartition(":")[2])
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(address)
        lines = [f"GET {STREAM} HTTP/1.1", "Host: x", f"Authorization: Bearer {token()}", "", ""]
        await asyncio.to_thread(stalled.sendall, "\r\n".join(lines).encode())
        assert await asyncio.to_thread(stalled.recv, 8) == b"HTTP/1.1"
        body = "é" * 100_000
        for _ in range(60):
            await asyncio.to_thread(new_notification, body=body)
        async with httpx.AsyncClient(timeout=LONGEST) as client:

            async def cut_off() -> bool:
                path, headers = f"{url}/metrics/", bearer(METRICS_TOKEN)
                metrics = (await client.get(path, headers=headers)).text
                # one is open: this client's
                return (
                    "tocsin_http_open_streams 0.0" in metrics
                    and "tocsin_http_open_connections 1.0" in metrics
                    and 'tocsin_http_connections_ended_total{reason="write timeout"} 1.0' in metrics
                )

            await until(cut_off)
        await asyncio.to_thread(reset_or_end, stalled)


async def test_an_open_stream_takes_less_than_13_kilobytes_of_python_objects(url: str) -> None:
    address = "127.0.0.1", int(url.rpartition(":")[2])

    async def opened(start: int, end: int) -> list[socket.socket]:
        clients = [socket.create_connection(address) for _ in range(start, end)]
        for number, client in enumerate(clients, start):
            head = (
                f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(f'p{number}')}"
            )
            client.sendall(f"{head}\r\n\r\n".encode())
        for client in clients:
            await asyncio.to_thread(read_badge, client)
        return clients

    tracemalloc.start()
    try:
        clients = await opened(0, 20)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        clients += await opened(20, 120)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for client in clients:
        client.close()
    assert (after - before) / 100 < 13_000


def read_badge(client: socket.socket) -> None:
    """Reads a stream until the end of its first badge."""
    client.settimeout(LONGEST)
    received = b""
    while b"event: badge" not in received or not received.endswith(b"\n\n\r\n"):
        received += client.recv(65_536)


def reset_or_end(client: socket.socket) -> None:
    """Until the server's end of the connection is gone; fails where it stays open."""
    client.settimeout(LONGEST)
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
