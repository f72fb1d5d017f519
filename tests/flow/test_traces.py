"""Traces: from the span of an app to the request to the provider, exported to a receiver of OTLP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import SpanContext, Tracer
from psycopg.types.json import Jsonb

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.services import Service, mail_catcher, running, until
from tests.support.traces import Receiver, receiver
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin import notify
from tocsin.testing.far_end import Reply

TYPE = "forum.new_reply"
STEPS = [
    ("checkout", Span.SPAN_KIND_INTERNAL),
    (f"notify {TYPE}", Span.SPAN_KIND_PRODUCER),
    ("dispatch email", Span.SPAN_KIND_PRODUCER),
    ("deliver email", Span.SPAN_KIND_CONSUMER),
    ("send email", Span.SPAN_KIND_CLIENT),
]


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def tracer(collector: Receiver) -> Tracer:
    return collector.tracer_of_app()


@pytest_asyncio.fixture
async def worker(
    collector: Receiver,
    db: Db,
    dsn: str,
    tmp_path: Path,
    people: None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with mail_catcher(tmp_path / "mails") as mails:
        settings = {
            "database_url": dsn,
            "public_url": "http://127.0.0.1:1",
            "smtp_url": f"smtp://127.0.0.1:{mails.port}",
            "allow_private_endpoints": "1",
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            await until(lambda: available(db))
            yield worker


def available(db: Db) -> bool:
    row = db.execute("select available from tocsin.channel where channel = 'email'").fetchone()
    return row == (True,)


def traceparent(span: SpanContext, *, flags: str = "01") -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags}"


def notify_by_sql(db: Db, span: str) -> None:
    with db.transaction():
        db.execute("select set_config('tocsin.traceparent', %s, true)", (span,))
        db.execute("select tocsin.notify(%s, array['alice'], 'New reply')", (TYPE,))


@pytest.mark.parametrize("how", ["sql", "http", "python", "python async"])
async def test_a_trace_leads_from_the_app_to_the_provider(
    how: str,
    db: Db,
    dsn: str,
    machine: httpx.AsyncClient,
    worker: Service,
    collector: Receiver,
    tracer: Tracer,
) -> None:
    with tracer.start_as_current_span("checkout") as span:
        app = span.get_span_context()
        if how == "sql":
            notify_by_sql(db, traceparent(app))
        elif how == "http":
            body = {"event_type": TYPE, "recipients": ["alice"], "title": "New reply"}
            headers = {"traceparent": traceparent(app)}
            response = await machine.post("/api/events/", json=body, headers=headers)
            assert response.status_code == 202
        elif how == "python":
            notify(db, recipient="alice", event_type=TYPE, title="New reply")
        else:
            async with await psycopg.AsyncConnection.connect(dsn) as connection:
                await notify(connection, recipient="alice", event_type=TYPE, title="New reply")
    await until(lambda: len(collector.of_trace(app.trace_id)) == len(STEPS))

    spans = collector.of_trace(app.trace_id)
    parent = b""
    for name, kind in STEPS:
        found = spans[name]
        assert (found.parent_span_id, found.kind) == (parent, kind), name
        assert found.start_time_unix_nano <= found.end_time_unix_nano
        assert found.status.code == Status.STATUS_CODE_UNSET
        parent = found.span_id
    services = {span.name: service for service, span in collector.spans}
    assert services["checkout"] == "shop"
    assert services["send email"] == "tocsin"
    attributes = {each.key: each.value.string_value for each in spans["deliver email"].attributes}
    assert attributes["messaging.operation.name"] == "deliver"
    assert attributes["tocsin.outcome"] == "sent"
    assert "alice" not in str(collector.spans)


async def test_what_the_app_did_not_sample_is_not_exported(
    db: Db, worker: Service, collector: Receiver, tracer: Tracer
) -> None:
    unsampled, sampled = (tracer.start_span(name).get_span_context() for name in ("a", "b"))
    notify_by_sql(db, traceparent(unsampled, flags="00"))
    await until(lambda: delivered(db) == 1)
    notify_by_sql(db, traceparent(sampled))
    await until(lambda: "send email" in collector.of_trace(sampled.trace_id))
    assert collector.of_trace(unsampled.trace_id) == {}


async def test_a_webhook_is_sent_with_the_span_of_its_request_at_each_attempt(
    db: Db, worker: Service, collector: Receiver, tracer: Tracer
) -> None:
    app = tracer.start_span("checkout").get_span_context()
    async with Endpoint(SECRET) as endpoint:
        endpoint.script.then("/hook", [Reply(503)])
        db.execute(
            "insert into tocsin.target (channel, name, url, events, secrets) "
            "values ('webhook', 'app', %s, array['notification.created'], %s)",
            (endpoint.url, Jsonb([{"secret": SECRET}])),
        )
        notify_by_sql(db, traceparent(app))
        await until(lambda: len(named(collector, "send webhook")) == 1)
        db.execute("update tocsin.delivery set due_at = now() where channel = 'webhook'")
        await until(lambda: len(named(collector, "send webhook")) == 2)
    requests, attempts = named(collector, "send webhook"), named(collector, "deliver webhook")
    codes = [span.status.code for span in requests]
    assert codes == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    sent = [headers["traceparent"] for headers, _ in endpoint.received]
    assert sent == [f"00-{app.trace_id:032x}-{span.span_id.hex()}-01" for span in requests]
    (dispatch,) = named(collector, "dispatch webhook")
    assert [span.parent_span_id for span in attempts] == [dispatch.span_id] * 2


def named(collector: Receiver, name: str) -> list[Span]:
    return [span for _, span in collector.spans if span.name == name]


def delivered(db: Db) -> int:
    row = db.execute("select count(*) from tocsin.delivery where state = 'sent'").fetchone()
    assert row is not None
    return int(row[0])
