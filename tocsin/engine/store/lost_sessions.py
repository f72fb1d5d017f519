"""Ends connections that would wait for ever: their session does not exist any more, or the database hangs.

After a failover, a proxy may keep connections to the former server open: nothing comes through them, and keepalives
end at the proxy. So whatever connects again asks the server which sessions of this process it still has.

A server that hangs, or a proxy in front of it, may keep a connection open too. What was sent before it hung gets no
response; what is sent after that fails at once, since the database is known to be unavailable.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import args_row

from tocsin.sql import load

_Connection = psycopg.AsyncConnection[Any]

_SQL = load("session")


class ServerSession(NamedTuple):
    """A session, which no other server has too."""

    pid: int
    started: int  # microseconds


_sessions: dict[str, WeakKeyDictionary[_Connection, ServerSession]] = {}
"""By DSN, the sessions of this process's connections."""


async def note_session(dsn: str, connection: _Connection, *, primary: bool) -> None:
    """Notes the session of a new connection; raises OperationalError for a standby where it has to be the `primary`."""
    row = await (await connection.execute(_SQL["own_session"])).fetchone()
    if row is None:
        return
    pid, started, is_standby = row
    if primary and is_standby:
        raise psycopg.OperationalError("connected to a standby")
    _sessions.setdefault(dsn, WeakKeyDictionary())[connection] = ServerSession(pid, started)


async def end_lost(dsn: str, asking: _Connection) -> int:
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


class ConnectionsInUse:
    """The connections of a process on which statements run now."""

    def __init__(self) -> None:
        self._connections: set[_Connection] = set()

    def begin(self, connection: _Connection) -> None:
        """Notes that a connection is in use."""
        self._connections.add(connection)

    def end(self, connection: _Connection) -> None:
        """Notes that it is not in use any more."""
        self._connections.discard(connection)

    def end_waiting(self) -> None:
        """Ends those that wait for a response: each statement fails as if the server had closed its connection."""
        for connection in self._connections:
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                _shut_down(connection)


def _shut_down(connection: _Connection) -> None:
    """Lets whatever waits for the connection see its end, as if the server had closed it."""
    with suppress(psycopg.Error, OSError):
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
