"""Which deliveries are part of a trace; nothing is imported or read unless an exporter is configured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from msgspec import structs

from tocsin.engine.deliver.claiming import DatabaseRetry
from tocsin.engine.model import Claimed, Message, Settlement
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import TracedEvent, traced_events

if TYPE_CHECKING:
    from tocsin.engine.deliver.trace_exporter import Traces

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OURS = "http/protobuf"

log = structlog.get_logger("tocsin.traces")


def start_traces(environ: Mapping[str, str] = os.environ) -> Traces | None:
    """Returns the exporter that the variables OTEL_… configure; None if there is none, or it is not possible."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    wanted = exporter == "otlp" or (not exporter and any(map(environ.get, _ENDPOINTS)))
    if not wanted or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    protocol = next(filter(None, map(environ.get, _PROTOCOLS)), _OURS)
    if protocol != _OURS:
        cure = f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: set it to {_OURS}"
        log.warning("traces are not exported", cure=cure)
        return None
    try:
        from tocsin.engine.deliver.trace_exporter import Traces
    except ImportError:
        log.warning("traces are not exported", cure="install the extra: pip install 'tocsin[otel]'")
        return None
    return Traces()


class DeliveryTraces:
    """Finds the traces of what one worker claims, and records its attempts in them."""

    def __init__(self, traces: Traces, database: Database, retry: DatabaseRetry) -> None:
        self._traces = traces
        self._database = database
        self._retry = retry

    async def find(self, claimed: Iterable[Claimed]) -> dict[int, TracedEvent]:
        """Returns the events of these that are part of a trace, by their ids."""
        event_ids = {one.event_id for one in claimed if one.event_id is not None}
        if not event_ids:
            return {}
        query = await self._retry.run(lambda: traced_events(self._database, sorted(event_ids)))
        return query or {}

    def mark(
        self, message: Message, claimed: Claimed, traced: Mapping[int, TracedEvent]
    ) -> Message:
        """Returns the message with the span of its request, which a webhook is sent with."""
        event = traced.get(claimed.event_id or 0)
        if event is None:
            return message
        return structs.replace(
            message, traceparent=self._traces.request_traceparent(event, claimed)
        )

    def record(
        self,
        together: Sequence[Claimed],
        traced: Mapping[int, TracedEvent],
        settlement: Settlement,
        *,
        sent_at: float,
    ) -> None:
        """Records the attempt at deliveries that went as one message, in the trace of each."""
        for claimed in together:
            if event := traced.get(claimed.event_id or 0):
                self._traces.delivered(event, claimed, settlement, sent_at=sent_at)
