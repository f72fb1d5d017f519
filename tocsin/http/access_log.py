"""One line a request: method, route, status, milliseconds; never a path, a query or a header, which hold tokens.

A page of ours that asks each second is told of at DEBUG only.
"""

from __future__ import annotations

import time
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.http.metrics import Metrics
from tocsin.http.paths import PathReader

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger("tocsin.http")

QUIET = "quiet"
"""In a handler's `opt`: asked again and again, so worth no line while it goes well."""


class AccessLog:
    """Around the whole app, so that what is not found is counted too."""

    def __init__(self, app: ASGIApp, metrics: Metrics, path: PathReader) -> None:
        self._app = app
        self._metrics = metrics
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["path"] = self._path(scope)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, noted)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = str(scope.get("path_template", "-"))
        asked = str(scope.get("method"))
        method = asked if asked in _METHODS else "-"
        self._metrics.observe(method, route, status, seconds)
        say = log.debug if status < 300 and _is_quiet(scope) else log.info
        say("request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))


def _is_quiet(scope: Scope) -> bool:
    handler = cast("dict[str, Any]", scope).get("route_handler")  # none where no route was found
    return handler is not None and bool(handler.opt.get(QUIET))
