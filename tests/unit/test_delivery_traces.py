"""Whether a worker exports traces: by the variables of OpenTelemetry, and only where the extra is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from tests.support.golden_mails import claimed
from tests.support.traces import receiver
from tocsin.engine.deliver.delivery_traces import start_traces
from tocsin.engine.model import (
    Deferred,
    DeliveryState,
    Outcome,
    Sent,
    Settlement,
    Unsent,
    Withheld,
)
from tocsin.engine.store.event import TracedEvent

SPAN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "mail"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
    ],
)
def test_it_is_off_by_default_and_where_it_is_turned_off(environ: dict[str, str]) -> None:
    with capture_logs() as lines:
        assert start_traces(environ) is None
    assert lines == []


@pytest.mark.parametrize("environ", [ENDPOINT, {"OTEL_TRACES_EXPORTER": "otlp"}])
def test_an_endpoint_or_the_exporters_name_turns_it_on(environ: dict[str, str]) -> None:
    traces = start_traces(environ)
    assert traces is not None
    traces.stop()


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        (Sent("queue-1"), ["dispatch email", "deliver email", "send email"]),
        (Deferred("smtp_451"), ["dispatch email", "deliver email", "send email"]),
        (Unsent("circuit_open", 7.0), []),
        (Withheld(DeliveryState.DEFERRED, "quiet_hours", 60.0), []),
    ],
)
def test_what_was_not_sent_is_no_attempt(
    outcome: Outcome, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        traces = start_traces()
        assert traces is not None
        event = TracedEvent(3, "forum.new_reply", SPAN, NOW, NOW, first_delivery_id=None)
        settlement = Settlement(outcome, begun_at=time.monotonic())
        traces.delivered(event, claimed(delivery_id=1), settlement, sent_at=time.monotonic())
        traces.stop()
    assert [span.name for _, span in collector.spans] == names


def test_another_protocol_is_named_with_the_cure() -> None:
    with capture_logs() as lines:
        assert start_traces(ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None
    assert lines[0]["event"] == "traces are not exported"
    assert "set it to http/protobuf" in lines[0]["cure"]


def test_a_missing_extra_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tocsin.engine.deliver.trace_exporter", None)
    with capture_logs() as lines:
        assert start_traces(ENDPOINT) is None
    assert lines[0]["cure"] == "install the extra: pip install 'tocsin[otel]'"


def test_a_worker_without_an_exporter_imports_nothing_of_opentelemetry() -> None:
    script = (
        "import sys, tocsin.engine.jobs, tocsin.client.calls\n"
        "from tocsin.engine.deliver.delivery_traces import start_traces\n"
        "assert start_traces({}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
