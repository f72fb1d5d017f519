"""libpq's own calls, for small reads of which a cursor of psycopg takes the larger part: each selects one text.

The queries of a session, and a connection that listens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from tocsin.engine.store.database import Session, connect_directly, expected_failures

_PROBE_AFTER = 3.0  # seconds without any response
_RESPONSE_WITHIN = 10.0  # seconds

# A notice's payload, and the process id of the backend that sent it.
OnNotice = Callable[[str, int], None]


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
            return _text_of(result, connection.info.encoding)


def _text_of(result: PGresult, encoding: str) -> str:
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


class ListenConnection:
    """A connection that listens for notices and runs one prepared query at a time; one of these is named `probe`.

    Each wait of a task costs more than a small read takes, and there are several in a statement. Here the event loop
    calls back once there is something to read. `on_notice` is called with each notice, and then `on_free` unless a
    query runs.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        on_notice: OnNotice,
        on_free: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._socket = self._pgconn.socket
        self._watched = True
        self._encoding = connection.info.encoding
        self._on_notice = on_notice
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._on_result: Callable[[str], None] | None = None
        self._result: PGresult | None = None
        self._active_at = time.monotonic()

    @classmethod
    async def open(
        cls,
        dsn: str,
        preparation: Sequence[LiteralString],
        *,
        on_notice: OnNotice,
        on_free: Callable[[], None],
    ) -> ListenConnection:
        """Opens it and executes these statements; raises Unavailable."""
        connection = await connect_directly(dsn)
        try:
            with expected_failures():
                for statement in preparation:
                    await connection.execute(statement)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, on_notice=on_notice, on_free=on_free)

    @property
    def busy(self) -> bool:
        """Whether a query runs."""
        return self._on_result is not None

    def query(self, name: str, arguments: Sequence[str], on_result: Callable[[str], None]) -> None:
        """Runs a prepared query; a later call of `on_result` has its one text."""
        assert self._on_result is None
        self._on_result, self._result = on_result, None
        self._active_at = time.monotonic()
        try:
            self._pgconn.send_query_prepared(
                name.encode(), [each.encode(self._encoding) for each in arguments]
            )
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    async def hold(self) -> None:
        """Keeps it open until it is cancelled; raises once the connection is lost or returns nothing any more."""
        self._loop.add_reader(self._socket, self._readable)
        try:
            with expected_failures():
                self._readable()  # what came while it was being prepared
                while True:
                    await asyncio.wait([self._lost], timeout=_PROBE_AFTER)
                    if self._lost.done():
                        self._lost.result()
                    silent = time.monotonic() - self._active_at
                    if self.busy and silent > _RESPONSE_WITHIN:
                        raise TimeoutError
                    if not self.busy and silent > _PROBE_AFTER:
                        self.query("probe", [], lambda _: None)
        finally:
            self._stop_watching()
            self._lost.cancel()
            await self._connection.close()

    def _readable(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised where it is held
            self._lose(error)

    def _read(self) -> None:
        pgconn = self._pgconn
        pgconn.consume_input()
        self._read_notices()
        while self._on_result is not None and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is not None:
                self._result = result
            else:
                self._active_at = time.monotonic()
                on_result, self._on_result = self._on_result, None
                assert self._result is not None
                on_result(_text_of(self._result, self._encoding))
        self._read_notices()  # those that came after the result
        if self._on_result is None:
            self._on_free()

    def _read_notices(self) -> None:
        while (notice := self._pgconn.notifies()) is not None:
            self._on_notice(notice.extra.decode(self._encoding), notice.be_pid)

    def _flush(self) -> None:
        """Sends what the socket takes now, and the rest once it has room."""
        self._loop.remove_writer(self._socket)
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._flush_more)

    def _flush_more(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._stop_watching()
        with suppress(asyncio.InvalidStateError):
            self._lost.set_exception(error)

    def _stop_watching(self) -> None:
        """Stops watching a lost connection: libpq closes its socket, whose number the next socket gets."""
        if not self._watched:
            return
        self._watched = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
