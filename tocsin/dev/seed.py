"""Demo people, their phones and a few days of their notifications; for `make up`, tests and benchmarks."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import msgspec

from tocsin.client import notify, subscribe, upsert_recipient
from tocsin.engine.store.connection import SyncConnection, connect
from tocsin.sql import load


@cache
def demo() -> dict[str, list[dict[str, Any]]]:
    """Returns what seed.toml holds: people, phones, subscriptions (to the topic of the demo's replies), events."""
    text = (files("tocsin.dev") / "seed.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, list[dict[str, Any]]])


def seed(dsn: str, *, again: bool = False, phones: bool = True) -> str:
    """Adds them where the database is empty, or `again`; returns what it did, in one line.

    `phones`: with device tokens that only the far ends of `tocsin up` accept.
    """
    with connect(dsn) as connection:
        known = connection.execute("select exists (select from tocsin.recipient)").fetchone()
        if known == (True,) and not again:
            return "Demo people are there already."
        for person in demo()["people"]:
            upsert_recipient(connection, **person)
        for subscription in demo()["subscriptions"]:
            subscribe(connection, **subscription)
        if phones:
            _register_phones(connection)
        for event in demo()["events"]:
            notify(connection, **event)
    return f"{len(demo()['people'])} people and {len(demo()['events'])} events."


def _register_phones(connection: SyncConnection) -> None:
    """Registers them before the first event, so that it reaches them."""
    register = load("recipient")["register_device"]
    for phone in demo()["phones"]:
        name = f"{phone['recipient_id']}'s {phone['platform']} phone"
        token = sha256(name.encode()).hexdigest()
        arguments = {"token": token, "environment": "production", "keys": None}
        connection.execute(register, phone | arguments)
