"""What this process counts of its requests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Gauge,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tocsin.engine.store.health import Standing
from tocsin.http.protocol import Connections

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


class _Requests(Collector):
    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], RequestSeries] = {}
        self._times: dict[str, _Times] = {}

    def series(self, method: str, route: str, status: int) -> RequestSeries:
        key = method, route, status
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = RequestSeries(self._times.setdefault(route, _Times()))
        return found

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tocsin_http_requests", "Requests.", labels=("method", "route", "status")
        )
        for (method, route, status), series in self._series.items():
            requests.add_metric((method, route, str(status)), series.count)
        yield requests
        times = HistogramMetricFamily(
            "tocsin_http_request_seconds", "Seconds until the response began.", labels=("route",)
        )
        for route, each in self._times.items():
            times.add_metric((route,), each.buckets(), each.sum)
        yield times


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


class _Connections(Collector):
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "tocsin_http_open_connections", "Open connections.", self._connections.open
        )
        ended = CounterMetricFamily(
            "tocsin_http_connections_ended",
            "Connections that were ended before their client did: refused, or late.",
            labels=("reason",),
        )
        for reason, count in self._connections.ended.items():
            ended.add_metric((reason,), count)
        yield ended


class Metrics:
    """Requests by route and status, and the open streams; and what else the process registered."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = CollectorRegistry()
        self._others = REGISTRY if registry is None else registry
        self._requests = _Requests()
        self._registry.register(self._requests)
        self.connections = Connections()
        self._registry.register(_Connections(self.connections))
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

    def series(self, method: str, route: str, status: int) -> RequestSeries:
        """Where such requests are counted; `route` is the template, so that the number of series is bounded."""
        return self._requests.series(method, route, status)

    def render(self, *, open_streams: int, standing: Sequence[Standing]) -> tuple[bytes, str]:
        """Prometheus' text and its media type."""
        self._streams.set(open_streams)
        self._deliveries.clear()
        self._late.clear()
        for each in standing:
            self._deliveries.labels(each.channel, each.state).set(each.n)
            late = max(each.late, *(s.late for s in standing if s.channel == each.channel))
            self._late.labels(each.channel).set(late)
        # Litestar adds the charset
        kind = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
        return generate_latest(self._registry) + generate_latest(self._others), kind
