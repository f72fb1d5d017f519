"""One process's pool, and how a statement becomes rows or an expected failure."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any, LiteralString, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg import AsyncCursor, IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import BaseRowFactory, RowMaker, args_row, kwargs_row, scalar_row, tuple_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from tocsin.engine.model import Conflict, Invalid, Unavailable
from tocsin.engine.store.connection import (
    KEEPALIVES,
    Availability,
    connect_async,
    last_address_first,
)
from tocsin.engine.store.lost_sessions import note_session
from tocsin.engine.store.pagination import Cursor, Page, RowT, page
from tocsin.sql import load

# Arrays in PostgreSQL's text format: for the statements that a worker runs all the time, where psycopg's own writing of
# each element took a tenth of a delivery.


def to_array(values: Iterable[object | None]) -> str:
    """Returns `{"a","b",NULL}` of values whose `str()` PostgreSQL reads; the statement has to cast it."""
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
MakeRow = Callable[..., T]

_SQL = load("session")
_LASTING, _LOCAL = {"local": False}, {"local": True}  # until the session or the transaction ends
# Conflicts of two transactions: the next try mostly succeeds.
_PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

# A standby, or a server that was demoted, refuses to write.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
    PoolClosed,
)

# Seconds within which an idle connection has to respond.
_CHECK_WITHIN = 3.0
# Seconds that closing a pool waits for connections of a server that hangs.
_CLOSE_WITHIN = 1.0
# Seconds that a statement waits for a free connection.
_FREE_WITHIN = 5.0


class Queries(ABC):
    """Runs statements, and raises Invalid, Conflict or Unavailable where the database refuses one."""

    snapshot: str | None = None
    """On a standby, where no statement can state it: the snapshot that they all cover."""

    @abstractmethod
    def cursor(self, rows: BaseRowFactory[T]) -> AbstractAsyncContextManager[AsyncCursor[T]]:
        """Returns a cursor for one statement."""

    async def rows(
        self, kind: MakeRow[T], statement: LiteralString, **arguments: object
    ) -> list[T]:
        """Returns all rows, each as a `kind`: a struct with a field per column, or a function of the columns."""
        async with self.cursor(_row_of(kind)) as cursor:
            await cursor.execute(statement, arguments)
            return await cursor.fetchall()

    async def tuples(self, statement: LiteralString, **arguments: object) -> list[tuple[Any, ...]]:
        """Returns all rows as tuples of their columns; for pages of many columns, in half of the time."""
        async with self.cursor(tuple_row) as cursor:
            await cursor.execute(statement, arguments)
            return await cursor.fetchall()

    async def row(
        self, kind: MakeRow[T], statement: LiteralString, **arguments: object
    ) -> T | None:
        """Returns the first row, or None."""
        rows = await self.rows(kind, statement, **arguments)
        return rows[0] if rows else None

    async def one(self, kind: MakeRow[T], statement: LiteralString, **arguments: object) -> T:
        """Returns the row of a statement that always has one."""
        return (await self.rows(kind, statement, **arguments))[0]

    async def page(
        self,
        kind: MakeRow[RowT],
        statements: Mapping[str, LiteralString],
        noun: str,
        cursor: Cursor | None,
        limit: int,
        **arguments: object,
    ) -> Page[RowT]:
        """Returns a page of a list: by the statement `list_older_<noun>`, or `list_newer_<noun>` back from a cursor."""
        statement = statements[f"list_{'newer' if cursor and cursor.newer else 'older'}_{noun}"]
        place = {"at": cursor and cursor.at, "id": cursor and cursor.id, "limit": limit + 1}
        return page(await self.rows(kind, statement, **place, **arguments), cursor, limit)

    async def column(self, statement: LiteralString, **arguments: object) -> list[Any]:
        """Returns the first column."""
        async with self.cursor(scalar_row) as cursor:
            await cursor.execute(statement, arguments)
            return await cursor.fetchall()

    async def value(self, statement: LiteralString, **arguments: object) -> Any:
        """Returns the first column of the first row, or None."""
        column = await self.column(statement, **arguments)
        return column[0] if column else None

    async def pairs(self, statement: LiteralString, **arguments: object) -> dict[Any, Any]:
        """Returns the second column by the first."""
        async with self.cursor(tuple_row) as cursor:
            await cursor.execute(statement, arguments)
            return dict(await cursor.fetchall())

    async def run(self, statement: LiteralString, **arguments: object) -> int:
        """Runs a statement without rows; returns how many rows it changed."""
        async with self.cursor(tuple_row) as cursor:
            return (await cursor.execute(statement, arguments)).rowcount


class Session(Queries):
    """Statements on one connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    @asynccontextmanager
    async def cursor(self, rows: BaseRowFactory[T]) -> AsyncIterator[AsyncCursor[T]]:
        """Yields a cursor for one statement."""
        with expected_failures():
            async with self.connection.cursor(row_factory=rows) as cursor:
                yield cursor

    def statement(self) -> AbstractAsyncContextManager[None]:
        """Returns what surrounds a statement that is run without a cursor."""
        return nullcontext()

    @asynccontextmanager
    async def transaction(
        self, *, snapshot: bool = False, force_rollback: bool = False
    ) -> AsyncIterator[Session]:
        """Yields a transaction; with `snapshot` all its statements read one and the same (and it may not write)."""
        async with self.connection.transaction(force_rollback=force_rollback):
            if snapshot:
                await self.connection.execute(_SQL["use_snapshot"])
            yield self


