"""What a caller has seen: positions in requests and in responses to writes, so that a standby serves no older state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.engine.store.credential import Operator
from tocsin.engine.store.database import Queries
from tocsin.engine.store.pagination import read_seen, unreadable, write_as_of
from tocsin.engine.store.replica import Reads
from tocsin.http.auth import App, Person, read_cookie
from tocsin.http.requests import Services

T = TypeVar("T")
AnyCaller = Request[Any, Any, Any]

HEADER = "Tocsin-Position"
_COOKIE = "tocsin_position"
_COOKIE_LIFE = 60  # seconds; a standby that is this late is not used
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


async def read_from(
    request: AnyCaller,
    services: Services,
    work: Callable[[Queries], Awaitable[T]],
    *,
    after: str | None = None,
) -> T:
    """Returns what `work` reads: from the standby if it has all that the caller has seen, and the snapshot `after`."""
    reads = services.reads
    if not reads.uses_standby:
        return await reads.read(work)
    seen = [*_sent_with(request), *([after] if after else [])]
    return await reads.read(work, caller=caller_of(request.scope), after=seen)


def _sent_with(request: AnyCaller) -> Iterator[str]:
    """Yields the snapshots of the positions in a request; raises Invalid."""
    given = request.headers.get(HEADER)
    if given is not None:
        snapshot = read_seen(given)
        if snapshot is None:
            cure = "Send a header of that name of a response, an as_of, or the id of a stream's event; or none."
            raise unreadable(HEADER, given, f"{HEADER} is no position", cure)
        yield snapshot
    for text in (request.headers.get("last-event-id", ""), read_cookie(request.scope, _COOKIE)):
        if snapshot := read_seen(text):
            yield snapshot


def caller_of(scope: Scope) -> str:
    """Returns under which name changes of a caller's data are noted: a recipient's id, or a key."""
    caller = scope.get("auth")
    if isinstance(caller, Person):
        return caller.recipient_id
    return f"key:{caller.api_key_id}" if isinstance(caller, App | Operator) else ""


class WritePositions:
    """Around the app: adds to the response of a write the position after it, where reads may come from a standby.

    A browser with the cookie `tocsin_token` gets it as a cookie too, so that its pages need not handle it.
    """

    def __init__(self, app: ASGIApp, reads: Reads, public_url: str | None) -> None:
        self._app = app
        self._reads = reads
        url = urlsplit(public_url or "")
        secure = "; Secure" if url.scheme == "https" else ""
        self._cookie_end = f"; Path={url.path.rstrip('/')}/; Max-Age={_COOKIE_LIFE}; HttpOnly; SameSite=Lax{secure}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope.get("method") in _SAFE:
            await self._app(scope, receive, send)
            return

        async def positioned(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                message["headers"] = [*message["headers"], *await self._headers(scope)]
            await send(message)

        await self._app(scope, receive, positioned)

    async def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        caller = caller_of(scope)
        if not caller:
            return []
        self._reads.changed({caller})
        snapshot = await self._reads.position()
        if snapshot is None:
            return []
        position = write_as_of(snapshot)
        headers = [(HEADER.lower().encode(), position.encode())]
        auth = scope.get("auth")
        if isinstance(auth, Person) and auth.by_cookie:
            cookie = f"{_COOKIE}={position}{self._cookie_end}"
            headers.append((b"set-cookie", cookie.encode()))
        return headers
