"""How a statement runs on the connections that apps have (psycopg, Django, SQLAlchemy, asyncpg), and what it raises.

A connection is recognised by the names of its classes, so that no framework is imported before it is used. Each error
of the client is for an SQLSTATE of class TC.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any, NoReturn, Protocol

import psycopg
from psycopg.adapt import PyFormat
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

JsonEncoder = Callable[[Any], str]


class NotifyError(psycopg.DatabaseError):
    """Tocsin refused a call; its transaction can then only be rolled back, to a savepoint or as a whole.

    A subclass of psycopg's error, with the SQLSTATE of its class. What a call with a Django connection raises is also a
    django.db.DatabaseError, with SQLAlchemy a sqlalchemy.exc.DatabaseError, with asyncpg an asyncpg.PostgresError.
    """

    def __init__(self, message: str, hint: str = "", argument: str | None = None) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint  # what to do about it
        self.argument = argument  # which one is at fault

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # for another process, which need not have the framework
        kind = ERRORS.get(self.sqlstate or "", NotifyError)
        return kind, (self.message, self.hint, self.argument)


class UnknownEventType(NotifyError):
    """The catalogue has no such event type; the hint names the nearest ones."""

    sqlstate = "TC001"


class UnknownRecipient(NotifyError):
    """There is no recipient of that id: call `upsert_recipient` first."""

    sqlstate = "TC002"


class IdempotencyConflict(NotifyError):
    """The key was used for other content."""

    sqlstate = "TC003"


class InvalidArgument(NotifyError):
    """An argument is wrong; the hint names the cure."""

    sqlstate = "TC004"


ERRORS = {
    kind.sqlstate: kind
    for kind in (UnknownEventType, UnknownRecipient, IdempotencyConflict, InvalidArgument)
}

_CURES = {
    "3F000": "Create Tocsin's schema in this database with `tocsin migrate`.",
    "42883": "Bring Tocsin's schema in this database up to date with `tocsin migrate`.",
    "42501": "Grant the role that the app connects as the right to call Tocsin: grant tocsin_app to <role>.",
}
"""What to do about errors of the database that name Tocsin and are not of class TC."""

_ABORTED = "25P02"
_ROLL_BACK = (
    "An earlier statement of this transaction failed: roll it back first. A savepoint around a statement that may fail"
    " keeps the rest."
)


def raise_refusal(error: Exception, also: type[Exception] | None) -> NoReturn:
    """Raises a driver's error of class TC as its NotifyError, which is `also` an error of the host's framework.

    Raises other errors as they are, with a note that names the cure where one is known.
    """
    for cause in _causes(error):
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        kind, parts = ERRORS.get(state or ""), _parts(cause)
        if kind and parts:
            refusal = combined(kind, also)(*parts)
            if hasattr(error, "orig"):  # as SQLAlchemy's errors have it
                vars(refusal)["orig"] = error.orig
            raise refusal from error
        cure = _CURES.get(state or "") if "tocsin" in str(cause) else None
        if state == _ABORTED:
            cure = _ROLL_BACK
        if cure:
            error.add_note(cure)
            break
    raise error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those of the driver that its framework wrapped."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _parts(error: Any) -> tuple[str, str, str | None] | None:
    """Returns message, hint and argument of an error of psycopg or asyncpg; None for a wrapper without them."""
    if diag := getattr(error, "diag", None):
        return diag.message_primary or "", diag.message_hint or "", diag.column_name
    if hasattr(error, "column_name"):
        return error.message or "", error.hint or "", error.column_name
    return None


def combined(kind: type[NotifyError], also: type[Exception] | None) -> type[NotifyError]:
    """Returns the class of errors that are of both kinds."""
    if also is None:
        return kind
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    combination: type[NotifyError] = type(kind.__name__, (kind, also), names)
    return combination


class Connection(Protocol):
    """A psycopg Connection, a Django connection, an SQLAlchemy Connection or Session."""

    def commit(self) -> None: ...


class AwaitedConnection(Protocol):
    """A psycopg AsyncConnection, an SQLAlchemy AsyncConnection or AsyncSession."""

    def commit(self) -> Awaitable[None]: ...


class AsyncpgConnection(Protocol):
    """A connection of asyncpg; not its pool, which can't hold a transaction."""

    def is_in_transaction(self) -> bool: ...


AsyncConnection = AwaitedConnection | AsyncpgConnection
AnyConnection = Connection | AsyncConnection


