"""OPTIONS: every path names all its methods in `Allow`, to anybody.

Litestar would make a handler of its own for it, behind the path's guards, which knows the methods of one handler only.
Its router names all of them where a method is none of the path's, so that is what it is asked.
"""

from __future__ import annotations

from typing import Any, cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_NO_METHOD = "TRACE"  # of any path


class Options:
    """Around the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope.get("method") != "OPTIONS":
            await self._app(scope, receive, send)
            return
        found = False

        async def named(message: Message) -> None:
            nonlocal found
            if message["type"] == "http.response.start" and message["status"] == 405:
                found = True
                await send(_allowed(cast("dict[str, Any]", message)["headers"]))
            elif message["type"] == "http.response.body" and found:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(cast("Scope", {**scope, "method": _NO_METHOD}), receive, named)


def _allowed(headers: list[tuple[bytes, bytes]]) -> Message:
    methods = {
        method.strip()
        for name, value in headers
        if name.lower() == b"allow"
        for method in value.split(b",")
    }
    allow = b", ".join(sorted(methods | {b"OPTIONS"}))
    kept = [(b"allow", allow), (b"cache-control", b"no-store")]
    return {"type": "http.response.start", "status": 204, "headers": kept}
