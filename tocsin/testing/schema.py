"""Tocsin's schema in a test database of a host app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from tocsin.sql import load
from tocsin.sql.catalogue import catalogue
from tocsin.sql.install import install

CHANNELS = ("email", "push")


def install_schema(connection: Any, *, channels: Iterable[str] = CHANNELS) -> None:
    """Installs or updates the schemas `tocsin` and `tocsin_queue`, with the default event types.

    `connection` is a psycopg connection whose role may create schemas (the owner of a test database may), or a DSN.
    Committed at once, unless a transaction is open on it. `notify()` then decides as where workers have a provider for
    `channels`: without any it would decide "off (no_provider)". Raises MigrationError or RoleError with the cure.
    """
    if isinstance(connection, str):
        with psycopg.connect(connection, connect_timeout=5) as own:
            return install_schema(own, channels=channels)
    row_factory, connection.row_factory = connection.row_factory, tuple_row
    try:
        with connection.transaction():
            install(connection, catalogue())
            available = {"channels": list(channels)}
            connection.execute(load("testing")["make_channels_available"], available)
    finally:
        connection.row_factory = row_factory
    return None
