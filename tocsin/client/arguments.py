"""What the SQL functions take, from what apps have: ids of any kind, lazy strings, metadata that JSON doesn't know."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, Protocol
from uuid import UUID

from tocsin.client.connections import InvalidArgument, JsonEncoder

Converter = Callable[[str, Any], Any]


class LazyText(Protocol):
    """A string that is made when it is read, such as Django's gettext_lazy()."""

    def __str__(self) -> str: ...
    def casefold(self) -> str: ...


Text = str | LazyText
RecipientId = str | int | UUID
Metadata = Mapping[str, Any]

_BYTES = (bytes, bytearray, memoryview)
_LAZY = {"Promise", "LazyString", "LazyProxy"}
"""Classes of lazy strings: of Django, of Flask-Babel and WTForms, of Babel."""


def convert(
    values: Mapping[str, Any], encoder: Callable[[], JsonEncoder | None]
) -> tuple[Any, ...]:
    """Returns the arguments of a function by their names, as the database takes them, in the same order.

    `encoder` returns the host's JSON encoder. Raises InvalidArgument with the cure.
    """
    converted: list[Any] = []
    for name, value in values.items():
        if type(value) is str and name not in _NEVER_TEXT and "\0" not in value:
            converted.append(value)  # most arguments are, and need no call
        elif name == "metadata":
            converted.append("{}" if value is None else _encoded(name, value, encoder))
        elif name in ("content", "actions"):
            converted.append(None if value is None else _encoded(name, value, encoder))
        else:
            converter: Converter = _CONVERTERS.get(name, _text)
            converted.append(converter(name, value))
    return tuple(converted)


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        if not _is_lazy(value):
            raise _wrong(name, value, f"Pass text{_cure_of_text(value)}.")
        value = str(value)
    if "\0" in value:
        raise InvalidArgument(
            f"{name} has a NUL character", "Remove it: PostgreSQL can't store it.", name
        )
    # of a class such as SafeString or an Enum, which str() would show by its name
    return str.__str__(value)


def _id(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str) or _is_lazy(value):
        return _text(name, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))  # an IntEnum too
    if isinstance(value, UUID):
        return str(value)
    raise _wrong(name, value, _cure_of_id(value))


def recipient_id(name: str, value: Any) -> str:
    """Returns a person's id as text. Raises InvalidArgument with the cure; `name` is the argument's."""
    found = _id(name, value)
    if found is None:
        raise _wrong(
            name, value, "Pass the person's id; an object that is not saved yet may have none."
        )
    return found


def _recipients(name: str, value: Any) -> str | list[str]:
    """Returns the ids, of which there may be one or many."""
    if isinstance(value, str) or _is_lazy(value):
        return recipient_id(name, value)
    # a QuerySet of Django's is both
    if isinstance(value, AsyncIterable) and not isinstance(value, Iterable):
        raise _wrong(name, value, "Read it first: [id async for id in …].")
    if not isinstance(value, Iterable) or isinstance(value, (*_BYTES, Mapping, type)):
        return recipient_id(name, value)
    return [recipient_id(f"an element of {name}", one) for one in value]


