"""The badge: the call that clients make most, as a raw ASGI route for its speed."""

from __future__ import annotations

from litestar import asgi
from litestar.exceptions import MethodNotAllowedException
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from tocsin.http.notifications import PATH, TAG
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.services import Services


class Count(Struct, frozen=True):
    """The badge."""

    count: int


@asgi(
    PATH + "unread-count/",
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
    if scope.get("method") != "GET":
        raise MethodNotAllowedException(headers={"Allow": "GET"})
    services: Services = scope["litestar_app"].state.services
    body = b'{"count":%d}' % await services.hub.count(scope["auth"].recipient_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
