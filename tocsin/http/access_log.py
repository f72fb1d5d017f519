"""One line a request: method, route, status, milliseconds; never a path, a query or a header, which hold tokens.

A page of ours that calls each second is logged at DEBUG only. A route that is called thousands of times a second has
one line a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.http.metrics import Metrics
from tocsin.http.requests import PathReader

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger("tocsin.http")

QUIET = "quiet"
"""In a handler's `opt`: called again and again, so not logged while it succeeds."""


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

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, counted)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = str(scope.get("path_template", "-"))
        given = str(scope.get("method"))
        method = given if given in _METHODS else "-"
        self._metrics.series(method, route, status).observe(seconds)
        write = log.debug if status < 300 and _is_quiet(scope) else log.info
        write("request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))


class RequestSummary:
    """One log line a second for a route that is called so often that a line each would cost more than the response."""

    def __init__(self, metrics: Metrics, method: str, route: str, status: int) -> None:
        self._series = metrics.series(method, route, status)
        self._which = method, route, status
        self._requests = 0
        self._seconds = self._slowest = 0.0

    def count(self, seconds: float) -> None:
        """Counts one request that succeeded."""
        self._series.observe(seconds)
        if not self._requests:
            asyncio.get_running_loop().call_later(1.0, self.log)
        self._requests += 1
        self._seconds += seconds
        if seconds > self._slowest:
            self._slowest = seconds

    def log(self) -> None:
        """Logs the requests since the last line."""
        if not self._requests:
            return
        method, route, status = self._which
        log.info(
            "requests",
            method=method,
            route=route,
            status=status,
            requests=self._requests,
            ms=round(self._seconds / self._requests * 1000, 2),
            slowest_ms=round(self._slowest * 1000, 2),
        )
        self._requests = 0
        self._seconds = self._slowest = 0.0


def _is_quiet(scope: Scope) -> bool:
    handler = cast("dict[str, Any]", scope).get("route_handler")  # none where no route was found
    return handler is not None and bool(handler.opt.get(QUIET))