class SharedSession(Session):
    """Statements through a pooler in transaction mode, which may run each transaction in another session.

    So each statement is a transaction, and each transaction sets what statements rely on.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], search_path: str | None) -> None:
        super().__init__(connection)
        self._search_path = search_path

    @asynccontextmanager
    async def cursor(self, rows: BaseRowFactory[T]) -> AsyncIterator[AsyncCursor[T]]:
        """Yields a cursor for one statement."""
        async with self.statement(), super().cursor(rows) as cursor:
            yield cursor

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[None]:
        """Opens a transaction, unless one is open."""
        if self.connection.info.transaction_status == TransactionStatus.INTRANS:
            yield
            return
        async with self.transaction():
            yield

    @asynccontextmanager
    async def transaction(
        self, *, snapshot: bool = False, force_rollback: bool = False
    ) -> AsyncIterator[Session]:
        """Yields a transaction with the settings that statements rely on."""
        async with super().transaction(snapshot=snapshot, force_rollback=force_rollback):
            await self.connection.execute(_SQL["configure_session"], _LOCAL)
            if self._search_path is not None:
                path = {"search_path": self._search_path, **_LOCAL}
                await self.connection.execute(_SQL["use_search_path"], path)
            yield self


class Database(Queries):
    """The pool of one process; each call of its own is one autocommitted statement.

    A connection is checked before it is used, but not again for `good_for` seconds. That saves half of the round trips
    of many small statements, which then have to be retried after a lost connection.

    A `steady` one runs a few statements all the time: each is prepared at its first use, and planned once. A session
    would plan it eleven times before it sees that its plan is always the same.

    `availability` is shared by all that one process opens to the same database; `search_path` is for another's tables.
    `pooler` is the address of a pooler in transaction mode, where the pool connects in place of `dsn`.

    One that is `primary` refuses connections to a standby, to which a proxy may lead just after a failover: what is
    read there may be too old.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pooler: str | None = None,
        max_size: int = 10,
        good_for: float = 0.0,
        steady: bool = False,
        availability: Availability | None = None,
        search_path: str | None = None,
        primary: bool = False,
    ) -> None:
        self.dsn = dsn
        self.pooler = pooler
        self.availability = availability or Availability(dsn, pooler)
        self._owns_availability = availability is None
        self._max_size = max_size
        self._good_for = good_for
        self._steady = steady
        self._search_path = search_path
        self._primary = primary
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
            last_address_first(self.pooler or self.dsn),
            min_size=1,
            max_size=self._max_size,
            timeout=_FREE_WITHIN,
            # It doubles its delay at each attempt; `Availability` tries several times a second instead.
            reconnect_timeout=1.0,
            kwargs={
                "autocommit": True,
                # a prepared statement is part of a session
                "prepare_threshold": None if self.pooler else 0 if self._steady else 5,
                **KEEPALIVES,
            },
            configure=self._configure,
            open=False,
            name="tocsin",
        )

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        set_json_loads(_from_json, connection)
        if self.pooler is not None:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            await connection.set_read_only(False)
            await connection.set_deferrable(False)
            return
        await connection.execute(_SQL["configure_session"], _LASTING)
        await note_session(self.dsn, connection, primary=self._primary)
        if self._steady:
            await connection.execute(_SQL["configure_generic_plans"])
        if self._search_path is not None:
            path = {"search_path": self._search_path, **_LASTING}
            await connection.execute(_SQL["use_search_path"], path)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Yields a connection for several statements, each committed by itself; raises Unavailable."""
        pool, connection = await self._connection()
        self.availability.in_use.begin(connection)
        try:
            with expected_failures():
                yield self._session_on(connection)
        except Unavailable as error:
            read_only = isinstance(error.__cause__, psycopg.errors.ReadOnlySqlTransaction)
            if connection.closed or read_only:
                self._report_lost(pool, broken=connection.closed)
            raise
        finally:
            self.availability.in_use.end(connection)
            await pool.putconn(connection)

    def _session_on(self, connection: psycopg.AsyncConnection[Any]) -> Session:
        if self.pooler is None:
            return Session(connection)
        return SharedSession(connection, self._search_path)

    async def _connection(self) -> tuple[Pool, psycopg.AsyncConnection[Any]]:
        """Returns a connection that works, and its pool."""
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
        """Returns whether a connection of the pool still works; one that doesn't goes back, to be closed."""
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
        """Replaces further broken connections of a pool: what broke one has mostly broken others too."""
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
        """Reports a lost connection, unless it is from before the last outage."""
        if pool is self._pool and self._generation == self.availability.generation:
            self.availability.report_lost(broken=broken)

    async def _current_pool(self) -> Pool:
        """Returns the pool, or a new one after an outage since it was opened."""
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
        """Yields a transaction; with `snapshot` all its statements read one and the same (and it may not write)."""
        async with self.session() as session, session.transaction(snapshot=snapshot):
            yield session

    @asynccontextmanager
    async def cursor(self, rows: BaseRowFactory[T]) -> AsyncIterator[AsyncCursor[T]]:
        """Yields a cursor for one statement."""
        async with self.session() as session, session.cursor(rows) as cursor:
            yield cursor


