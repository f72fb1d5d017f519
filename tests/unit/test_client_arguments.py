"""Each wrong argument of a call is an error with the cure, before anything is sent; what apps have is converted."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import psycopg_pool
import pytest

from tocsin import (
    InvalidArgument,
    NotifyError,
    UnknownRecipient,
    cancel,
    notify,
    upsert_recipient,
)
from tocsin.client import connections
from tocsin.client.arguments import convert
from tocsin.client.connections import raise_refusal
from tocsin.event_types import FORUM_NEW_REPLY

UID = UUID("6f1c1f0e-8a0b-4a53-9f7c-2f7f6f1c1f0e")


def given(**values: Any) -> tuple[Any, ...]:
    return convert(values, lambda: None)


class LazyString:
    """As Flask-Babel's."""

    def __str__(self) -> str:
        return "Bonjour"


class Color(Enum):
    RED = "red"


class Kind(StrEnum):
    REPLY = "forum.new_reply"


class OldKind(str, Enum):  # noqa: UP042 -- as apps have it
    REPLY = "forum.new_reply"


class Person:
    """An object of an ORM."""

    pk = id = 7


class PydanticModel:
    def model_dump(self) -> dict[str, Any]:
        return {}


@dataclass
class Post:
    title: str = ""


async def asynchronous_ids() -> AsyncIterator[str]:
    yield "alice"


FAULTS: list[tuple[str, Any, str, str]] = [
    ("recipients", None, "recipient is None", "an object that is not saved yet"),
    ("recipients", ["alice", None], "element of recipient is None", "Pass the person's id"),
    ("recipients", True, "recipient is a bool", "Pass text, an int or a UUID."),
    ("recipients", 1.5, "recipient is a float", "Pass text, an int or a UUID."),
    ("recipients", b"alice", "recipient is a bytes", "value.decode()"),
    ("recipients", {"id": "alice", "email": "a@b.example"}, "is a dict", "upsert_recipient()"),
    ("recipients", [{"id": "alice"}], "is a dict", "upsert_recipient()"),
    ("recipients", Person(), "recipient is a Person", "user.pk"),
    ("recipients", [Person()], "is a Person", "user.pk"),
    ("recipients", [("alice",)], "is a tuple", "values_list(…, flat=True)"),
    ("recipients", asynchronous_ids(), "is an async_generator", "[id async for id in …]"),
    ("recipients", Person, "recipient is a type", "Pass"),
    ("recipients", Color.RED, "recipient is a Color", "value.value"),
    ("recipients", "al\0ice", "recipient has a NUL", "Remove it"),
    ("recipient", None, "recipient is None", "Pass the person's id"),
    ("id", Person(), "id is a Person", "user.pk"),
    ("initiator", Person(), "initiator is a Person", "user.pk"),
    ("title", 12, "title is an int", "str(…)"),
    ("title", b"Hello", "title is a bytes", "value.decode()"),
    ("title", ["Hello"], "title is a list", "Pass text"),
    ("title", "Hel\0lo", "title has a NUL", "Remove it"),
    ("event_type", Color.RED, "event_type is a Color", "value.value"),
    ("action_url", Path("/forums/7"), "action_url is a PosixPath", "str(…)"),
    ("send_at", datetime(2030, 1, 1), "send_at has no time zone", "datetime.now(UTC)"),  # noqa: DTZ001
    ("send_at", date(2030, 1, 1), "send_at is a date", "datetime.combine"),
    ("send_at", "2030-01-01", "send_at is a str", "datetime.fromisoformat"),
    ("send_at", 1_900_000_000, "send_at is an int", "datetime.fromtimestamp"),
    ("send_at", timedelta(days=1), "send_at is a timedelta", "datetime.now(UTC) + …"),
    ("metadata", '{"a": 1}', "metadata is a str", "json.loads"),
    ("metadata", [1], "metadata is a list", "Pass a dict"),
    ("metadata", PydanticModel(), "metadata is a PydanticModel", 'model_dump(mode="json")'),
    ("metadata", Post(), "metadata is a Post", "dataclasses.asdict"),
    ("metadata", {"who": Person()}, "has a Person in it", "Pass text, numbers"),
    ("metadata", {"n": float("nan")}, "can't be written as JSON", "Pass text, numbers"),
    ("metadata", {(1, 2): 3}, "can't be written as JSON", "text as keys"),
    ("metadata", {"a": "\0"}, "metadata has a NUL", "Remove it"),
    ("event_id", "12", "event_id is a str", "int(…)"),
    ("event_id", None, "event_id is None", "notify() returned"),
    ("event_id", True, "event_id is a bool", "notify() returned"),
    ("event_id", 2**63, "there is no event", "notify() returned"),
    ("subscribe_initiator", "yes", "subscribe_initiator is a str", "True or False"),
]