class Caller(ABC):
    """Runs statements on one connection, in its transaction."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    @abstractmethod
    def run(self, statement: str, arguments: tuple[Any, ...]) -> Any:
        """Returns the single value that a statement with `$1`, `$2`, … returns, or an awaitable of it."""

    def host_error(self) -> type[Exception] | None:
        """Returns the class of database errors that the app handles."""
        return None

    def host_encoder(self) -> JsonEncoder | None:
        """Returns the app's own way from a value to JSON, which raises TypeError for what it doesn't know."""
        return None

    def own(self, error: NotifyError) -> NotifyError:
        """Returns the same error as one of the app's database errors too."""
        return combined(type(error), self.host_error())(error.message, error.hint, error.argument)


class _Psycopg(Caller):
    def run(self, statement: Any, arguments: tuple[Any, ...]) -> Any:
        # A new cursor: the connection's own row factory may return anything. Arguments by number, since converting
        # named ones takes as long as all the rest.
        try:
            cursor = psycopg.RawCursor(self.conn, row_factory=tuple_row)
            return _first(cursor.execute(statement, arguments).fetchone())
        except psycopg.Error as error:
            raise_refusal(error, None)

    def host_encoder(self) -> JsonEncoder:
        dumper = self.conn.adapters.get_dumper(Jsonb, PyFormat.TEXT)(Jsonb, self.conn)
        return lambda value: bytes(dumper.dump(Jsonb(value))).decode()


class _PsycopgAsync(_Psycopg):
    async def run(self, statement: Any, arguments: tuple[Any, ...]) -> Any:
        try:
            cursor = psycopg.AsyncRawCursor(self.conn, row_factory=tuple_row)
            await cursor.execute(statement, arguments)
            return _first(await cursor.fetchone())
        except psycopg.Error as error:
            raise_refusal(error, None)


class _Django(Caller):
    """Through Django's cursor, so that its log, its execute_wrappers and tests see the call."""

    def __init__(self, conn: Any) -> None:
        super().__init__(conn)
        vendor = getattr(conn, "vendor", "no database")
        if vendor != "postgresql":
            raise _other_database("Django", vendor, 'connections["alias of the PostgreSQL one"]')

    def run(self, statement: str, arguments: tuple[Any, ...]) -> Any:
        from django.db import Error

        try:
            with self.conn.cursor() as cursor:
                cursor.execute(_with_percents(statement), arguments)
                return _first(cursor.fetchone())
        except Error as error:
            raise_refusal(error, self.host_error())

    def host_error(self) -> type[Exception]:
        from django.db import DatabaseError

        error: type[Exception] = DatabaseError
        return error

    def host_encoder(self) -> JsonEncoder:
        from django.core.serializers.json import DjangoJSONEncoder

        encoder: JsonEncoder = DjangoJSONEncoder().encode
        return encoder


class _Sqlalchemy(Caller):
    """Through SQLAlchemy's connection, so that its events and its echo see the call."""

    def __init__(self, conn: Any) -> None:
        super().__init__(conn)
        self.is_session = hasattr(conn, "get_bind")
        self.dialect = (conn.get_bind() if self.is_session else conn).dialect
        if self.dialect.name != "postgresql":
            raise _other_database(
                "SQLAlchemy", self.dialect.name, "one of the engine for PostgreSQL"
            )

    def run(self, statement: str, arguments: tuple[Any, ...]) -> Any:
        from sqlalchemy.exc import DBAPIError

        connection = self.conn.connection() if self.is_session else self.conn
        try:
            return _first(
                connection.exec_driver_sql(self.in_style(statement), arguments).fetchone()
            )
        except DBAPIError as error:
            raise_refusal(error, self.host_error())

    def in_style(self, statement: str) -> str:
        """Returns the statement with the placeholders of the driver."""
        numbered = self.dialect.paramstyle == "numeric_dollar"
        return statement if numbered else _with_percents(statement)

    def host_error(self) -> type[Exception]:
        return _sqlalchemy_error()

    def host_encoder(self) -> JsonEncoder:
        from sqlalchemy import JSON

        encoder: JsonEncoder = JSON().bind_processor(self.dialect)
        return encoder


class _SqlalchemyAsync(_Sqlalchemy):
    async def run(self, statement: str, arguments: tuple[Any, ...]) -> Any:
        from sqlalchemy.exc import DBAPIError

        connection = await self.conn.connection() if self.is_session else self.conn
        try:
            done = await connection.exec_driver_sql(self.in_style(statement), arguments)
        except DBAPIError as error:
            raise_refusal(error, self.host_error())
        return _first(done.fetchone())


