"""Limits of a connection, over real sockets; the app behind it reads a body and responds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from litestar.types import Receive, Scope, Send
from msgspec import structs

from tests.support.services import LONGEST, until
from tocsin.http.app import uvicorn_config
from tocsin.http.protocol import Connections, Limits
from tocsin.settings import Settings

QUICK = Limits(
    head_seconds=0.3, body_seconds=0.3, body_rate=100_000, write_seconds=0.3, close_seconds=0.3
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
OPEN_ENDED = structs.replace(QUICK, head_seconds=60.0, body_seconds=60.0)


class App:
    """Reads the body (not of `/unread`) and responds with its length; of `/large` with 50 MB."""

    def __init__(self) -> None:
        self.disconnected = 0
        self.responded = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length, more = 0, scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected += 1
                return
            assert message["type"] == "http.request"
            length += len(message["body"])
            more = message["more_body"]
        body = b"x" * 50_000_000 if scope["path"] == "/large" else str(length).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        self.responded += 1


class Running:
    """A server, and what it counts."""

    def __init__(self, port: int, app: App, connections: Connections) -> None:
        self.port = port
        self.app = app
        self.connections = connections

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def response_to(self, sent: bytes) -> bytes:
        """All that comes back until the server closes."""
        async with self.connected() as (reader, writer):
            writer.write(sent)
            return await read_all(reader)


@asynccontextmanager
async def running(limits: Limits) -> AsyncIterator[Running]:
    app, connections = App(), Connections()
    config = uvicorn_config(Settings(port=0), app, connections, limits)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(port, app, connections)
    finally:
        server.should_exit = True
        await task


async def read_all(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(LONGEST):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Byte by byte, until the other side is gone."""
    for byte in data:
        writer.write(bytes([byte]))
        try:
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(0.01)


async def quick_trickle(running: Running, sent: bytes) -> bytes:
    async with running.connected() as (reader, writer):
        trickling = asyncio.create_task(trickle(writer, sent))
        response = await read_all(reader)
        trickling.cancel()
        return response


HALF_SENT = {
    "a head without its end": GET,
    "half of a request line": b"GET /",
    "half of a second head": GET + b"\r\n" + GET,
    "a body without its end": POST + b"Content-Length: 10\r\n\r\nabc",
    "a chunked body without its end": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
}


@pytest.mark.parametrize("sent", HALF_SENT.values(), ids=HALF_SENT)
async def test_what_is_half_sent_is_ended_with_a_408(sent: bytes) -> None:
    async with running(QUICK) as server:
        response = await server.response_to(sent)
        assert b"HTTP/1.1 408 Request Timeout\r\n" in response
        assert b"application/problem+json" in response
        await until(lambda: server.connections.open == 0)
        part = "body" if sent.startswith(POST) else "head"
        assert server.connections.ended == {f"{part} timeout": 1}
        assert server.app.disconnected == (part == "body")


@pytest.mark.parametrize(
    "sent",
    [GET + b"a: " + b"b" * 1000, POST + b"Content-Length: 1000\r\n\r\n" + b"a" * 999],
    ids=["head", "body"],
)
async def test_what_trickles_in_is_ended_at_the_same_deadline(sent: bytes) -> None:
    async with running(QUICK) as server:
        assert b"HTTP/1.1 408" in await quick_trickle(server, sent)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_a_connection_without_a_request_is_closed_without_a_word(sent: bytes) -> None:
    async with running(QUICK) as server:
        assert await server.response_to(sent) == b""
        assert server.connections.ended == {"idle timeout": 1}


async def test_hundreds_of_half_sent_requests_are_all_ended() -> None:
    async with running(QUICK) as server:
        responses = await asyncio.gather(*[server.response_to(GET) for _ in range(300)])
        assert all(b"408" in response for response in responses)
        await until(lambda: server.connections.open == 0)


