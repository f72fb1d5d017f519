"""A connection that listens for notices and runs one prepared query at a time, by libpq's own calls.

Each wait of a task costs more than a small read takes, and there are several in a statement. Here the loop calls back
once there is something to read, and the callbacks do the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from tocsin.engine.store.database import connect_directly, expected_failures

_PULSE = 3.0
_ANSWER_WITHIN = 10.0


# A notice's payload, and the process id of the backend that sent it.
OnNotice = Callable[[str, int], None]


class ListenConnection:
    """One connection; `on_notice` is called with each notice, and then `on_free` unless a query runs."""

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
        self._spoke_at = time.monotonic()

    @classmethod
    async def open(
        cls,
        dsn: str,
        *prepared: LiteralString,
        on_notice: OnNotice,
        on_free: Callable[[], None],
    ) -> ListenConnection:
        """Opens it and runs the `prepared` statements; raises Unavailable."""
        connection = await connect_directly(dsn)
        try:
            with expected_failures():
                for statement in prepared:
                    await connection.execute(statement)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, on_notice=on_notice, on_free=on_free)

    @property
    def busy(self) -> bool:
        """Whether a query runs."""
        return self._on_result is not None

    def ask(self, name: str, arguments: Sequence[str], on_result: Callable[[str], None]) -> None:
        """Runs a prepared query; a later call of `on_result` has its one text."""
        assert self._on_result is None
        self._on_result, self._result = on_result, None
        self._spoke_at = time.monotonic()
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
                    await asyncio.wait([self._lost], timeout=_PULSE)
                    if self._lost.done():
                        self._lost.result()
                    silent = time.monotonic() - self._spoke_at
                    if self.busy and silent > _ANSWER_WITHIN:
                        raise TimeoutError
                    if not self.busy and silent > _PULSE:
                        self.ask("probe", [], lambda _: None)
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
        while (notice := pgconn.notifies()) is not None:
            self._on_notice(notice.extra.decode(self._encoding), notice.be_pid)
        while self._on_result is not None and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is not None:
                self._result = result
            else:
                self._spoke_at = time.monotonic()
                on_result, self._on_result = self._on_result, None
                on_result(self._text())
        # those that came after the result
        while (notice := pgconn.notifies()) is not None:
            self._on_notice(notice.extra.decode(self._encoding), notice.be_pid)
        if self._on_result is None:
            self._on_free()

    def _text(self) -> str:
        result = self._result
        assert result is not None
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result, self._encoding)
        return (result.get_value(0, 0) or b"").decode(self._encoding)

    def _flush(self) -> None:
        """What the socket has no room for yet goes out later."""
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
        """libpq closes the socket of a lost connection, and the next socket of this process gets its number."""
        if not self._watched:
            return
        self._watched = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
