"""What operators see of this process: a log line and a count of each request, /metrics, and probes.

A log line has method, route, status and milliseconds; never a path, a query or a header, which hold tokens. A page of
ours that calls each second is logged at DEBUG only. A route that is called thousands of times a second has one line a
second.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from hmac import compare_digest
from itertools import accumulate
from typing import Any

import structlog
from litestar import Response
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tocsin.engine.model import NotFound, Unavailable
from tocsin.engine.store.health import Unsettled, unsettled
from tocsin.engine.store.installation import Process, processes
from tocsin.http.auth import ACCESS, RATE, router
from tocsin.http.errors import PROBLEM, AnyRequest, NotServing, ProblemDetails, Unauthorized
from tocsin.http.openapi import FAILURES, OtherResponse, get, noted
from tocsin.http.protocol import Connections
from tocsin.http.requests import PathReader, Services

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestSeries:
    """Requests of one method, route and status; the library's own, with their locks, cost four times as much."""

    def __init__(self, times: _Times) -> None:
        self.count = 0
        self._times = times

    def observe(self, seconds: float) -> None:
        """Counts one request."""
        self.count += 1
        self._times.observe(seconds)


class _Times:
    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(_SECONDS) + 1)  # the last one: longer than all

    def observe(self, seconds: float) -> None:
        self.sum += seconds
        self._counts[bisect_left(_SECONDS, seconds)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class Metrics(Collector):
    """Requests by route and status, connections, streams, waiting deliveries; and what else the process registered."""

    def __init__(self) -> None:
        self.connections = Connections()
        self.mail_events: Counter[tuple[str, str]] = Counter()  # new reports by source and kind
        self.replica_reads: Counter[str] | None = (
            None  # by what served them; None without a standby
        )
        self._series: dict[tuple[str, str, int], RequestSeries] = {}
        self._times: dict[str, _Times] = {}
        self._open_streams = 0
        self._unsettled: Sequence[Unsettled] = ()
        self._processes: Sequence[Process] = ()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def series(self, method: str, route: str, status: int) -> RequestSeries:
        """Returns where such requests are counted; `route` is the template, so that the number of series is bounded."""
        key = method, route, status
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = RequestSeries(self._times.setdefault(route, _Times()))
        return found

    def render(
        self, *, open_streams: int, unsettled: Sequence[Unsettled], processes: Sequence[Process]
    ) -> tuple[bytes, str]:
        """Returns Prometheus' text and its media type."""
        self._open_streams, self._unsettled, self._processes = open_streams, unsettled, processes
        # Litestar adds the charset
        kind = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
        return generate_latest(self._registry) + generate_latest(REGISTRY), kind

    def collect(self) -> Iterator[Metric]:
        """Called by the registry of metrics."""
        requests = CounterMetricFamily(
            "tocsin_http_requests", "Requests.", labels=("method", "route", "status")
        )
        for (method, route, status), series in self._series.items():
            requests.add_metric((method, route, str(status)), series.count)
        times = HistogramMetricFamily(
            "tocsin_http_request_seconds", "Seconds until the response began.", labels=("route",)
        )
        for route, each in self._times.items():
            times.add_metric((route,), each.buckets(), each.sum)
        ended = CounterMetricFamily(
            "tocsin_http_connections_ended",
            "Connections that were ended before their client did: refused, or late.",
            labels=("reason",),
        )
        for reason, count in self.connections.ended.items():
            ended.add_metric((reason,), count)
        reports = CounterMetricFamily(
            "tocsin_mail_events",
            "New reports on mails that came back.",
            labels=("source", "kind"),
        )
        for (source, kind), count in self.mail_events.items():
            reports.add_metric((source, kind), count)
        deliveries = GaugeMetricFamily(
            "tocsin_deliveries",
            "Deliveries that are not at their end, in the whole installation.",
            labels=("channel", "state"),
        )
        late = GaugeMetricFamily(
            "tocsin_delivery_late_seconds",
            "By how much the latest due delivery is late, in the whole installation.",
            labels=("channel",),
        )
        most_late: dict[str, float] = {}
        for row in self._unsettled:
            deliveries.add_metric((row.channel, row.state), row.n)
            most_late[row.channel] = max(row.late, most_late.get(row.channel, 0.0))
        for channel, seconds in most_late.items():
            late.add_metric((channel,), seconds)
        for name, text, value in (
            ("tocsin_http_open_connections", "Open connections.", self.connections.open),
            ("tocsin_http_open_streams", "Open streams.", self._open_streams),
        ):
            yield GaugeMetricFamily(name, text, value)
        yield from self._replica_reads()
        yield from (requests, times, ended, reports, deliveries, late, self._failing_providers())

    def _replica_reads(self) -> Iterator[Metric]:
        if self.replica_reads is None:
            return
        reads = CounterMetricFamily(
            "tocsin_replica_reads",
            "Reads that the standby served, or the primary, since the standby was behind or unavailable, or failed.",
            labels=("outcome",),
        )
        for outcome in ("standby", "behind", "unavailable", "failed"):
            reads.add_metric((outcome,), self.replica_reads[outcome])
        yield reads

    def _failing_providers(self) -> GaugeMetricFamily:
        failing = GaugeMetricFamily(
            "tocsin_provider_failing",
            "Workers whose circuit breaker of the provider is not closed, in the whole installation.",
            labels=("provider",),
        )
        breakers: defaultdict[str, list[bool]] = defaultdict(list)
        for process in self._processes:
            for actor in () if process.silent else process.report.actors:
                breakers[actor.name].append(actor.breaker != "closed")
        for name, open_ones in breakers.items():
            failing.add_metric((name,), sum(open_ones))
        return failing


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
        handler: Any = scope.get("route_handler")  # none where no route was found
        quiet = status < 300 and handler is not None and handler.opt.get(QUIET)
        write = log.debug if quiet else log.info
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


class Status(Struct, frozen=True):
    """The state of the service."""

    status: str = "ok"


@get("/healthz/", opt={RATE: None})
async def healthz() -> Status:
    """Is the process alive?"""
    return Status()


@get(
    "/readyz/",
    responses={503: OtherResponse(FAILURES[503], ProblemDetails, media_type=PROBLEM)},
    opt={RATE: None, **noted(fails=(503,))},
)
async def readyz(services: NamedDependency[Services]) -> Status:
    """Can it serve?

    Whether the database responds and has the schema, and some process leads.
    """
    if reason := await services.readiness.why_not():
        raise NotServing(reason)
    return Status()


@get(
    "/metrics/",
    media_type="text/plain",
    opt={ACCESS: "metrics", RATE: None, **noted(fails=(401, 404))},
)
async def metrics(
    request: AnyRequest, services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """Metrics of this process.

    In Prometheus' text format. The call needs TOCSIN_METRICS_TOKEN as its bearer token; where that is not set, the
    response is a 404. TOCSIN_METRICS_PORT serves them on a listener of its own.
    """
    token = services.settings.metrics_token
    if token is None:
        raise NotFound(
            "Metrics are not served here: set TOCSIN_METRICS_TOKEN, or TOCSIN_METRICS_PORT for a listener of their own."
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not given.strip():
        raise Unauthorized("Send TOCSIN_METRICS_TOKEN as Authorization: Bearer <token>.")
    if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), token.encode()):
        raise Unauthorized("That is not TOCSIN_METRICS_TOKEN.", error="invalid_token")
    return await _rendered(services, metrics)


@get("/metrics/", include_in_schema=False, media_type="text/plain")
async def metrics_without_token(
    services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """This process's metrics, on a listener that only this machine reaches."""
    return await _rendered(services, metrics)


async def _rendered(services: Services, metrics: Metrics) -> Response[bytes]:
    try:
        ledger, reports = await unsettled(services.database), await processes(services.database)
    except Unavailable:
        ledger, reports = [], []  # their absence is a signal too, and the rest is worth having
    text, kind = metrics.render(
        open_streams=services.hub.open_streams, unsettled=ledger, processes=reports
    )
    return Response(text, media_type=kind, headers={"Cache-Control": "no-store"})


ROUTERS = (router("Operation", "everyone", healthz, readyz, metrics),)