async def test_a_long_body_may_take_longer_while_it_comes_fast_enough() -> None:
    fast_enough = structs.replace(QUICK, body_rate=1_000)
    async with running(fast_enough) as server, server.connected() as (reader, writer):
        writer.write(POST + b"Content-Length: 1000000\r\n\r\n")
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(100):
            writer.write(b"a" * 10_000)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert loop.time() - began > 2 * QUICK.body_seconds
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_who_reads_nothing_is_cut_off() -> None:
    async with running(QUICK) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            await asyncio.to_thread(client.sendall, GET.replace(b"/ ", b"/large ") + b"\r\n")
            await until(lambda: server.connections.ended)
            assert server.connections.ended == {"write timeout": 1}
            await until(lambda: server.connections.open == 0)


async def test_who_reads_slowly_gets_all_of_it() -> None:
    async with running(QUICK) as server, server.connected() as (reader, writer):
        writer.write(GET.replace(b"/ ", b"/large ") + b"\r\n")
        got = 0
        while got < 50_000_000:
            read = await reader.read(1_000_000)
            assert read, f"the connection ended after {got} bytes"
            got += len(read)
            await asyncio.sleep(0.01)
        assert not server.connections.ended


TOO_LARGE = {
    "an endless URL": b"GET /" + b"a" * 2_000_000,
    "an endless header": GET + b"a: " + b"b" * 2_000_000,
    "endless headers": GET + b"a: b\r\n" * 300_000,
    "a large head that ends": GET + b"a: " + b"b" * 40_000 + b"\r\n\r\n",
    "many small headers": GET + b"a: b\r\n" * 200 + b"\r\n",
    "endless trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 300_000,
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_large_head_is_refused_before_the_app_is_called(sent: bytes) -> None:
    async with running(OPEN_ENDED) as server:
        assert b"HTTP/1.1 431 Request Header Fields Too Large" in await server.response_to(sent)
        assert server.app.responded == 0
        await until(lambda: server.connections.open == 0)


async def test_requests_in_a_pipeline_are_all_responded_to_up_to_a_limit() -> None:
    async with running(OPEN_ENDED) as server:
        async with server.connected() as (reader, writer):
            writer.write((GET + b"\r\n") * 60)
            for _ in range(60):
                assert await reader.readuntil(b"\r\n\r\n0")
        flood = (GET + b"\r\n") * 100_000
        await server.response_to(flood)
        await until(lambda: server.connections.open == 0)
        assert server.app.responded <= 60 + 65


async def test_others_have_their_turn_beside_a_body_of_tiny_chunks() -> None:
    sent = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 400_000 + b"0\r\n\r\n"
    async with running(OPEN_ENDED) as server:
        async with server.connected() as (reader, writer), server.connected() as (other, asks):
            writer.write(sent)
            large = asyncio.create_task(reader.readuntil(b"400000"))
            responded = 0
            while not large.done():
                asks.write(GET + b"\r\n")
                assert b"200 OK" in await other.readuntil(b"\r\n\r\n0")
                responded += 1
            assert b"200 OK" in await large
        assert responded > 40  # one for each read of the socket would be far fewer


async def test_a_body_that_nobody_reads_ends_the_connection_after_its_response() -> None:
    async with running(QUICK) as server, server.connected() as (reader, writer):
        writer.write(POST.replace(b"/ ", b"/unread ") + b"Content-Length: 9000000\r\n\r\n")
        writer.write(b"a" * 500_000)
        response = await read_all(reader)
        assert response.startswith(b"HTTP/1.1 200")
        assert response.endswith(b"0")
        await until(lambda: server.connections.open == 0)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_a_problem(sent: bytes) -> None:
    async with running(OPEN_ENDED) as server:
        response = await server.response_to(sent)
        assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"application/problem+json" in response


async def test_a_connection_serves_many_requests_and_an_upgrade_is_an_ordinary_one() -> None:
    async with running(OPEN_ENDED) as server, server.connected() as (reader, writer):
        for extra in (b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"", b""):
            writer.write(GET + extra + b"\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n0")
        assert server.connections.open == 1
