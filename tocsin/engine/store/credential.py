"""Credentials: tickets of streams, API keys and operators' sessions; the database has only their hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from msgspec import Struct

from tocsin.engine.model import Conflict, Invalid, NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import check_filter
from tocsin.sql import load

_SQL = load("credential")

_SECRET_BYTES = 32


class Ticket(Struct, frozen=True):
    """A new ticket, with which an EventSource, which can't send headers, opens one stream at a time."""

    ticket: str
    expires_at: datetime  # the token's own end
    usable_until: datetime  # for the first stream


class TicketHolder(Struct, frozen=True):
    """The person whose stream a ticket opens, and how long it may stay open."""

    recipient_id: str
    expires_at: datetime


async def make_ticket(database: Database, recipient_id: str, expires_at: datetime) -> Ticket:
    """Makes a ticket, and deletes those that can open no stream any more."""
    ticket = secrets.token_urlsafe(_SECRET_BYTES)
    async with database.session() as session:
        await session.run(_SQL["delete_spent_tickets"])
        usable_until: datetime = await session.value(
            _SQL["make_ticket"],
            hash=_hash(ticket),
            recipient_id=recipient_id,
            expires_at=expires_at,
        )
    return Ticket(ticket, expires_at, usable_until)


async def take_ticket(database: Database, ticket: str) -> TicketHolder:
    """Opens a stream; raises NotFound, or Conflict while the ticket's other stream is open."""
    async with database.session() as session:
        holder = await session.row(TicketHolder, _SQL["take_ticket"], hash=_hash(ticket))
        if holder is not None:
            return holder
        if await session.value(_SQL["is_ticket_in_use"], hash=_hash(ticket)):
            raise Conflict("This ticket's stream is still open.")
        raise NotFound("The ticket is not known, or its time is over.")


async def renew_ticket(database: Database, ticket: str) -> bool:
    """Keeps a ticket while its stream is open; false where it was deleted, with its person."""
    return await database.run(_SQL["renew_ticket"], hash=_hash(ticket)) > 0


async def release_ticket(database: Database, ticket: str) -> None:
    """Ends the use of a ticket: it can open the next stream at once."""
    await database.run(_SQL["release_ticket"], hash=_hash(ticket))


PREFIX = "tocsin_"  # lets secret scanners know one
_SHOWN = len(PREFIX) + 6  # characters of a key that are kept to know it by
_LONGEST_NAME = 100
_MOST_PATTERNS = 100
_PATTERN = re.compile(r"([a-z][a-z0-9_]*)\.(\*|[a-z][a-z0-9_]*)")

EVENTS_WRITE, EVENTS_READ, RECIPIENTS, ERASE = "events:write", "events:read", "recipients", "erase"
CHANNELS, SUPPRESSIONS, MAIL_EVENTS, OPS = "channels", "suppressions", "mail-events", "ops"
APP_SCOPES = (EVENTS_WRITE, EVENTS_READ, RECIPIENTS, ERASE, CHANNELS, SUPPRESSIONS)  # the default
SCOPES = (*APP_SCOPES, MAIL_EVENTS, OPS)


class ApiKey(Struct, frozen=True):
    """A key, without its secret."""

    id: int
    name: str
    scopes: list[str]
    event_types: list[str] | None  # patterns; None: all
    prefix: str | None  # its first characters; None for keys of earlier versions
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    def covers(self, event_type: str) -> bool:
        """Returns whether the key may write and read events of this type."""
        return covers(self.event_types, event_type)


def covers(patterns: Sequence[str] | None, event_type: str) -> bool:
    """Returns whether one of the patterns matches; None matches all."""
    return patterns is None or any(fnmatchcase(event_type, each) for each in patterns)


