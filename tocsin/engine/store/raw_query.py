"""Queries for one text by libpq's own calls: for small reads, of which a cursor of psycopg takes the larger part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from tocsin.engine.store.database import Session, expected_failures


async def query_text(session: Session, statement: LiteralString, argument: str) -> str:
    """Returns the text that a statement with one argument ($1) selects."""
    encoding = session.connection.info.encoding
    return await _query(
        session,
        lambda connection: connection.send_query_params(
            statement.encode(), [argument.encode(encoding)]
        ),
    )


async def query_prepared(session: Session, name: str, *arguments: str | None) -> str:
    """Returns the text that a prepared statement selects."""
    encoding = session.connection.info.encoding
    values = [None if each is None else each.encode(encoding) for each in arguments]
    return await _query(
        session, lambda connection: connection.send_query_prepared(name.encode(), values)
    )


async def _query(session: Session, send: Callable[[PGconn], None]) -> str:
    connection = session.connection
    with expected_failures():
        async with session.statement():
            send(connection.pgconn)
            try:
                result = await _result(connection.pgconn)
            except BaseException:
                await connection.close()  # its next user would get this result
                raise
            return text_of(result, connection.info.encoding)


def text_of(result: PGresult, encoding: str) -> str:
    """Returns the text in a result; raises the error that it has instead."""
    if result.status != ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result, encoding)
    return (result.get_value(0, 0) or b"").decode(encoding)


async def _result(pgconn: PGconn) -> PGresult:
    """Returns the one result of what was sent, once it is complete."""
    loop = asyncio.get_running_loop()
    socket = pgconn.socket
    while pgconn.flush():
        await _called(loop.add_writer, loop.remove_writer, socket)
    while pgconn.is_busy():
        await _called(loop.add_reader, loop.remove_reader, socket)
        pgconn.consume_input()
    result = pgconn.get_result()
    assert result is not None
    while pgconn.get_result() is not None:  # the end of it
        pass
    return result


async def _called(add: Callable[..., Any], remove: Callable[[int], Any], socket: int) -> None:
    """Waits until the event loop has called back for the socket."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        if not called.done():
            called.set_result(None)

    add(socket, call)
    try:
        await called
    finally:
        remove(socket)
