"""The faults of aioapns 4.0, each shown to be there without the correction, and gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from aioapns.common import NotificationRequest, PushType
from aioapns.connection import (
    APNsKeyConnectionPool,
    APNsTLSClientProtocol,
    JWTAuthorizationHeaderProvider,
)
from aioapns.exceptions import ConnectionClosed

from tests.support.apns_far_end import *  # noqa: F403 - fixtures
from tests.support.apns_far_end import DEVICE, TOPIC, Corrected, h2_context, outlasting, tokens_of
from tests.support.loop_clock import LoopClock
from tests.support.services import until
from tocsin.engine.actors.apns import ApnsPool
from tocsin.engine.actors.apns_connection import (
    Endpoint,
    connect,
)
from tocsin.engine.actors.apns_reply import ApnsResponse, NoResponse
from tocsin.testing.apns import (
    Act,
    ApnsReply,
    ApnsServer,
    Authority,
    Drop,
    Freeze,
    Garbage,
    GoAway,
    Hang,
    Held,
    Key,
    Reset,
    SlowBody,
)

pytestmark = pytest.mark.asyncio

OTHER = "11223344" * 8


class Uncorrected:
    """One of aioapns' connections."""

    def __init__(self, protocol: APNsTLSClientProtocol) -> None:
        self.protocol = protocol

    async def send(self, device: str = DEVICE) -> ApnsResponse:
        request = NotificationRequest(device, {"aps": {"alert": "hello"}}, push_type=PushType.ALERT)
        result = await self.protocol.send_notification(request)
        return ApnsResponse(int(result.status), result.description or "")


@asynccontextmanager
async def corrected(
    server: ApnsServer, authority: Authority, key: Key, *, quiet: float = 15.0
) -> AsyncIterator[Corrected]:
    endpoint = Endpoint(url=server.url, tls=h2_context(authority), quiet=quiet)
    connection = await connect(endpoint, lambda: None)
    try:
        yield Corrected(connection, await tokens_of(key).token())
    finally:
        connection.close()
        await connection.closed


@asynccontextmanager
async def uncorrected(
    server: ApnsServer, authority: Authority, key: Key
) -> AsyncIterator[Uncorrected]:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # its faults are expected
    provider = JWTAuthorizationHeaderProvider(key.private, key.key_id, key.team_id)
    factory = partial(APNsTLSClientProtocol, TOPIC, loop, None, provider)
    host, port = address(server)
    _, protocol = await loop.create_connection(factory, host, port, ssl=h2_context(authority))
    try:
        yield Uncorrected(protocol)
    finally:
        protocol.close()
        with suppress(AttributeError):  # early 3.11: a TLS transport that is closed already
            protocol.transport.abort()  # type: ignore[union-attr]
        await until(lambda: not server.wires)


def address(server: ApnsServer) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("https://").partition(":")
    return host, int(port)


# 1. Deadlines, and a result for whatever ends a stream.


@pytest.mark.parametrize("act", [Hang(), Reset(), ApnsReply(400), ApnsReply(400, body=b"{}")])
async def test_without_the_correction_a_send_hangs(
    server: ApnsServer, authority: Authority, key: Key, act: Act
) -> None:
    async with uncorrected(server, authority, key) as connection:
        server.plan(DEVICE, act)
        async with outlasting(0.2):
            await connection.send()


@pytest.mark.parametrize(
    ("act", "reply"),
    [
        (Hang(), NoResponse("timeout")),
        (Reset(), NoResponse("reset")),
        (Reset(7), NoResponse("reset", unprocessed=True)),
        (ApnsReply(400), ApnsResponse(400)),
        (ApnsReply(400, body=b"{}"), ApnsResponse(400)),
        (SlowBody(410), ApnsResponse(410)),
        (Drop(), NoResponse("disconnected")),
    ],
)
async def test_each_send_has_a_result(
    server: ApnsServer, authority: Authority, key: Key, act: Act, reply: ApnsResponse | NoResponse
) -> None:
    async with corrected(server, authority, key) as connection:
        server.plan(DEVICE, act)
        sending = asyncio.create_task(connection.send())
        if act in {Hang(), SlowBody(410)}:
            await until(lambda: server.received)
            await LoopClock().advance_until_done(sending, step=0.1)
        assert await sending == reply
        assert connection.connection.waiting == 0


