"""Tickets with which an EventSource, which can't send headers, opens one stream at a time."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from msgspec import Struct

from tocsin.engine.model import Conflict, NotFound
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("stream_ticket")
_SECRET_BYTES = 32


class Ticket(Struct, frozen=True):
    """A new ticket."""

    ticket: str
    expires_at: datetime  # the token's own end
    usable_until: datetime  # for the first stream


class TicketHolder(Struct, frozen=True):
    """Whose stream a ticket opens, and until when it may stay open."""

    recipient_id: str
    expires_at: datetime


async def make_ticket(database: Database, recipient_id: str, expires_at: datetime) -> Ticket:
    """Makes a ticket, and forgets those that no stream can be opened with any more."""
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
    """Says that the stream is still open; false where the ticket was taken away, with its person."""
    return await database.run(_SQL["renew_ticket"], hash=_hash(ticket)) > 0


async def release_ticket(database: Database, ticket: str) -> None:
    """Says that the stream ended: the next may be opened at once."""
    await database.run(_SQL["release_ticket"], hash=_hash(ticket))


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
