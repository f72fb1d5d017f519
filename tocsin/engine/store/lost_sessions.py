"""Ends connections whose session does not exist on the server any more, and which would wait for it for ever.

After a failover, a proxy may keep connections to the former server open: nothing comes through them, and keepalives
end at the proxy. So whatever connects again asks the server which sessions of this process it still has.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import args_row

from tocsin.sql import load

Connection = psycopg.AsyncConnection[Any]

_SQL = load("session")


class ServerSession(NamedTuple):
    """A session, which no other server has too."""

    pid: int
    started: int  # microseconds


_sessions: dict[str, WeakKeyDictionary[Connection, ServerSession]] = {}
"""By DSN, the sessions of this process's connections."""


async def note_session(dsn: str, connection: Connection, *, primary: bool) -> None:
    """Notes the session of a new connection; raises OperationalError for a standby where it has to be the `primary`."""
    row = await (await connection.execute(_SQL["own_session"])).fetchone()
    if row is None:
        return
    pid, started, is_standby = row
    if primary and is_standby:
        raise psycopg.OperationalError("connected to a standby")
    _sessions.setdefault(dsn, WeakKeyDictionary())[connection] = ServerSession(pid, started)


async def end_lost(dsn: str, asking: Connection) -> int:
    """Ends the connections whose session is not on the server that `asking` is connected to; returns how many."""
    noted = {
        connection: session
        for connection, session in _sessions.get(dsn, {}).items()
        if not connection.closed
    }
    if not noted:
        return 0
    pids, starts = zip(*noted.values(), strict=True)
    async with asking.cursor(row_factory=args_row(ServerSession)) as cursor:
        await cursor.execute(_SQL["lost_sessions"], {"pids": [*pids], "starts": [*starts]})
        lost = set(await cursor.fetchall())
    ended = [connection for connection, session in noted.items() if session in lost]
    for connection in ended:
        _shut_down(connection)
    return len(ended)


def _shut_down(connection: Connection) -> None:
    """Lets whatever waits for the connection see its end, as if the server had closed it."""
    with suppress(psycopg.Error, OSError):
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
