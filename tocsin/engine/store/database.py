"""One process's pool, and how a statement becomes rows or an expected failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, LiteralString, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import BaseRowFactory, RowMaker, args_row, class_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from tocsin.engine.model import Conflict, Invalid, Unavailable
from tocsin.sql import load

T = TypeVar("T")

_SQL = load("session")
# Two transactions in each other's way: the next try finds the way free.
_PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

# A session that vanished (a frozen machine, a cut cable) is noticed within half a minute, on either side.
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "connect_timeout": 5,
}


class Session:
    """Statements on one connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def rows(self, kind: type[T], statement: LiteralString, **arguments: object) -> list[T]:
        """All rows, each as a `kind` (a struct with a field per column)."""
        with expected_failures():
            async with self.connection.cursor(row_factory=_row_of(kind)) as cursor:
                await cursor.execute(statement, arguments)
                return await cursor.fetchall()

    async def row(self, kind: type[T], statement: LiteralString, **arguments: object) -> T | None:
        """The first row, or None."""
        rows = await self.rows(kind, statement, **arguments)
        return rows[0] if rows else None

    async def value(self, statement: LiteralString, **arguments: object) -> Any:
        """The first column of the first row, or None."""
        with expected_failures():
            row = await (await self.connection.execute(statement, arguments)).fetchone()
        return row[0] if row else None

    async def run(self, statement: LiteralString, **arguments: object) -> int:
        """Runs a statement without rows; answers how many rows it changed."""
        with expected_failures():
            return (await self.connection.execute(statement, arguments)).rowcount

    async def text(self, statement: LiteralString, argument: str) -> str:
        """A text for a text ($1), by libpq's own calls: a cursor costs more than a small read takes."""
        connection = self.connection
        with expected_failures():
            encoding = connection.info.encoding
            connection.pgconn.send_query_params(statement.encode(), [argument.encode(encoding)])
            try:
                result = await _result(connection.pgconn)
            except BaseException:
                await connection.close()  # whoever has it next would get this answer
                raise
            if result.status != ExecStatus.TUPLES_OK:
                raise psycopg.errors.error_from_result(result, encoding)
            return (result.get_value(0, 0) or b"").decode(encoding)


class Database:
    """The pool of one process; each call of its own is one autocommitted statement.

    A connection is asked whether it is still good before it is used, but not again for `good_for` seconds: who says
    many small things, and waits out whatever is unavailable, saves half of the round trips.

    One that is `steady` says a few statements all the time: each is prepared as it is said first, and planned once. A
    session would plan it eleven times before it sees that its plan is always the same.
    """

    def __init__(
        self, dsn: str, *, max_size: int = 10, good_for: float = 0.0, steady: bool = False
    ) -> None:
        self.dsn = dsn
        self._good_for = good_for
        self._checked: WeakKeyDictionary[psycopg.AsyncConnection[Any], float] = WeakKeyDictionary()
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=max_size,
            timeout=5.0,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0 if steady else 5,
                **KEEPALIVES,
            },
            configure=_configure_steady if steady else _configure,
            check=self._check,
            open=False,
            name="tocsin",
        )

    async def open(self) -> None:
        """Opens the pool; raises Unavailable when there is no connection within 10 s."""
        with expected_failures():
            await self._pool.open(wait=True, timeout=10.0)

    async def close(self) -> None:
        await self._pool.close()

    async def _check(self, connection: psycopg.AsyncConnection[Any]) -> None:
        now = time.monotonic()
        if now - self._checked.get(connection, 0.0) >= self._good_for:
            await AsyncConnectionPool.check_connection(connection)
            self._checked[connection] = now

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection for several statements, each committed by itself."""
        with expected_failures():
            async with self._pool.connection() as connection:
                yield Session(connection)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Session]:
        """A transaction; with `snapshot` all its statements read one and the same (and it may not write)."""
        async with self.session() as session, session.connection.transaction():
            if snapshot:
                await session.run("set transaction isolation level repeatable read read only")
            yield session

    async def rows(self, kind: type[T], statement: LiteralString, **arguments: object) -> list[T]:
        async with self.session() as session:
            return await session.rows(kind, statement, **arguments)

    async def row(self, kind: type[T], statement: LiteralString, **arguments: object) -> T | None:
        async with self.session() as session:
            return await session.row(kind, statement, **arguments)

    async def value(self, statement: LiteralString, **arguments: object) -> Any:
        async with self.session() as session:
            return await session.value(statement, **arguments)

    async def run(self, statement: LiteralString, **arguments: object) -> int:
        async with self.session() as session:
            return await session.run(statement, **arguments)


async def connect_directly(dsn: str) -> psycopg.AsyncConnection[Any]:
    """A connection beside the pool, for LISTEN: autocommit, and with keepalives on both ends."""
    with expected_failures():
        connection = await _connect(dsn)
        try:
            await connection.execute(_SQL["settle_direct"])
        except BaseException:
            await connection.close()
            raise
    return connection


async def _connect(dsn: str) -> psycopg.AsyncConnection[Any]:
    """Cancelled half-way, it would leave a session behind that waits for a password until the server gives up."""
    opening = asyncio.ensure_future(
        psycopg.AsyncConnection.connect(dsn, autocommit=True, **KEEPALIVES)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(psycopg.Error, TimeoutError):
            await (await asyncio.wait_for(opening, 2.0)).close()
        raise


async def _result(pgconn: PGconn) -> PGresult:
    """The one result of what was sent, once all of it is there."""
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
    """Until the loop has called back for the socket."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        if not called.done():
            called.set_result(None)

    add(socket, call)
    try:
        await called
    finally:
        remove(socket)


def _row_of(kind: type[T]) -> BaseRowFactory[T]:
    """Rows as structs: by position where the columns are the fields in their order, which takes a third of the time."""
    fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    by_position, by_name = args_row(kind), class_row(kind)

    def factory(cursor: Any) -> RowMaker[T]:
        columns = tuple(column.name for column in cursor.description or ())
        make = by_position if columns == fields else by_name
        return make(cursor)

    return factory


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(_SQL["settle_pooled"])
    set_json_loads(_from_json, connection)


def _from_json(text: str | bytes) -> Any:
    """Python's own, which knows 1e400 too, is asked only where the fast one doesn't."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json.loads(text)


async def _configure_steady(connection: psycopg.AsyncConnection[Any]) -> None:
    await _configure(connection)
    await connection.execute(_SQL["settle_steady"])


@contextmanager
def expected_failures() -> Iterator[None]:
    """Turns what the database refuses into Invalid, Conflict or Unavailable."""
    try:
        yield
    except psycopg.Error as error:
        diagnosis = error.diag
        if (error.sqlstate or "").startswith("TC"):
            message = diagnosis.message_primary or ""
            cure = f"{message}. {diagnosis.message_hint or ''}".strip()
            raise Invalid(message, (diagnosis.column_name or "", cure)) from error
        if isinstance(error, _PASSING):
            raise Conflict("An open transaction of an app holds it.") from error
        if isinstance(error, psycopg.OperationalError | PoolTimeout | PoolClosed):
            raise Unavailable(type(error).__name__) from error
        raise
