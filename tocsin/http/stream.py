"""The stream: server-sent events of one inbox (WHATWG HTML, section 9.2), as a raw ASGI route.

One task pumps from the hub to the client, the other waits for the client to go; whichever ends first ends both.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from litestar import asgi
from litestar.connection import ASGIConnection
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import BaseRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Meta, Struct

from tocsin.engine.model import Conflict, NotFound, Unavailable
from tocsin.engine.store.stream_ticket import release_ticket, renew_ticket, take_ticket
from tocsin.engine.subscription import StreamEvent, Subscription
from tocsin.http import examples
from tocsin.http.auth import Connection, Person, people_only
from tocsin.http.errors import Unauthorized
from tocsin.http.notifications import PATH
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.parse import read_query
from tocsin.http.services import Services

HEARTBEAT = 15.0  # seconds
_SEND_WITHIN = 30.0  # a reader that takes nothing for this long is gone
_RETRY = (
    2000,
    6000,
)  # milliseconds; spread, so that a restart does not bring everybody back at once
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class StreamQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What EventSource can't say in headers."""

    ticket: (
        Annotated[str, Meta(max_length=200, description="From POST /api/stream-ticket/.")] | None
    ) = None
    last_event_id: (
        Annotated[str, Meta(max_length=8192, description="As the header Last-Event-ID.")] | None
    ) = None


async def readers_only(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard: a token or cookie as everywhere, or a ticket, which is taken when the stream opens."""
    if connection.scope.get("method") != "GET":
        raise MethodNotAllowedException(headers={"Allow": "GET"})
    if read_query(connection, StreamQuery).ticket is None:
        await people_only(connection, handler)


@asgi(
    PATH + "stream/",
    opt=documented(
        Operation(
            summary="Follow the inbox",
            description=(
                "Server-sent events: `badge` {count}, `notification` {…}, `read` {ids, read}, "
                "`archived` {ids}, `resync` (read the list anew), and `expired` at the token's end. "
                "Comments are heartbeats. A ticket whose stream is still open is a 409, one that "
                "is not known or too old a 401."
            ),
            tag="Stream",
            query=StreamQuery,
            headers={"Last-Event-ID": "Replays what was committed since that event."},
            answers={200: Answer("The stream.", str, examples.STREAM, "text/event-stream")},
            fails=(409, 429),
        )
    ),
    copy_scope=False,
)
async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams one inbox until its reader goes, the token expires or the service stops."""
    connection = ASGIConnection[Any, Any, Any, Any](scope)
    query = read_query(connection, StreamQuery)
    services: Services = scope["litestar_app"].state.services
    last = connection.headers.get("last-event-id") or query.last_event_id
    async with _reader(services, scope, query.ticket) as person:
        async with services.hub.subscribe(person.recipient_id, last or None) as subscription:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            pump = asyncio.create_task(
                _pump(services, subscription, send, person=person, ticket=query.ticket)
            )
            gone = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (pump, gone):
                    task.cancel()
                results = await asyncio.gather(pump, gone, return_exceptions=True)
            if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
                raise results[0]


@asynccontextmanager
async def _reader(services: Services, scope: Scope, ticket: str | None) -> AsyncIterator[Person]:
    """Who reads; with a ticket, it is taken for as long as this lasts."""
    if ticket is None:
        yield scope["auth"]
        return
    try:
        holder = await take_ticket(services.database, ticket)
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
    try:
        yield Person(holder.recipient_id, holder.expires_at.timestamp())
    finally:
        # Even while the server stops: a ticket that is not let go stays taken for 45 s.
        with suppress(Unavailable):
            await asyncio.shield(release_ticket(services.database, ticket))


async def _pump(
    services: Services,
    subscription: Subscription,
    send: Send,
    *,
    person: Person,
    ticket: str | None,
) -> None:
    async def write(data: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(_SEND_WITHIN):
            await send({"type": "http.response.body", "body": data, "more_body": more})

    # The first bytes leave at once: proxies and clients take the stream for open only then.
    await write(b"retry: %d\n\n" % random.randint(*_RETRY))
    while (left := person.expires_at - time.time()) > 0:
        events = await subscription.next(min(HEARTBEAT, left))
        if events is None:
            await write(b"", more=False)
            return
        if not events and ticket is not None and not await _renew(services, ticket):
            break
        await write(encode(events) or b": heartbeat\n\n")
    await write(encode([StreamEvent("expired", b"{}", subscription.token)]), more=False)


async def _renew(services: Services, ticket: str) -> bool:
    try:
        return await renew_ticket(services.database, ticket)
    except Unavailable:
        return True  # the stream outlives a database that is away


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def encode(events: Sequence[StreamEvent]) -> bytes:
    """The events on the wire; `data` is JSON on one line."""
    return b"".join(
        b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.event.encode(), event.data)
        for event in events
    )
