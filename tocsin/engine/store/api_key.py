"""API keys: the database has their hashes only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("api_key")
PREFIX = "tocsin_"  # lets secret scanners know one
_SECRET_BYTES = 32
_LONGEST_NAME = 100


class ApiKey(Struct, frozen=True):
    """A key, without its secret."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


async def create_api_key(
    database: Database, name: str, *, scopes: Sequence[str] = ("app",)
) -> tuple[int, str]:
    """Makes a key; answers its id and the key itself, which is nowhere kept."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise Invalid("name is wrong", ("name", "Give the key a name of 1 to 100 characters."))
    key = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    api_key_id: int = await database.value(
        _SQL["create_api_key"], name=name, scopes=list(scopes), hash=_hash(key)
    )
    return api_key_id, key


async def find_api_key(database: Database, key: str) -> ApiKey | None:
    """The key, revoked or not, or None; notes that it was used."""
    return await database.row(ApiKey, _SQL["find_api_key"], hash=_hash(key))


async def list_api_keys(database: Database) -> list[ApiKey]:
    """All keys, revoked ones too."""
    return await database.rows(ApiKey, _SQL["list_api_keys"])


async def revoke_api_key(database: Database, api_key_id: int) -> None:
    """Ends a key at once; raises NotFound where there is none that is still good."""
    if not await database.run(_SQL["revoke_api_key"], api_key_id=api_key_id):
        raise NotFound("There is no such key that is still good.")


def _hash(key: str) -> bytes:
    # A key has 256 random bits: there is nothing to guess, so no salt and no slow hash.
    return hashlib.sha256(key.encode()).digest()
