"""Erasure and export are complete: a person whose every value is a canary is stored in all tables."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.canary import (
    CLAIMED,
    EMAIL,
    ID,
    OLD,
    ZONES,
    canary,
    columns,
    export,
    holding,
    is_without_person,
    value,
)
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db

EXPORTED = (
    *(ID, EMAIL, OLD, CLAIMED, *ZONES, "canary name", "de-canary", "canary-token", "canary label"),
    *("canary title", "canary body", "canary html", "canary-url", "canary metadata", "canary key"),
    *("canary:topic", "canary provider id", "canary initiator", "complaint", "smtp_550_5.1.1"),
    *("canary-name", "https://canary.example/hook"),
)


async def test_each_column_is_reached_exported_and_erased(
    db: Db, machine: httpx.AsyncClient, me: httpx.AsyncClient
) -> None:
    await canary(db, machine, me)
    held = holding(db)
    expected = {column for column, _ in columns(db) if not is_without_person(column)}
    assert held == expected

    exported = await export(machine)
    for each in EXPORTED:
        assert each in exported, each
    parts = json.loads(exported)
    empty = {name for name, part in parts.items() if part == []}
    assert empty == set(), "of each kind there is something"
    assert {name for name, part in parts["others"].items() if not part} == set()
    assert len(parts["scheduled_events"]) == 4
    assert "+00:00" not in exported, "times end with Z"

    assert (await machine.delete(f"/api/recipients/{ID.replace('/', '%2F')}/")).status_code == 204
    assert holding(db) == set()
    # others keep what they were notified of, and their scheduled event
    assert value(db, "select count(*) from tocsin.notification where recipient_id = 'bob'") == 2
    assert value(db, "select recipients from tocsin.event where send_at is not null") == ["bob"]
    assert value(
        db,
        "select array_agg(metadata order by event_id) from tocsin.event where fanned_out_at is not null",
    ) == [
        {"mentions": ["bob"]},
        {"mentions": []},
    ]
    left = {
        table: value(db, f"select count(*) from tocsin.{table}")
        for table in ("attempt", "erasure", "mail_event")
    }
    deliveries = value(db, "select count(*) from tocsin.delivery")
    assert left == {"attempt": deliveries, "erasure": 0, "mail_event": 0}


@pytest.fixture
async def me(app: Any) -> Any:
    """The person, signed in."""
    from tests.support.http_fixtures import URL, bearer, token, transport_to

    transport = transport_to(app)
    async with httpx.AsyncClient(
        transport=transport, base_url=URL, headers=bearer(token(ID))
    ) as client:
        yield client
