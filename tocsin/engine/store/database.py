"""One process's pool, and how a statement becomes rows or an expected failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
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
from tocsin.engine.store.connection import KEEPALIVES, Availability, connect_async
from tocsin.sql import load

# Arrays in PostgreSQL's text format: for the statements that a worker runs all the time, where psycopg's own writing of
# each element took a tenth of a delivery.


def to_array(values: Iterable[object | None]) -> str:
    """`{"a","b",NULL}`, of values whose `str()` PostgreSQL reads; the statement has to cast it."""
    texts = ["NULL" if value is None else f'"{value}"' for value in values]
    array = ",".join(texts)
    if "\\" in array or array.count('"') != 2 * (len(texts) - texts.count("NULL")):
        array = ",".join([_escaped(text) for text in texts])
    return f"{{{array}}}"


def _escaped(text: str) -> str:
    if text == "NULL":
        return text
    inner = text[1:-1].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]
T = TypeVar("T")

_SQL = load("session")
# Two transactions in each other's way: the next try finds the way free.
_PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

# A server that demoted itself, or a standby, refuses to write.
_AWAY = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction, PoolTimeout, PoolClosed)

# Seconds within which an idle connection has to prove that it is alive.
_CHECK_WITHIN = 3.0
# Seconds that closing a pool waits for connections which a server that hangs does not let go.
_CLOSE_WITHIN = 1.0
# Seconds that a statement waits for a free connection.
_FREE_WITHIN = 5.0


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
        """Runs a statement without rows; returns how many rows it changed."""
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

    A connection is checked before it is used, but not again for `good_for` seconds: whoever runs many small statements
    and retries while the database is unavailable saves half of the round trips.

    A `steady` one runs a few statements all the time: each is prepared at its first use, and planned once. A session
    would plan it eleven times before it sees that its plan is always the same.

    `availability` is shared by all that one process opens to the same database; `search_path` is for another's tables.
    """

    def __init__(
        self,
        dsn: str,
        *,
        max_size: int = 10,
        good_for: float = 0.0,
        steady: bool = False,
        availability: Availability | None = None,
        search_path: str | None = None,
    ) -> None:
        self.dsn = dsn
        self.availability = availability or Availability(dsn)
        self._owns_availability = availability is None
        self._max_size = max_size
        self._good_for = good_for
        self._steady = steady
        self._search_path = search_path
        self._checked: WeakKeyDictionary[psycopg.AsyncConnection[Any], float] = WeakKeyDictionary()
        self._generation = self.availability.generation
        self._pool = self._new_pool()
        self._replacing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Opens the pool; raises Unavailable when there is no connection within 10 s."""
        with expected_failures():
            await self._pool.open(wait=True, timeout=10.0)

    async def close(self) -> None:
        if self._owns_availability:
            await self.availability.close()
        await self._pool.close()
        if self._closing:  # a server that hangs may keep them for long
            _, late = await asyncio.wait(self._closing, timeout=_CLOSE_WITHIN)
            for task in late:
                task.cancel()

    def _new_pool(self) -> Pool:
        return AsyncConnectionPool(
            self.dsn,
            min_size=1,
            max_size=self._max_size,
            timeout=_FREE_WITHIN,
            # It doubles its delay at each attempt; availability.py tries several times a second instead.
            reconnect_timeout=1.0,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0 if self._steady else 5,
                **KEEPALIVES,
            },
            configure=self._configure,
            open=False,
            name="tocsin",
        )

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(_SQL["configure_session"])
        set_json_loads(_from_json, connection)
        if self._steady:
            await connection.execute(_SQL["configure_generic_plans"])
        if self._search_path is not None:
            await connection.execute(_SQL["use_search_path"], {"search_path": self._search_path})

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection for several statements, each committed by itself; raises Unavailable."""
        pool, connection = await self._connection()
        try:
            with expected_failures():
                yield Session(connection)
        except Unavailable as error:
            read_only = isinstance(error.__cause__, psycopg.errors.ReadOnlySqlTransaction)
            if connection.closed or read_only:
                self._report_lost(pool, broken=connection.closed)
            raise
        finally:
            await pool.putconn(connection)

    async def _connection(self) -> tuple[Pool, psycopg.AsyncConnection[Any]]:
        """A connection that works, and the pool that gets it back."""
        while True:
            await self.availability.require()
            pool = await self._current_pool()
            try:
                connection = await pool.getconn()
            except PoolClosed:
                if pool is self._pool:
                    raise Unavailable("the pool is closed") from None
                continue  # it was replaced meanwhile
            except PoolTimeout as error:
                self.availability.report_lost(broken=False)
                raise Unavailable("PoolTimeout") from error
            if await self._is_good(pool, connection):
                return pool, connection
            self._report_lost(pool)
            await self.availability.require()
            self._in_background(self._drop_dead(pool))

    async def _is_good(self, pool: Pool, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Whether a connection of the pool still works; one that doesn't goes back, to be closed."""
        now = time.monotonic()
        if now - self._checked.get(connection, 0.0) < self._good_for:
            return True
        check = asyncio.create_task(AsyncConnectionPool.check_connection(connection))
        try:
            await asyncio.wait({check}, timeout=_CHECK_WITHIN)
        except asyncio.CancelledError:
            check.cancel()
            self._give_back(pool, connection, check)
            raise
        if check.done() and check.exception() is None:
            self._checked[connection] = now
            return True
        # a server that hangs may keep the check, and with it the connection, for long
        self._give_back(pool, connection, check)
        return False

    async def _drop_dead(self, pool: Pool) -> None:
        """Replaces what else is dead in a pool: what cut one connection has mostly cut the others too."""
        with suppress(PoolClosed):
            await pool.check()

    def _give_back(
        self, pool: Pool, connection: psycopg.AsyncConnection[Any], check: asyncio.Task[None]
    ) -> None:
        async def give_back() -> None:
            await asyncio.gather(check, return_exceptions=True)
            await connection.close()
            await pool.putconn(connection)

        self._in_background(give_back())

    def _report_lost(self, pool: Pool, *, broken: bool = True) -> None:
        """Unless it is a connection from before the database's last return."""
        if pool is self._pool and self._generation == self.availability.generation:
            self.availability.report_lost(broken=broken)

    async def _current_pool(self) -> Pool:
        """The pool, or a new one where the database was away since it was opened."""
        if self._generation != self.availability.generation:
            async with self._replacing:
                if self._generation != self.availability.generation:
                    old, self._pool = self._pool, self._new_pool()
                    self._generation = self.availability.generation
                    await self._pool.open()
                    self._in_background(old.close())
        return self._pool

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

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
    """A connection outside the pool, for LISTEN: autocommit, and with keepalives on both ends."""
    with expected_failures():
        connection = await connect_async(dsn)
        try:
            await connection.execute(_SQL["configure_session"])
            await connection.execute(_SQL["configure_direct_session"])
        except BaseException:
            await connection.close()
            raise
    return connection


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


def _from_json(text: str | bytes) -> Any:
    """Python's own, which knows 1e400 too, is asked only where the fast one doesn't."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json.loads(text)


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
        if isinstance(error, _AWAY):
            raise Unavailable(type(error).__name__) from error
        raise
