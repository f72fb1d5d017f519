"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin.client import *  # noqa: F403 - all that it names in its __all__ is public here too


def __getattr__(name: str) -> object:
    """Returns a public name of `tocsin.client`, which is imported with psycopg when the first one is used (PEP 562)."""
    client = import_module("tocsin.client")
    if name != "__all__" and name not in client.__all__:
        raise AttributeError(f"module 'tocsin' has no attribute {name!r}")
    value = globals()[name] = getattr(client, name)
    return value
