"""Headers of every response, where it has none of its own by that name."""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]
_ALWAYS: Headers = [(b"x-content-type-options", b"nosniff")]
# A year. Not for subdomains, which are not Tocsin's to speak for.
_BY_HTTPS: Headers = [(b"strict-transport-security", b"max-age=31536000")]
# What is kept by a cache says so itself, as the modules of pages do.
_UNKEPT: Headers = [(b"cache-control", b"no-store")]


def security_headers(public_url: str | None) -> Headers:
    """Those of each response, also of one that is sent before the app is called."""
    return _ALWAYS + (_BY_HTTPS if urlsplit(public_url or "").scheme == "https" else [])


class SecurityHeaders:
    """Around the app."""

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        self._headers = security_headers(public_url) + _UNKEPT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower(), value) for name, value in message["headers"]]
                names = {name for name, _ in own}
                message["headers"] = own + [each for each in self._headers if each[0] not in names]
            await send(message)

        await self._app(scope, receive, completed)
