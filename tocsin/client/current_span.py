"""The span of an app that uses OpenTelemetry, without a dependency on it (docs/traces.md)."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """Returns the current span by W3C Trace Context; None if there is none, or OpenTelemetry is not imported."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
