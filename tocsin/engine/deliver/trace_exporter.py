"""Traces by OpenTelemetry: the deliveries of an event continue the trace of the app that reported it (docs/traces.md).

Imported only where an exporter is configured. The id of each span is computed from what it is of, so that each process
knows it without storing it: a retry in another worker has the same parent, and a webhook is sent with its request's id.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from hashlib import blake2b
from importlib.metadata import version
from typing import NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from tocsin.engine.model import Claimed, Deferred, Rejected, Sent, Settlement, Unknown
from tocsin.engine.store.event import TracedEvent

Attributes = dict[str, str | int]

_FLUSHED_WITHIN = 2.0  # seconds, at the end of a worker
_FAILED = (Deferred, Rejected, Unknown)


class Traces:
    """Exports the spans of deliveries, by the variables OTEL_… of the environment."""

    def __init__(self) -> None:
        self._ids = _SpanIds()
        # a worker flushes them itself, within the time that it has for its end
        self._provider = TracerProvider(
            resource=_resource(), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tocsin", version("tocsin"))

    def stop(self) -> None:
        """Exports what waits, for two seconds at most."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSHED_WITHIN)

    def request_traceparent(self, event: TracedEvent, claimed: Claimed) -> str:
        """Returns the span of the request to the provider of this attempt, by W3C Trace Context."""
        span = _request(_read(event.traceparent), claimed)
        return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"

    def delivered(
        self, event: TracedEvent, claimed: Claimed, settlement: Settlement, *, sent_at: float
    ) -> None:
        """Records an attempt, which its actor got at `sent_at` (monotonic), and what came before the first one."""
        if not isinstance(settlement.outcome, (Sent, *_FAILED)):
            return  # withheld, or given back: it may be claimed again with the same number
        began, ended = _clock(sent_at), _clock(time.monotonic())
        app, channel = _read(event.traceparent), claimed.channel.value
        dispatch = _child(app, "dispatch", claimed.delivery_id)
        if claimed.attempt == 1:
            self._dispatched(event, claimed, dispatch, began)
        deliver = _child(app, "deliver", claimed.delivery_id, claimed.attempt)
        outcome, reason = settlement.outcome, getattr(settlement.outcome, "reason", None)
        error = reason if isinstance(outcome, _FAILED) else None
        result: Attributes = {
            "tocsin.attempt": claimed.attempt,
            "tocsin.outcome": type(outcome).__name__.lower(),
        }
        if reason is not None:
            result["tocsin.reason"] = reason
        attributes = _messaging("deliver", "process", event, claimed) | result
        span = _Span(f"deliver {channel}", SpanKind.CONSUMER, dispatch, deliver, began, ended)
        self._record(span, attributes, error)
        if settlement.begun_at is not None:
            provider = settlement.provider or channel
            sent, request = min(ended, _clock(settlement.begun_at)), _request(app, claimed)
            span = _Span(f"send {channel}", SpanKind.CLIENT, deliver, request, sent, ended)
            self._record(span, {**result, "peer.service": provider}, error)

    def _dispatched(
        self, event: TracedEvent, claimed: Claimed, dispatch: SpanContext, ended: int
    ) -> None:
        """Records how long a delivery waited for a worker; and of an event's first delivery, the call of notify()."""
        app, channel = _read(event.traceparent), claimed.channel.value
        notify = _child(app, "notify", event.event_id)
        if claimed.delivery_id == event.first_delivery_id:
            name, at = f"notify {event.event_type}", _nanoseconds(event.created_at)
            attributes = _messaging("notify", "create", event)
            self._record(_Span(name, SpanKind.PRODUCER, app, notify, at, at), attributes)
        began = min(ended, _nanoseconds(event.fanned_out_at))
        span = _Span(f"dispatch {channel}", SpanKind.PRODUCER, notify, dispatch, began, ended)
        self._record(span, _messaging("dispatch", "send", event, claimed))

    def _record(self, span: _Span, attributes: Attributes, error: str | None = None) -> None:
        self._ids.following = span.context.span_id
        parent = set_span_in_context(NonRecordingSpan(span.parent))
        recorded = self._tracer.start_span(
            span.name, parent, span.kind, attributes, start_time=span.began
        )
        if error is not None:
            recorded.set_attribute("error.type", error)
            recorded.set_status(Status(StatusCode.ERROR))
        recorded.end(span.ended)


class _Span(NamedTuple):
    """What a span is, with its times in nanoseconds since 1970."""

    name: str
    kind: SpanKind
    parent: SpanContext
    context: SpanContext
    began: int
    ended: int


class _SpanIds(RandomIdGenerator):
    """Gives the next span the id `following`."""

    following: int = 0

    def generate_span_id(self) -> int:
        return self.following


def _resource() -> Resource:
    """Returns what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES describe; the service's name is tocsin by default."""
    found = Resource.create({"service.version": version("tocsin")})
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "tocsin"}))
    return found


def _messaging(
    name: str, kind: str, event: TracedEvent, claimed: Claimed | None = None
) -> Attributes:
    """Returns the attributes of an operation, by the conventions for messaging."""
    attributes: Attributes = {
        "messaging.system": "tocsin",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": claimed.channel.value if claimed else event.event_type,
        "tocsin.event_id": event.event_id,
        "tocsin.event_type": event.event_type,
    }
    if claimed:
        attributes["messaging.message.id"] = str(claimed.delivery_id)
    return attributes


def _read(traceparent: str) -> SpanContext:
    """Returns the app's span; what is stored is valid."""
    _, trace_id, span_id, flags = traceparent.split("-")
    sampled = TraceFlags(int(flags, 16) & TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)


def _child(app: SpanContext, *parts: str | int) -> SpanContext:
    """Returns a span of the same trace, whose id is computed from what it is of."""
    digest = blake2b(repr((app.trace_id, app.span_id, parts)).encode(), digest_size=8).digest()
    span_id = int.from_bytes(digest) or 1
    return SpanContext(app.trace_id, span_id, is_remote=True, trace_flags=app.trace_flags)


def _request(app: SpanContext, claimed: Claimed) -> SpanContext:
    return _child(app, "request", claimed.delivery_id, claimed.attempt)


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000


def _clock(monotonic: float) -> int:
    """Returns a time of the monotonic clock in nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)