@pytest.mark.parametrize(
    ("name", "value", "fault", "cure"), FAULTS, ids=[f"{n}-{f}" for n, _, f, _ in FAULTS]
)
def test_a_wrong_argument_is_an_error_with_its_cure(
    name: str, value: Any, fault: str, cure: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        given(**{name: value})
    assert fault in raised.value.message
    assert cure in raised.value.hint
    assert raised.value.hint.endswith(".")
    assert raised.value.argument == name.replace("recipients", "recipient")


def test_ids_may_be_text_numbers_and_uuids_in_any_iterable() -> None:
    ids = ["7", "alice", str(UID)]
    for one in ([7, "alice", UID], (7, "alice", UID), (i for i in (7, "alice", UID))):
        assert given(recipients=one) == (ids,)
    assert sorted(given(recipients={7, "alice", UID})[0]) == sorted(ids)
    assert given(recipients=dict.fromkeys((7, UID)).keys()) == (["7", str(UID)],)
    assert given(recipients=[]) == ([],)
    assert given(recipients=7, initiator=UID) == ("7", str(UID))


def test_lazy_strings_and_enums_of_text_are_text() -> None:
    assert given(title=LazyString(), event_type=Kind.REPLY) == ("Bonjour", "forum.new_reply")
    assert given(event_type=OldKind.REPLY) == ("forum.new_reply",)
    assert type(given(event_type=OldKind.REPLY)[0]) is str


def test_metadata_may_have_what_json_does_not_know() -> None:
    at = datetime(2026, 11, 30, 9, tzinfo=UTC)
    have = {"at": at, "on": at.date(), "t": time(9), "id": UID, "sum": Decimal("1.50")}
    more = {"color": Color.RED, "kind": Kind.REPLY, "text": LazyString()}
    (text,) = given(metadata=have | more)
    assert text == (
        '{"at": "2026-11-30T09:00:00+00:00", "on": "2026-11-30", "t": "09:00:00",'
        f' "id": "{UID}", "sum": "1.50", "color": "red", "kind": "forum.new_reply", "text": "Bonjour"}}'
    )
    assert given(metadata=None) == given(metadata={}) == ("{}",)


def test_the_encoder_of_the_host_is_asked_first() -> None:
    def of_host(value: Any) -> str:
        if "sum" in value:
            raise TypeError
        return '{"by": "the host"}'

    assert convert({"metadata": {"a": 1}}, lambda: of_host) == ('{"by": "the host"}',)
    assert convert({"metadata": {"sum": Decimal(1)}}, lambda: of_host) == ('{"sum": "1"}',)
    with pytest.raises(InvalidArgument, match="NaN"):
        convert({"metadata": {"a": 1}}, lambda: lambda _: '{"a": NaN}')


class _Named:
    """Makes objects of a class with that name in that package, as if they were its."""

    @staticmethod
    def make(module: str, name: str, **names: Any) -> Any:
        return type(name, (), {"__module__": module, **names})()


CONNECTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: "postgresql://app@127.0.0.1/app", "psycopg.connect(dsn)"),
    (lambda: None, "the app's transaction is open"),
    (object, "a connection of psycopg, Django or asyncpg"),
    (lambda: psycopg_pool.ConnectionPool("", open=False), "pool.connection()"),
    (lambda: psycopg.Cursor.__new__(psycopg.Cursor), "cursor.connection"),
    (lambda: _Named.make("sqlalchemy.engine.base", "Engine"), "engine.begin()"),
    (lambda: _Named.make("sqlalchemy.ext.asyncio.engine", "AsyncEngine"), "async with engine"),
    (lambda: _Named.make("sqlalchemy.orm.session", "sessionmaker"), "Session.begin()"),
    (lambda: _Named.make("flask_sqlalchemy.extension", "SQLAlchemy"), "db.session"),
    (lambda: _Named.make("asyncpg.pool", "Pool"), "pool.acquire()"),
    (lambda: _Named.make("psycopg2.extensions", "connection"), "psycopg 3"),
    (lambda: _Named.make("django.db.utils", "ConnectionHandler"), 'connections["default"]'),
    (lambda: _Named.make("django.db.backends.utils", "CursorWrapper"), "import connection"),
    (
        lambda: _Named.make("django.db.backends.base.base", "BaseDatabaseWrapper", vendor="sqlite"),
        "alias of the PostgreSQL one",
    ),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("make", "cure"), CONNECTIONS, ids=[cure for _, cure in CONNECTIONS])