async def create_api_key(
    database: Database,
    name: str,
    *,
    scopes: Sequence[str] = APP_SCOPES,
    event_types: Sequence[str] = (),
) -> tuple[int, str]:
    """Makes a key; returns its id and the key itself, which is stored nowhere. Raises Invalid."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise Invalid("name is wrong", ("name", "Give the key a name of 1 to 100 characters."))
    unknown = [each for each in scopes if each not in SCOPES]
    if unknown or not scopes:
        raise Invalid("scopes are wrong", ("scopes", f"Use some of {', '.join(SCOPES)}."))
    await _check_patterns(database, event_types)
    key = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    api_key_id: int = await database.value(
        _SQL["create_api_key"],
        name=name,
        scopes=[each for each in SCOPES if each in scopes],
        event_types=sorted(set(event_types)) or None,
        prefix=key[:_SHOWN],
        hash=_hash(key),
    )
    return api_key_id, key


async def find_api_key(database: Database, key: str) -> ApiKey | None:
    """Returns the key, revoked or not, or None; records that it was used."""
    return await database.row(ApiKey, _SQL["find_api_key"], hash=_hash(key))


async def list_api_keys(database: Database) -> list[ApiKey]:
    """Returns all keys, revoked ones too."""
    return await database.rows(ApiKey, _SQL["list_api_keys"])


async def revoke_api_keys(database: Database, which: str) -> list[ApiKey]:
    """Ends keys at once and returns them: the one of this id or these first characters, or all of this name.

    Raises NotFound where no live key is meant, and Invalid where first characters mean several.
    """
    meant = _meant([each for each in await list_api_keys(database) if not each.revoked_at], which)
    if not meant:
        raise NotFound(
            f"There is no live key of the id, name or first characters {which[:_SHOWN]!r}: "
            "`tocsin api-key list` shows all."
        )
    ended = await database.column(_SQL["revoke_api_keys"], api_key_ids=[each.id for each in meant])
    return [each for each in meant if each.id in ended]


def _meant(live: list[ApiKey], which: str) -> list[ApiKey]:
    found = [each for each in live if str(each.id) == which] or [
        each for each in live if each.name == which
    ]
    if found or len(which) <= len(PREFIX):
        return found
    found = [each for each in live if each.prefix and each.prefix.startswith(which[:_SHOWN])]
    if len(found) > 1:
        ids = ", ".join(str(each.id) for each in found)
        raise Invalid("more than one key", ("key", f"Several keys begin so: give the id, {ids}."))
    return found


async def _check_patterns(database: Database, patterns: Sequence[str]) -> None:
    if len(patterns) > _MOST_PATTERNS:
        raise Invalid("too many patterns", ("event_types", f"Give at most {_MOST_PATTERNS}."))
    for each in patterns:
        match = _PATTERN.fullmatch(each)
        if match is None:
            cure = f"{each[:100]!r} is no pattern: write forum.new_reply or forum.*."
            raise Invalid("a pattern is wrong", ("event_types", cure))
        category = match[1] if match[2] == "*" else None
        await check_filter(database, None if category else each, category)


def _hash(key: str) -> bytes:
    # A key has 256 random bits: there is nothing to guess, so no salt and no slow hash.
    return hashlib.sha256(key.encode()).digest()


# Operators' sessions: an API key of the scope ops, exchanged for a cookie that a script can't read.

LIFE = timedelta(hours=12)


class Operator(Struct, frozen=True):
    """A signed-in operator: the key and its name."""

    api_key_id: int
    name: str  # of the key
    expires_at: datetime | None = None  # None: by the key itself


async def operator_by_key(database: Database, key: str) -> Operator | None:
    """Returns the operator of a key that is not revoked and has the scope.

    Keys have 256 random bits and are found by their hash, so the time of a response reveals nothing.
    """
    found = await find_api_key(database, key)
    if found is None or found.revoked_at is not None or OPS not in found.scopes:
        return None
    return Operator(found.id, found.name)


async def open_session(database: Database, operator: Operator) -> str:
    """Signs in; returns the cookie's value, which is not stored."""
    token = secrets.token_urlsafe(_SECRET_BYTES)
    await database.run(
        _SQL["open_session"],
        hash=_hash(token),
        api_key_id=operator.api_key_id,
        life=LIFE,
    )
    return token


async def find_session(database: Database, token: str) -> Operator | None:
    """Returns the operator of a session that has not expired and whose key is not revoked."""
    return await database.row(Operator, _SQL["find_session"], hash=_hash(token))


async def close_session(database: Database, token: str) -> None:
    """Signs out."""
    await database.run(_SQL["close_session"], hash=_hash(token))
