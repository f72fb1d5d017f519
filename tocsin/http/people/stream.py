"""The stream: server-sent events of one inbox (WHATWG HTML, section 9.2), of which Litestar sends the head.

The handler opens it and returns; `StreamMiddleware`, around the app, then sends from the hub to the client, so that an
open stream keeps no more than it needs in memory. Another task waits until the client has gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import HeaderParameter, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from tocsin.engine.badge.open_stream import OpenStream, StreamEvent
from tocsin.engine.model import Conflict, NotFound, Unavailable
from tocsin.engine.store import credential
from tocsin.http.auth import (
    RATE,
    HttpConnection,
    Person,
    PersonRequest,
    people_only,
    people_router,
    router,
)
from tocsin.http.errors import Unauthorized
from tocsin.http.openapi import get, noted
from tocsin.http.people.inbox import PATH
from tocsin.http.requests import Services

_WRITER = "tocsin_stream"  # where the handler leaves it, in the connection's state
HEARTBEAT = 15.0  # seconds
_RETRY = (
    2000,
    6000,
)  # milliseconds; spread, so that a restart does not bring everybody back at once
_UNBUFFERED = {"X-Accel-Buffering": "no"}
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def readers_only(connection: HttpConnection, handler: BaseRouteHandler) -> None:
    """Guard: a token or cookie as everywhere, or a ticket, which is taken when the stream opens."""
    if "ticket" not in connection.query_params:
        await people_only(connection, handler)


@get(
    PATH + "stream/",
    media_type="text/event-stream",
    opt=noted(fails=(409, 429)),
)
async def stream(
    request: PersonRequest,
    services: NamedDependency[Services],
    ticket: Annotated[
        str | None, QueryParameter(max_length=200, description="From POST /api/stream-ticket/.")
    ] = None,
    last_event_id: Annotated[
        str | None, QueryParameter(max_length=8192, description="As the header Last-Event-ID.")
    ] = None,
    last_event_id_header: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID", description="Replays what was committed since that event."
        ),
    ] = None,
) -> Response[str]:
    """Follow the inbox.

    Server-sent events: `badge` {count}, `notification` {…}, `read` {ids, read}, `archived` {ids}, `action` {id, acted},
    `resync` (read the list again), and `expired` at the token's end or when the person is erased. Comments are
    heartbeats. A 409: the
    stream of the ticket is still open. A 401: the ticket is not known, or too old.
    """
    if request.method == "HEAD":  # opens nothing, and takes no ticket
        return Response("", media_type="text/event-stream", headers=_UNBUFFERED)
    person = request.auth if ticket is None else await _take(services, ticket)
    last = last_event_id_header or last_event_id or None
    try:
        open_stream = services.hub.open_stream(person.recipient_id, last)
    except BaseException:
        await _release(services, ticket)
        raise
    return _EventStream(_StreamWriter(services, open_stream, person.expires_at, ticket))


class _EventStream(Response[str]):
    """Sends the head of a response without a length, and leaves the rest to `StreamMiddleware`."""

    def __init__(self, writer: _StreamWriter) -> None:
        super().__init__("")
        self._writer = writer

    def to_asgi_response(self, *_arguments: Any, **_named: Any) -> ASGIResponse:
        """Implements the interface of Litestar."""
        return cast("ASGIResponse", self._open)

    async def _open(self, scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        except BaseException:
            await self._writer.close()
            raise
        scope["state"][_WRITER] = self._writer


class StreamMiddleware:
    """Around the app: goes on with a stream that the app has opened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        kept = cast("dict[str, Any]", scope)
        writer = kept.get("state", {}).pop(_WRITER, None)
        if writer is not None:
            _release_request(kept)
            await writer.run(receive, send)


def _release_request(scope: dict[str, Any]) -> None:
    """Leaves in it what the server asks for while the stream is open: it keeps the scope, and the list of headers."""
    needed = {name: scope[name] for name in ("type", "method")}
    scope["headers"].clear()
    scope.clear()
    scope.update(needed)


class _StreamWriter:
    """Sends one open stream to its reader."""

    __slots__ = ("_expires_at", "_open_stream", "_services", "_ticket")

    def __init__(
        self,
        services: Services,
        open_stream: OpenStream,
        expires_at: float,
        ticket: str | None,
    ) -> None:
        self._services = services
        self._open_stream = open_stream
        self._expires_at = expires_at
        self._ticket = ticket

    async def run(self, receive: Receive, send: Send) -> None:
        """Runs until either end closes; that of a reader that takes nothing is closed (`http/protocol.py`)."""
        disconnected = asyncio.create_task(_close_on_disconnect(receive, self._open_stream))
        try:
            with suppress(OSError):
                await self._send_events(send)
        finally:
            disconnected.cancel()
            await self.close()

    async def close(self) -> None:
        """Closes the stream and releases the ticket."""
        self._open_stream.leave()
        await _release(self._services, self._ticket)

    async def _send_events(self, send: Send) -> None:
        open_stream = self._open_stream
        # The first bytes leave at once: proxies and clients take the stream for open only then.
        await _write(send, b"retry: %d\n\n" % random.randint(*_RETRY))
        while (left := self._expires_at - time.time()) > 0:
            events = await open_stream.next(min(HEARTBEAT, left))
            if events is None and open_stream.erased:
                break
            if events is None:
                await _write(send, b"", more=False)
                return
            if not events and self._ticket is not None and not await self._renew(self._ticket):
                break
            await _write(send, encode(events) or b": heartbeat\n\n")
        expired = StreamEvent("expired", b"{}", open_stream.token)
        await _write(send, encode([expired]), more=False)

    async def _renew(self, ticket: str) -> bool:
        try:
            return await credential.renew_ticket(self._services.database, ticket)
        except Unavailable:
            return True  # the stream outlives a database that is away


async def _write(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _close_on_disconnect(receive: Receive, open_stream: OpenStream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    open_stream.close()


async def _take(services: Services, ticket: str) -> Person:
    """Returns the person of this ticket, which is in use from now on."""
    try:
        holder = await credential.take_ticket(services.database, ticket)
    except NotFound:
        raise Unauthorized(
            "The ticket is not known, or its time is over: get a new one by POST /api/stream-ticket/.",
            error="invalid_token",
        ) from None
    except Conflict:
        raise Conflict(
            "This ticket's stream is still open; a ticket opens one at a time, so get another by POST "
            "/api/stream-ticket/."
        ) from None
    return Person(holder.recipient_id, holder.expires_at.timestamp())


async def _release(services: Services, ticket: str | None) -> None:
    """Releases the ticket even while the server stops: else it stays taken for 45 s."""
    if ticket is not None:
        with suppress(Unavailable):
            await asyncio.shield(credential.release_ticket(services.database, ticket))


def encode(events: Sequence[StreamEvent]) -> bytes:
    """Returns the events on the wire; `data` is JSON on one line."""
    return b"".join(
        b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.event.encode(), event.data)
        for event in events
    )


@post("/api/stream-ticket/", status_code=201, opt={RATE: "tickets"})
async def stream_ticket(
    request: PersonRequest, services: NamedDependency[Services]
) -> credential.Ticket:
    """Get a ticket for the stream.

    A ticket opens one stream at a time: the first within 60 s, each further one within 60 s of the end of the one
    before, and none after the token has expired (`expires_at`).
    """
    person = request.auth
    expires_at = datetime.fromtimestamp(person.expires_at, UTC)
    return await credential.make_ticket(services.database, person.recipient_id, expires_at)


ROUTERS = (
    router("Stream", "reader", stream, guards=[readers_only]),
    people_router("Stream", stream_ticket),
)