async def connect_directly(dsn: str) -> psycopg.AsyncConnection[Any]:
    """Returns a connection outside the pool, for LISTEN: autocommitted, and with keepalives on both ends."""
    with expected_failures():
        connection = await connect_async(dsn)
        try:
            await connection.execute(_SQL["configure_session"], _LASTING)
            await connection.execute(_SQL["configure_direct_session"])
            await note_session(dsn, connection, primary=True)
        except BaseException:
            await connection.close()
            raise
    return connection


def _row_of(kind: MakeRow[T]) -> BaseRowFactory[T]:
    """Makes structs of rows: by position where the columns are the fields in order, in a third of the time."""
    fields = [name.encode() for name in getattr(kind, "__struct_fields__", ())]
    by_position, by_name = args_row(kind), kwargs_row(kind)

    def factory(cursor: Any) -> RowMaker[T]:
        result = cursor.pgresult  # `cursor.description` would make an object of each column
        columns = [result.fname(n) for n in range(result.nfields)] if result else []
        make = by_position if columns == fields else by_name
        return make(cursor)

    return factory


def _from_json(text: str | bytes) -> Any:
    """Uses Python's decoder, which reads 1e400 too, only where the fast one fails."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json.loads(text)


@contextmanager
def expected_failures() -> Iterator[None]:
    """Raises Invalid, Conflict or Unavailable for errors of the database."""
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
        if isinstance(error, _UNAVAILABLE):
            raise Unavailable(type(error).__name__) from error
        raise