class _Asyncpg(Caller):
    async def run(self, statement: str, arguments: tuple[Any, ...]) -> Any:
        from asyncpg import PostgresError

        try:
            return _first((await self.conn.fetchval(statement, *arguments),))
        except PostgresError as error:
            raise_refusal(error, self.host_error())

    def host_error(self) -> type[Exception]:
        from asyncpg import PostgresError

        error: type[Exception] = PostgresError
        return error


_CALLERS: dict[str, type[Caller]] = {
    "psycopg.Connection": _Psycopg,
    "psycopg.AsyncConnection": _PsycopgAsync,
    "django.BaseDatabaseWrapper": _Django,
    "django.ConnectionProxy": _Django,
    "sqlalchemy.Connection": _Sqlalchemy,
    "sqlalchemy.Session": _Sqlalchemy,
    "sqlalchemy.scoped_session": _Sqlalchemy,
    "sqlalchemy.AsyncConnection": _SqlalchemyAsync,
    "sqlalchemy.AsyncSession": _SqlalchemyAsync,
    "sqlalchemy.async_scoped_session": _SqlalchemyAsync,
    "asyncpg.Connection": _Asyncpg,
    "asyncpg.PoolConnectionProxy": _Asyncpg,
}

_CURES_OF_OTHERS = {
    "psycopg.BaseCursor": "Pass its connection: cursor.connection.",
    "psycopg_pool.BasePool": "Take a connection from it: with pool.connection() as conn.",
    "psycopg2.connection": "Pass a connection of psycopg 3: psycopg.connect(…).",
    "django.ConnectionHandler": 'Pass one of them: connections["default"].',
    "django.CursorWrapper": "Pass the connection: from django.db import connection.",
    "sqlalchemy.Engine": "Pass a connection of it: with engine.begin() as conn.",
    "sqlalchemy.AsyncEngine": "Pass a connection of it: async with engine.begin() as conn.",
    "sqlalchemy.sessionmaker": "Pass a session: with Session.begin() as session.",
    "sqlalchemy.async_sessionmaker": "Pass a session: async with Session.begin() as session.",
    "flask_sqlalchemy.SQLAlchemy": "Pass its session: db.session.",
    "asyncpg.Pool": "Take a connection from it: async with pool.acquire() as conn.",
    "asyncpg.Cursor": "Pass the connection that it was made from.",
    "builtins.str": "Pass an open connection: with psycopg.connect(dsn) as conn.",
    "builtins.NoneType": "Pass the connection on which the app's transaction is open.",
}
"""What apps pass in place of a connection, and the cure."""

_ANY = (
    "Pass a connection of psycopg, Django or asyncpg, or a connection or session of SQLAlchemy: "
    "the one on which the app's transaction is open."
)


def caller_for(conn: Any) -> Caller:
    """Returns what runs statements on an app's connection. Raises InvalidArgument with the cure."""
    kind_of_conn: Any = type(conn)
    names = _names(kind_of_conn)
    for name in names:
        if kind := _CALLERS.get(name):
            return kind(conn)
    cure = next((_CURES_OF_OTHERS[name] for name in names if name in _CURES_OF_OTHERS), _ANY)
    given = f"{type(conn).__module__}.{type(conn).__name__}".removeprefix("builtins.")
    raise InvalidArgument(f"conn is not a connection but {given}", cure, "conn")


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """Returns the names of a class and its bases, each with the package that it is from."""
    return tuple(f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__)


def _other_database(framework: str, vendor: str, cure: str) -> InvalidArgument:
    fault = f"conn is a {framework} connection of {vendor}, and Tocsin is in PostgreSQL"
    return InvalidArgument(fault, f"Pass {cure}.", "conn")


@cache
def _with_percents(statement: str) -> str:
    """Returns the statement with `%s` for each `$1`, `$2`, …, which it has once, in order."""
    return re.sub(r"\$\d+", "%s", statement)


@cache
def _sqlalchemy_error() -> type[Exception]:
    """Returns SQLAlchemy's error from a message alone, without the statement and without what people wrote."""
    from sqlalchemy.exc import DatabaseError

    def create(self: Any, message: str) -> None:
        DatabaseError.__init__(self, None, None, Exception(message), hide_parameters=True)
        self.args = (message,)

    return type("DatabaseError", (DatabaseError,), {"__init__": create})


def _first(row: Any) -> Any:
    # void comes as an empty text
    return None if row is None or row[0] == "" else row[0]
