"""Refuses calls to any name but this machine's own.

A page elsewhere can have its own name resolved to 127.0.0.1 (DNS rebinding); a browser then lets it read all that a
service on this machine returns. The Host header still has the page's name.
"""

from __future__ import annotations

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from tocsin.http.errors import PROBLEM, Problem
from tocsin.settings.addresses import host_of, is_loopback

_BODY = msgspec.json.encode(
    Problem(
        "Misdirected Request",
        421,
        "This service is for its own machine: call it as localhost, 127.0.0.1 or [::1].",
    )
)
_HEADERS = [
    (b"content-type", PROBLEM.encode()),
    (b"content-length", str(len(_BODY)).encode()),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


class LoopbackHosts:
    """Around a whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or _is_ours(scope):  # there are no WebSockets
            await self._app(scope, receive, send)
            return
        body = b"" if scope.get("method") == "HEAD" else _BODY
        await send({"type": "http.response.start", "status": 421, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_ours(scope: Scope) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and is_loopback(host_of(hosts[0].decode("latin-1")))