def _moment(name: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        cure = {
            "str": "datetime.fromisoformat(…)",
            "int": "datetime.fromtimestamp(…, UTC)",
            "float": "datetime.fromtimestamp(…, UTC)",
            "date": "datetime.combine(…, time(9), tzinfo=UTC)",
            "timedelta": "datetime.now(UTC) + …",
        }.get(type(value).__name__, "an aware datetime such as datetime.now(UTC)")
        raise _wrong(name, value, f"Pass {cure}.")
    if value.utcoffset() is None:
        raise InvalidArgument(
            f"{name} has no time zone",
            "Pass an aware datetime such as datetime.now(UTC), or in Django make_aware(…).",
            name,
        )
    return value


def _number(name: str, value: Any) -> int:
    if isinstance(value, Awaitable):
        raise _wrong(name, value, "Await it first.")
    if isinstance(value, bool) or not isinstance(value, int):
        cure = "Pass int(…) of it." if isinstance(value, str) else "Pass what notify() returned."
        raise _wrong(name, value, cure)
    if not -(2**63) <= value < 2**63:
        raise InvalidArgument(f"there is no event {value}", "Pass what notify() returned.", name)
    return int(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "Pass True or False.")
    return value


_CONVERTERS: dict[str, Converter] = {
    "recipients": lambda _, value: _recipients("recipient", value),
    "recipient": recipient_id,
    "id": recipient_id,
    "initiator": _id,
    "idempotency_key": _id,
    "send_at": _moment,
    "event_id": _number,
    "subscribe_initiator": _boolean,
    "replaces": _boolean,
}
"""By the names of arguments; all others are text."""

_NEVER_TEXT = {
    *("metadata", "content", "actions"),
    *("send_at", "event_id", "subscribe_initiator", "replaces"),
}


def _encoded(name: str, value: Any, encoder: Callable[[], JsonEncoder | None]) -> str:
    if name == "actions":
        if not isinstance(value, (list, tuple)):
            raise _wrong(name, value, 'Pass [{"key": "accept", "label": "Accept"}].')
        value = list(value)
    elif not isinstance(value, Mapping):
        raise _wrong(name, value, _cure_of_object(value))
    else:
        value = dict(value)
        if not value:
            return "{}"
    try:
        text = _with_host(value, encoder())
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{name} can't be written as JSON: {error}",
            "Pass text, numbers, booleans, None, lists, dicts with text as keys, dates, UUIDs, Decimals and Enums.",
            name,
        ) from error
    if r"\u0000" in text:
        raise InvalidArgument(
            f"{name} has a NUL character", "Remove it: PostgreSQL can't store it.", name
        )
    return text


def _with_host(value: dict[str, Any] | list[Any], encoder: JsonEncoder | None) -> str:
    """Returns the JSON of the host's encoder, which knows the types of the host; else of our own."""
    if encoder is not None:
        try:
            text = encoder(value)
        except TypeError:
            pass
        else:
            if "NaN" in text or "Infinity" in text:
                json.loads(text, parse_constant=_refuse_constant)
            return text
    return json.dumps(value, default=_plain, allow_nan=False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number there")


def _plain(value: Any) -> Any:
    """Returns what Python's encoder doesn't know, as something that it knows."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (UUID, Decimal)) or _is_lazy(value):
        return str(value)
    raise TypeError(f"it has {_kind(value)} in it")


def _is_lazy(value: Any) -> bool:
    kind: Any = type(value)
    return _is_lazy_class(kind)


@cache
def _is_lazy_class(kind: type[Any]) -> bool:
    return any(base.__name__ in _LAZY for base in kind.__mro__)


def _wrong(name: str, value: Any, cure: str) -> InvalidArgument:
    return InvalidArgument(f"{name} is {_kind(value)}", cure, name.removeprefix("an element of "))


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _cure_of_text(value: Any) -> str:
    if isinstance(value, _BYTES):
        return ": value.decode()"
    if isinstance(value, Enum):
        return ": value.value"
    return ", such as str(…) of it"


def _cure_of_id(value: Any) -> str:
    if isinstance(value, _BYTES):
        return "Pass text: value.decode()."
    if isinstance(value, Mapping):
        return "Pass the ids alone; upsert_recipient() creates people, with their address and name."
    if isinstance(value, Enum):
        return "Pass value.value."
    if isinstance(value, tuple):
        return "Pass row[0]; in Django values_list(…, flat=True), in SQLAlchemy scalars()."
    # an object of an ORM, even behind a proxy such as Django's request.user
    for field in ("pk", "id"):
        if hasattr(value, field):
            return f"Pass its id: user.{field}."
    return "Pass text, an int or a UUID."


def _cure_of_object(value: Any) -> str:
    if isinstance(value, (str, bytes)):
        return "Pass a dict, not its JSON: json.loads(…)."
    if hasattr(value, "model_dump"):
        return 'Pass value.model_dump(mode="json").'
    if hasattr(value, "__dataclass_fields__"):
        return "Pass dataclasses.asdict(…)."
    return 'Pass a dict such as {"post_id": 12}.'
