"""The badge: the call that clients make most, as a raw ASGI route for its speed.

Most of them never come here: QuickCount answers them before Litestar.
"""

from __future__ import annotations

from litestar import asgi
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import BaseRouteHandler
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from tocsin.http.auth import Connection
from tocsin.http.middleware import Headers
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.people.inbox import PATH as INBOX
from tocsin.http.people.inbox import TAG
from tocsin.http.services import Services

PATH = INBOX + "unread-count/"
FAILED = "unread_count_failed"
"""In a scope's state: why QuickCount could not count, so that it is tried once and told as any failure is."""

_KIND = (b"content-type", b"application/json")
_UNKEPT = (b"cache-control", b"no-store")


class Count(Struct, frozen=True):
    """The badge."""

    count: int


async def get_only(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Guard: GET and HEAD; before anybody's credentials, as with other methods elsewhere."""
    if connection.scope.get("method") not in ("GET", "HEAD"):
        raise MethodNotAllowedException(headers={"Allow": "GET, HEAD"})


@asgi(
    PATH,
    opt=documented(
        Operation(
            summary="Count the unread ones",
            description="Exact, from a snapshot taken after the request arrived.",
            tag=TAG,
            answers={200: Answer("The badge.", Count, {"count": 3})},
        )
    ),
    copy_scope=False,
)
async def unread_count(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """The exact count."""
    failed: Exception | None = scope["state"].get(FAILED)
    if failed is not None:
        raise failed
    services: Services = scope["litestar_app"].state.services
    await send_count(send, await services.hub.count(scope["auth"].recipient_id))


async def send_count(send: Send, count: int, more: Headers | None = None) -> None:
    """Answers with the badge, and with more headers."""
    body = b'{"count":%d}' % count
    headers = [_KIND, (b"content-length", b"%d" % len(body)), _UNKEPT, *(more or ())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
