"""Pages of the origins in TOCSIN_ALLOWED_ORIGINS may make people's calls (WHATWG Fetch, section 3.3).

By `Authorization` only: no answer allows credentials, so a browser neither sends Tocsin's cookie from there nor lets an
answer to it be read. Answers are never stored by caches, so they need no `Vary` where no origin asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, Last-Event-ID"),
    (b"access-control-max-age", b"7200"),  # seconds; Chromium keeps it no longer
    (b"content-length", b"0"),
]
_EXPOSED = (b"access-control-expose-headers", b"Tocsin-Undo, Retry-After, Idempotent-Replayed")
_VARY = (b"vary", b"Origin")


class CrossOrigin:
    """Around the app, where origins are allowed at all."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], paths: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._paths = frozenset(_resource(path) for path in paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = self._allowed(scope) if scope["type"] == ScopeType.HTTP else None
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]
        if scope.get("method") == "OPTIONS":
            headers = [*allowed, *_PREFLIGHT]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return

        async def allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await self._app(scope, receive, allowing)

    def _allowed(self, scope: Scope) -> bytes | None:
        for name, value in scope["headers"]:
            if name == b"origin":
                known = value in self._origins and _resource(scope["path"]) in self._paths
                return value if known else None
        return None


def _resource(path: str) -> str:
    """Such as `api/notifications`: a call belongs to people, or to apps, with all of its resource."""
    return "/".join(path.split("/", 3)[1:3])
