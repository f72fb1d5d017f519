"""Metrics of one worker for Prometheus: its attempts and its actors, on a listener of their own.

The attempts are counted as their log lines are written, many at once; without TOCSIN_WORKER_METRICS_PORT nothing is.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hmac import compare_digest
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tocsin.engine.model import ActorReport
from tocsin.settings import SettingsError
from tocsin.settings.addresses import host_of, is_loopback

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LOOPBACK = "127.0.0.1"

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WorkerMetrics(Collector):
    """The attempts of a worker since its start, and its actors at their last report."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ("channel", "outcome", "reason")
        self._attempts = Counter(
            "tocsin_attempts", "Attempts at deliveries.", labels, registry=self.registry
        )
        self._seconds = Histogram(
            "tocsin_attempt_seconds",
            "Seconds from when the provider's actor got a message until its outcome.",
            ("channel",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._reports: Sequence[ActorReport] = ()
        self.registry.register(self)

    def count(self, attempts: Sequence[dict[str, Any]]) -> None:
        """Counts attempts by what their log lines have."""
        for each in attempts:
            channel = each["channel"].value
            self._attempts.labels(channel, each["outcome"], each["reason"] or "").inc()
            self._seconds.labels(channel).observe(each["ms"] / 1000)

    def show(self, reports: Sequence[ActorReport]) -> None:
        """Takes the reports of the actors, each of which is a row of the gauges."""
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        """Called by the registry of metrics."""
        for name, text, value in (
            ("waiting_messages", "Messages in the mailbox of an actor.", lambda it: it.waiting),
            ("sending_messages", "Messages that an actor is sending.", lambda it: it.in_flight),
            ("failing", "1 while the circuit breaker of an actor is not closed.",
             lambda it: int(it.breaker != "closed")),
        ):  # fmt: skip
            gauge = GaugeMetricFamily(f"tocsin_actor_{name}", text, labels=("actor",))
            for report in self._reports:
                gauge.add_metric((report.name,), value(report))
            yield gauge


@contextmanager
def metrics_listener(port: int, token: str | None, host: str) -> Iterator[WorkerMetrics]:
    """Serves the metrics meanwhile: without a token only to this machine, else at `host` to those who send the token.

    Raises SettingsError where the port can't be had.
    """
    metrics = WorkerMetrics()
    app = _guarded(make_wsgi_app(metrics.registry), token)
    try:
        server = make_server(_LOOPBACK if token is None else host, port, app, _Server, _Handler)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be had ({error.strerror})"
        raise SettingsError(
            f"TOCSIN_WORKER_METRICS_PORT {port} {why}: set it to a port of this process alone, or leave it out"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()


def _guarded(app: Wsgi, token: str | None) -> Wsgi:
    """Lets those in who send the token, or, without one, those who name this machine as their host."""

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].rstrip("/") != "/metrics":
            return refuse(start, "404 Not Found", "Metrics are at /metrics.")
        if token is None:
            if is_loopback(host_of(environ.get("HTTP_HOST", ""))):
                return app(environ, start)
            return refuse(start, "421 Misdirected Request", "This listener is for this machine.")
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and compare_digest(given.strip().encode(), token.encode()):
            return app(environ, start)
        cure = "Send TOCSIN_METRICS_TOKEN as Authorization: Bearer <token>."
        return refuse(
            start, "401 Unauthorized", cure, ("WWW-Authenticate", 'Bearer realm="tocsin"')
        )

    def refuse(
        start: Callable[..., Any], status: str, cure: str, *headers: tuple[str, str]
    ) -> list[bytes]:
        start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
        return [f"{cure}\n".encode()]

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a request

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
        pass
