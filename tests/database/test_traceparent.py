"""The span of an app that is stored with its event: given by SQL, HTTP or Python; one that is not valid is ignored."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin import UnknownRecipient, notify, notify_email, notify_topic

TYPE = "forum.new_reply"
SPAN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-5bf92f3577b34da6a3ce929d0e0e4736-10f067aa0ba902b7-00"
BROKEN = [
    "",
    "1",
    SPAN[:-1],
    SPAN + "0",
    SPAN.upper(),
    SPAN + "-more",
    "ff" + SPAN[2:],
    SPAN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    SPAN.replace("00f067aa0ba902b7", "0" * 16),
    SPAN.replace("-", "_"),
    SPAN.replace("4", "g"),
    "0" * 10_000,
]

tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")


def stored(db: Db) -> list[str | None]:
    rows = db.execute("select traceparent from tocsin.event order by event_id").fetchall()
    return [row[0] for row in rows]


def by_sql(db: Db, recipients: str = "array['alice']") -> None:
    db.execute(f"select tocsin.notify('{TYPE}', {recipients}, 'x')".encode())


def set_span(db: Db, span: str, *, local: bool = True) -> None:
    db.execute("select set_config('tocsin.traceparent', %s, %s)", (span, local))


@pytest.mark.parametrize("recipients", ["array['alice']", "array['alice', 'bob']"])
def test_sql_stores_the_span_of_the_transaction_and_of_no_later_one(
    db: Db, people: None, recipients: str
) -> None:
    with db.transaction():
        set_span(db, SPAN)
        by_sql(db, recipients)
    by_sql(db, recipients)
    assert stored(db) == [SPAN, None]


@pytest.mark.parametrize("span", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_span_is_ignored_and_not_stored(
    db: Db, people: None, machine: httpx.AsyncClient, span: str
) -> None:
    with db.transaction():
        set_span(db, span)
        by_sql(db)
        by_sql(db, "array['alice', 'bob']")
    body = {"event_type": TYPE, "recipients": ["alice"], "title": "x"}
    response = await machine.post("/api/events/", json=body, headers={"traceparent": span})
    assert response.status_code == 202
    assert stored(db) == [None] * 3


@pytest.mark.parametrize("recipients", [1, 2_000], ids=["small", "in the subprocess"])
async def test_http_stores_the_span_of_its_header(
    db: Db, people: None, machine: httpx.AsyncClient, recipients: int
) -> None:
    people_of = [{"id": f"person-{number}"} for number in range(recipients)]
    body = {"event_type": TYPE, "recipients": people_of, "title": "x"}
    for headers in ({"traceparent": SPAN}, {}):
        response = await machine.post("/api/events/", json=body, headers=headers)
        assert response.status_code == 202
    assert stored(db) == [SPAN, None]


def test_a_repeated_call_with_an_idempotency_key_is_the_same_in_another_trace(
    db: Db, people: None
) -> None:
    for span in (SPAN, OTHER):
        with db.transaction():
            set_span(db, span)
            db.execute(
                "select tocsin.notify(%s, array['alice'], 'x', idempotency_key => 'k')", (TYPE,)
            )
    assert stored(db) == [SPAN]


def test_python_stores_the_current_span_and_leaves_the_setting_as_it_was(
    db: Db, people: None
) -> None:
    found = []
    with db.transaction():
        set_span(db, OTHER)
        with tracer.start_as_current_span("checkout") as span:
            context = span.get_span_context()
            found.append(
                f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
            )
            notify(db, recipient="alice", event_type=TYPE, title="x")
            notify(db, recipient=["alice", "bob"], event_type=TYPE, title="x", subject="a")
            notify_email(db, email="zoe@example.com", event_type=TYPE, title="x")
            notify_topic(db, topic="forum.thread:1", event_type=TYPE, title="x")
        notify(db, recipient="alice", event_type=TYPE, title="x")
    notify(db, recipient="alice", event_type=TYPE, title="x")
    assert stored(db) == [*found * 4, OTHER, None]


def test_an_error_of_a_traced_call_is_the_usual_one(db: Db, people: None) -> None:
    with tracer.start_as_current_span("checkout"), pytest.raises(UnknownRecipient):
        notify(db, recipient="nobody", event_type=TYPE, title="x")
