"""What this process counts of its requests."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from tocsin.engine.store.health import Standing

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by route and status, and the open streams; beside what else the process registered."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = CollectorRegistry()
        self._beside = REGISTRY if registry is None else registry
        self._requests = Counter(
            "tocsin_http_requests",
            "Requests.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tocsin_http_request_seconds",
            "Seconds until the answer began.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        # labels() costs as much as the rest of the request's log line
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._streams = Gauge("tocsin_http_open_streams", "Open streams.", registry=self._registry)
        self._deliveries = Gauge(
            "tocsin_deliveries",
            "Deliveries that are not at their end, in the whole installation.",
            ("channel", "state"),
            registry=self._registry,
        )
        self._late = Gauge(
            "tocsin_delivery_late_seconds",
            "By how much the latest due delivery is late, in the whole installation.",
            ("channel",),
            registry=self._registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; `route` is the template, so that the number of series is bounded."""
        key = method, route, status
        series = self._series.get(key)
        if series is None:
            series = self._requests.labels(method, route, str(status)), self._seconds.labels(route)
            self._series[key] = series
        series[0].inc()
        series[1].observe(seconds)

    def render(self, *, open_streams: int, standing: Sequence[Standing]) -> tuple[bytes, str]:
        """Prometheus' text and its media type."""
        self._streams.set(open_streams)
        self._deliveries.clear()
        self._late.clear()
        for each in standing:
            self._deliveries.labels(each.channel, each.state).set(each.n)
            late = max(each.late, *(s.late for s in standing if s.channel == each.channel))
            self._late.labels(each.channel).set(late)
        # the charset is Litestar's to say
        kind = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
        return generate_latest(self._registry) + generate_latest(self._beside), kind