def test_what_is_no_connection_is_an_error_with_its_cure(
    make: Callable[[], Any], cure: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        notify(make(), recipient="alice", event_type=FORUM_NEW_REPLY, title="A")
    assert raised.value.argument == "conn"
    assert cure in raised.value.hint


def test_a_forgotten_await_is_named() -> None:
    async def event_id() -> int:
        return 1

    pending = event_id()
    with pytest.raises(InvalidArgument, match="Await it first"):
        given(event_id=pending)
    asyncio.run(pending)


def test_an_unknown_argument_is_named_where_another_one_is_missing() -> None:
    expected = r"notify\(\) has no argument 'recipients'; there is: recipient"
    with pytest.raises(TypeError, match=expected):
        notify(None, recipients=["a"], event_type="b", title="c")  # type: ignore[call-overload]


def test_an_unknown_option_names_the_near_one() -> None:
    with pytest.raises(TypeError, match=r"notify\(\) has no argument 'bdoy'; there is: body"):
        notify(None, recipient="a", event_type="b", title="c", bdoy="")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("call", "usage"),
    [
        (
            lambda: notify(None, "alice", "forum.new_reply", "A"),  # type: ignore[call-overload]
            "notify(conn, recipient=…, event_type=…, title=…, …)",
        ),
        (
            lambda: notify(None, recipients=["a"], event_type="b", title="c"),  # type: ignore[call-overload]
            "notify(conn, recipient=…, event_type=…, title=…, …)",
        ),
        (lambda: cancel(None), "cancel(conn, event_id)"),  # type: ignore[call-overload]
        (
            lambda: upsert_recipient(None, "alice", "alice@example.com"),  # type: ignore[call-overload]
            "upsert_recipient(conn, id, email=…, name=…, locale=…, timezone=…, avatar_url=…)",
        ),
    ],
)
def test_arguments_that_do_not_fit_have_a_note_with_those_that_do(
    call: Callable[[], object], usage: str
) -> None:
    with pytest.raises(TypeError) as raised:
        call()
    assert raised.value.__notes__ == [f"Call it as {usage}."]


def test_errors_can_be_pickled() -> None:
    class HostError(Exception):
        pass

    own = connections.Caller.own
    host = type("Host", (), {"host_error": lambda self: HostError})()
    error = own(host, UnknownRecipient("unknown recipient 'x'", "Create them.", "recipients"))
    assert isinstance(error, HostError)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is UnknownRecipient
    assert (copy.message, copy.hint, copy.argument) == (error.message, error.hint, "recipients")
    assert str(copy) == "unknown recipient 'x'. Create them."


def test_a_missing_schema_or_right_is_noted_with_its_cure() -> None:
    for error, cure in (
        (psycopg.errors.InvalidSchemaName('schema "tocsin" does not exist'), "tocsin migrate"),
        (psycopg.errors.InsufficientPrivilege("… for schema tocsin"), "grant tocsin_app to"),
        (psycopg.errors.InFailedSqlTransaction("current transaction is aborted"), "roll it back"),
    ):
        with pytest.raises(psycopg.Error) as raised:
            raise_refusal(error, None)
        assert raised.value is error
        assert cure in error.__notes__[0]


def test_an_argument_of_the_client_is_an_error_of_the_host_too() -> None:
    assert issubclass(NotifyError, psycopg.DatabaseError)
    with pytest.raises(psycopg.DatabaseError):
        cancel(None, 1)  # type: ignore[call-overload]