# 2. Flow control.

LONG = ApnsReply(
    400, "BadTopic", headers=(("x", "y"),), body=b'{"reason":"BadTopic"' + b" " * 980 + b"}"
)


async def test_without_the_correction_a_connection_sends_no_more_after_many_bodies(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with uncorrected(server, authority, key) as connection:
        server.default = LONG
        most = 65_535 // len(LONG.content)
        for _ in range(most):
            await connection.send()
        async with outlasting(0.3):
            await connection.send()


async def test_thousands_of_error_responses_come_over_one_connection(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    """Without the correction it stands still after 2,340 of them, which fill the connection's window."""
    async with corrected(server, authority, key) as connection:
        await connection.send()
        server.default = ApnsReply(400, "BadTopic")
        for _ in range(30):
            replies = await asyncio.gather(*(connection.send() for _ in range(100)))
            assert set(replies) == {ApnsResponse(400, "BadTopic")}
    assert server.replies[400] == 3_000
    assert server.connected == 1


async def test_long_bodies_are_acknowledged_too(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key) as connection:
        server.default = LONG
        for _ in range(300):
            assert await connection.send() == ApnsResponse(400, "BadTopic")


# 3. Cancellation.


async def test_without_the_correction_a_cancelled_send_ends_the_others_too(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with uncorrected(server, authority, key) as connection:
        await connection.send()
        server.plan(DEVICE, Held())
        server.plan(OTHER, Held())
        victim, other = (asyncio.create_task(connection.send(each)) for each in (DEVICE, OTHER))
        await until(lambda: len(server.received) == 3)
        victim.cancel()
        await asyncio.wait([victim])
        server.release()
        with pytest.raises(ConnectionClosed):
            await other


async def test_a_cancelled_send_harms_no_other(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key) as connection:
        await connection.send()
        server.plan(DEVICE, Held())
        server.plan(OTHER, Held())
        victim, other = (asyncio.create_task(connection.send(each)) for each in (DEVICE, OTHER))
        await until(lambda: len(server.received) == 3)
        victim.cancel()
        await asyncio.wait([victim])
        server.release()
        assert await other == ApnsResponse(200)
        assert await connection.send() == ApnsResponse(200)
    assert server.connected == 1


# 4. One token.


async def test_without_the_correction_each_connection_signs_a_token(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    host, port = address(server)
    pool = APNsKeyConnectionPool(
        key.private, key.key_id, key.team_id, TOPIC, ssl_context=h2_context(authority)
    )
    there = {"APNS_SERVER": host, "APNS_PORT": port}
    pool.protocol_class = type("Local", (APNsTLSClientProtocol,), there)
    for _ in range(3):
        connection = await pool.create_connection()
        await Uncorrected(connection).send()  # type: ignore[arg-type]
        connection.close()
    assert len(server.rules.tokens) == 3
    await until(lambda: not server.wires)


async def test_all_connections_share_one_token(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    endpoint = Endpoint(url=server.url, tls=h2_context(authority))
    tokens = tokens_of(key)
    pool = ApnsPool(endpoint, most=3)
    server.streams = 1
    slots = [await pool.acquire() for _ in range(3)]
    for slot in slots:
        await Corrected(slot.connection, await tokens.token()).send()
    await pool.close()
    assert server.connected == 3
    assert len(server.rules.tokens) == 1


# 5. Bodies.

ODD = [
    ApnsReply(503, body=b"<html>Bad Gateway</html>"),
    ApnsReply(503, body=b"\xff\xfe"),
    ApnsReply(503, body=b'{"reason": 5}'),
    ApnsReply(503, body=b"[]"),
    ApnsReply(503, body=b"x" * 20_000, pieces=3),
]


@pytest.mark.parametrize("act", [*ODD[:2], ODD[3], ApnsReply(400, "BadTopic", pieces=3)])
async def test_without_the_correction_an_odd_body_ends_the_connection(
    server: ApnsServer, authority: Authority, key: Key, act: Act
) -> None:
    async with uncorrected(server, authority, key) as connection:
        server.plan(DEVICE, act)
        with pytest.raises(ConnectionClosed):
            await connection.send()


@pytest.mark.parametrize("act", ODD)
async def test_an_odd_body_leaves_the_status(
    server: ApnsServer, authority: Authority, key: Key, act: Act
) -> None:
    async with corrected(server, authority, key) as connection:
        server.plan(DEVICE, act)
        assert await connection.send() == ApnsResponse(503)
        assert await connection.send() == ApnsResponse(200)


async def test_a_body_in_pieces_is_put_together(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key) as connection:
        server.plan(DEVICE, ApnsReply(400, "BadTopic", pieces=21))
        assert await connection.send() == ApnsResponse(400, "BadTopic")


# What else was found.


async def test_without_the_correction_goaway_loses_the_servers_responses(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with uncorrected(server, authority, key) as connection:
        server.plan(DEVICE, GoAway(processed=True))
        with pytest.raises(ConnectionClosed):
            await connection.send()


@pytest.mark.parametrize(
    ("processed", "reply"),
    [(True, ApnsResponse(200)), (False, NoResponse("goaway", unprocessed=True))],
)
async def test_goaway_states_what_was_processed(
    server: ApnsServer,
    authority: Authority,
    key: Key,
    processed: bool,
    reply: ApnsResponse | NoResponse,
) -> None:
    async with corrected(server, authority, key) as connection:
        await connection.send()
        server.plan(OTHER, Held())
        earlier = asyncio.create_task(connection.send(OTHER))
        await until(lambda: len(server.received) == 2)
        server.plan(DEVICE, GoAway(processed, reason="Shutdown"))
        assert await connection.send() == reply
        assert not connection.connection.usable
        server.release()
        assert await earlier == ApnsResponse(200)
        await connection.connection.closed


async def test_without_the_correction_streams_are_remembered_for_ever(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with uncorrected(server, authority, key) as connection:
        for _ in range(10):
            await connection.send()
        assert len(connection.protocol.request_streams) == 10


async def test_a_connection_that_is_half_open_is_noticed(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key, quiet=0.05) as connection:
        server.plan(DEVICE, Freeze())
        assert await connection.send() == NoResponse("disconnected")
        await connection.connection.closed


async def test_pings_keep_a_quiet_connection(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key, quiet=0.02) as connection:
        before = connection.connection.event_at
        await until(lambda: connection.connection.event_at > before + 0.1)
        assert await connection.send() == ApnsResponse(200)


async def test_a_connection_that_nobody_uses_is_closed(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key, quiet=0.02) as connection:
        connection.connection.INACTIVITY_TIME = 0
        await connection.connection.closed


@pytest.mark.parametrize(
    ("act", "how"),
    [
        (Garbage(), "timeout"),  # the head of a frame that never ends
        (Garbage(b"\0" * 64), "protocol_error"),
    ],
)
async def test_what_is_not_http2_ends_the_connection(
    server: ApnsServer, authority: Authority, key: Key, act: Act, how: str
) -> None:
    async with corrected(server, authority, key) as connection:
        await connection.send()
        server.plan(DEVICE, act)
        sending = asyncio.create_task(connection.send())
        if how == "timeout":
            await until(lambda: len(server.received) == 2)
            await LoopClock().advance_until_done(sending)
        assert await sending == NoResponse(how)
        assert await connection.send() == NoResponse("closed", unprocessed=True)


async def test_a_deadline_in_silence_retires_the_connection(
    server: ApnsServer, authority: Authority, key: Key
) -> None:
    async with corrected(server, authority, key) as connection:
        await connection.send()
        server.plan(DEVICE, Freeze())
        sending = asyncio.create_task(connection.send())
        await until(lambda: len(server.received) == 2)
        assert await LoopClock().advance_until_done(sending) == NoResponse("timeout")
        assert not connection.connection.usable
