"""Plans of the statements on suppressed addresses and on mail that comes back: no table is read as a whole."""

from __future__ import annotations

import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.pages_read import pages_read
from tocsin.sql import load

SUPPRESSIONS = load("mail_event")
STOCK = """
insert into tocsin.recipient (recipient_id, email)
select 'p' || i, 'p' || i || '@example.com'
from generate_series(1, 500) i;
insert into tocsin.event (event_id, event_type, title, body, metadata, caller, created_at, fanned_out_at)
select i, 'forum.new_reply', 'x', '', '{}', 'role:app', now(), now()
from generate_series(1, 10) i;
insert into tocsin.notification (notification_id, event_id, recipient_id, event_type, created_at, in_inbox, decisions)
overriding system value
select row_number() over (), e.event_id, r.recipient_id, 'forum.new_reply', now(), true, '{}'
from tocsin.event e
cross join tocsin.recipient r;
insert into tocsin.delivery (
    notification_id, event_id, recipient_id, channel, state, address, provider_id, created_at, settled_at
)
select n.notification_id, n.event_id, n.recipient_id, 'email', 'sent', n.recipient_id || '@example.com',
    'q' || n.notification_id, now(), now()
from tocsin.notification n;
insert into tocsin.suppression (address, reason, created_at)
select 'gone' || i || '@example.com', 'smtp_550_5.1.1', now() - i * interval '1 second'
from generate_series(1, 5000) i;
analyze tocsin.recipient, tocsin.notification, tocsin.delivery, tocsin.event, tocsin.suppression
"""


@pytest.fixture
def stocked(db: Db) -> Db:
    for statement in STOCK.split(";\n"):
        db.execute(statement.encode())
    return db


def test_a_mail_is_found_by_its_providers_id_among_those_of_one_person(stocked: Db) -> None:
    row = stocked.execute(
        "select delivery_id, provider_id from tocsin.delivery where recipient_id = 'p7' limit 1"
    ).fetchone()
    assert row is not None
    arguments = {"id": row[1], "address": "P7@example.com"}
    statement = "select tocsin.find_mailed_delivery(%(id)s, %(address)s)"
    assert stocked.execute(statement.encode(), arguments).fetchone() == (row[0],)
    whole = stocked.execute("select relpages from pg_class where relname = 'delivery'").fetchone()
    assert whole is not None
    assert pages_read(stocked, statement, arguments) < 150 < whole[0]


@pytest.mark.parametrize("name", ["list_older_suppressions", "list_newer_suppressions"])
def test_a_page_of_suppressions_reads_only_what_it_shows(stocked: Db, name: str) -> None:
    row = stocked.execute(
        "select created_at, suppression_id from tocsin.suppression order by created_at limit 1 offset 2500"
    ).fetchone()
    assert row is not None
    arguments = {"reason": None, "at": row[0], "id": row[1], "limit": 20}
    assert pages_read(stocked, SUPPRESSIONS[name], arguments) < 40
