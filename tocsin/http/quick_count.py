"""The badge before Litestar: a GET of the unread count whose token was verified a moment ago.

It responds where there is no doubt. Everything else is passed on to the app: another path, method or credential, a new
or expired token, a page of another origin, and a failure here. So there is one place that refuses, not two.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from litestar.types import ASGIApp, Receive, Scope, Send

from tocsin.engine.badge.hub import BadgeHub
from tocsin.http.access_log import RequestSummary
from tocsin.http.middleware import Headers, security_headers
from tocsin.http.tokens import TokenVerifier

PATH = "/api/notifications/unread-count/"
FAILED = "unread_count_failed"
"""In a scope's state: why QuickCount failed, so that the count is tried once and the failure reported as any other."""

_KIND = (b"content-type", b"application/json")
_UNKEPT = (b"cache-control", b"no-store")
_BEARER = b"Bearer "


async def send_count(send: Send, count: int, more: Headers | None = None) -> None:
    """Sends the badge, with these headers too."""
    body = b'{"count":%d}' % count
    headers = [_KIND, (b"content-length", b"%d" % len(body)), _UNKEPT, *(more or ())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class QuickCount:
    """Around the app."""

    def __init__(
        self,
        app: ASGIApp,
        hub: BadgeHub,
        tokens: TokenVerifier,
        summary: RequestSummary,
        *,
        public_url: str | None,
    ) -> None:
        self._app = app
        self._hub = hub
        self._tokens = tokens
        self._summary = summary
        self._headers = security_headers(public_url)
        prefix = urlsplit(public_url or "").path.rstrip("/")
        self._paths = {
            (start + path).encode() for start in ("", prefix) for path in (PATH, PATH.rstrip("/"))
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("raw_path") in self._paths and scope.get("method") == "GET":
            recipient_id = self._caller(scope)
            if recipient_id is not None:
                started = time.perf_counter()
                try:
                    count = await self._hub.count(recipient_id)
                except Exception as error:  # noqa: BLE001 - the app reports it
                    scope.setdefault("state", {})[FAILED] = error
                else:
                    await send_count(send, count, self._headers)
                    self._summary.count(time.perf_counter() - started)
                    return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> str | None:
        credentials = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if credentials is not None:
                    return None
                credentials = value
            elif name == b"origin":
                return None
        if credentials is None or not credentials.startswith(_BEARER):
            return None
        token = self._tokens.remembered(credentials[len(_BEARER) :].decode("latin-1"))
        return None if token is None else token.recipient_id
