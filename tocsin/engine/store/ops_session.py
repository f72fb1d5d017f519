"""Operators' sessions: an API key of the scope ops, exchanged for a cookie that a script can't read."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from msgspec import Struct

from tocsin.engine.store.api_key import OPS, find_api_key
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("ops_session")
LIFE = timedelta(hours=12)
_SECRET_BYTES = 32


class Operator(Struct, frozen=True):
    """Who is signed in: a key, and until when."""

    api_key_id: int
    name: str  # of the key
    expires_at: datetime | None = None  # None: by the key itself


async def operator_by_key(database: Database, key: str) -> Operator | None:
    """Whose key it is, if it is good and has the scope.

    Keys have 256 random bits and are found by their hash, so there is nothing to guess, and nothing to be learnt from
    how long an answer takes.
    """
    found = await find_api_key(database, key)
    if found is None or found.revoked_at is not None or OPS not in found.scopes:
        return None
    return Operator(found.id, found.name)


async def open_session(database: Database, operator: Operator) -> str:
    """Signs in; answers the cookie's value, which is nowhere kept."""
    token = secrets.token_urlsafe(_SECRET_BYTES)
    await database.run(
        _SQL["open_session"], hash=_hash(token), api_key_id=operator.api_key_id, life=LIFE
    )
    return token


async def find_session(database: Database, token: str) -> Operator | None:
    """Whose session it is, while it lasts and its key is good."""
    return await database.row(Operator, _SQL["find_session"], hash=_hash(token))


async def close_session(database: Database, token: str) -> None:
    """Signs out."""
    await database.run(_SQL["close_session"], hash=_hash(token))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
