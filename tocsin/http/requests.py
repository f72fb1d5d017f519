"""What handlers have in common: the services, requests into structs, structs into responses, and paths.

What is wrong with a request is named by its field, with the cure.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate, islice
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.enums import ParamType
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg
from litestar.types import Scope
from msgspec import Meta, Struct, inspect

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
from tocsin.engine.store.replica import Reads
from tocsin.engine.text import nearest
from tocsin.http.auth import ACCESS
from tocsin.http.errors import TIME_CURE, AnyRequest, Unreadable, value_fault
from tocsin.settings import Settings

T = TypeVar("T")
Moment = Annotated[datetime, Meta(tz=True)]

_PLACE = re.compile(r"^(.*?)(?: - at `(?:key` in `)?\$\.?([^`]*)`)?$", re.DOTALL)
# As signed bytes, what each bracket adds to the depth.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_NAMED = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_NUL = "has a NUL character, which can't be stored"
_DEEPEST = 64  # levels of objects and lists
_QUERY = "query"  # in a handler's opt, once it was called
_MOST_PARAMETERS = 50  # of a query
_MOST_NAMED = 20  # faults in one response
_MOST_SUGGESTED = 3  # of them with the nearest known name, which takes a while to find


class ApiRequest(Request[Any, Any, State]):
    """Litestar's request, but a JSON body is decoded as the type of the handler's `data`.

    Litestar's own would first make objects of all that it holds, and then accept "1" for 1.
    """

    async def json(self) -> Any:
        """Returns the body; raises Unreadable or Invalid."""
        kind, is_optional = _body_of(self.route_handler)
        return decode(await self.body(), kind, optional=is_optional)


def _body_of(handler: BaseRouteHandler) -> tuple[type[object], bool]:
    """Returns the type of a handler's `data`, and whether there may be none."""
    field = handler.parsed_fn_signature.parameters["data"]
    if not field.is_optional:
        return field.annotation, False
    return next(each.annotation for each in field.inner_types if not each.is_none_type), True


def decode(raw: bytes, kind: type[T], *, optional: bool = False) -> T:
    """Returns a JSON body as a `kind`; with `optional`, blanks are an empty object. Raises Unreadable or Invalid."""
    if optional and not raw.strip():
        raw = b"{}"
    # Before it is decoded: thousands of nested objects would set off full collections of garbage.
    _check_depth(raw)
    try:
        value = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(error, kind, _plain(raw)) from None
    except ValueError:
        raise Unreadable("The body is not JSON in UTF-8.") from None
    # An escape is the only way to bring a NUL in; a backslash may stand before it, so look closely only then.
    if b"\\u0000" in raw:
        _check_values(msgspec.to_builtins(value))
    return value


class _Query(Struct, frozen=True):
    """The parameters in the query that a handler takes: whether each is required, and which are times."""

    required: dict[str, bool]
    times: frozenset[str]


def _query_of(handler: BaseRouteHandler) -> _Query:
    found: _Query | None = handler.opt.get(_QUERY)
    if found is None:
        found = handler.opt[_QUERY] = _read_signature(handler)
    return found


def _read_signature(handler: BaseRouteHandler) -> _Query:
    fields = {
        name: field
        for name, field in handler.parsed_fn_signature.parameters.items()
        if not field.is_di_field
        and isinstance(field.kwarg_definition, ParameterKwarg)
        and field.kwarg_definition.param_type == ParamType.QUERY
    }
    return _Query(
        {name: field.is_required for name, field in fields.items()},
        frozenset(name for name, field in fields.items() if field.has_inner_subclass_of(datetime)),
    )


async def check_query(request: AnyRequest) -> None:
    """Called before each handler; raises Invalid for what Litestar would ignore or accept in a query.

    These are parameters that are not known or there twice, NUL characters, and numbers for times.
    """
    query = _query_of(request.route_handler)
    if not query.required:
        return
    pairs = _pairs(request.scope["query_string"].decode("latin-1"))
    values = dict(pairs)
    for name, value in pairs:
        if "\0" in value:
            raise Invalid(_NUL, (name, f"{name} {_NUL}."))
        if values[name] != value:
            raise Invalid(f"{name} is there twice", (name, "Give it once."))
    # Calls of operators have always ignored the others.
    ignores = request.route_handler.opt.get(ACCESS) == "operator"
    known = {name: each for name, each in values.items() if name in query.required}
    if wrong := _wrong_names(known if ignores else values, query.required):
        raise refused(wrong)
    for name in query.times & values.keys():
        _check_time(name, values[name])


def _check_time(name: str, value: str) -> None:
    try:
        if value[4:5] == "-":  # else it is a number
            msgspec.convert(value, Moment)
            return
    except msgspec.ValidationError:
        pass
    raise Invalid(f"{name} is no time", (name, TIME_CURE))


def _pairs(query: str) -> list[tuple[str, str]]:
    if query.count("&") >= _MOST_PARAMETERS:
        cure = f"Give at most {_MOST_PARAMETERS}."
        raise Invalid("the query has too many parameters", ("query", cure))
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise Invalid("the query is not UTF-8", ("query", "Percent-encode it in UTF-8.")) from None


def _plain(raw: bytes) -> object:
    """Returns the body as it is; what fails its struct early may not even be JSON further on."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return None
    except ValueError:
        raise Unreadable("The body is not JSON in UTF-8.") from None


def _invalid(error: msgspec.ValidationError, kind: type[object], value: object) -> Invalid:
    """Returns the unknown and missing fields of the object itself, or else the one that msgspec found."""
    fields = _fields(inspect.type_info(kind))
    wrong = _wrong_names(value, fields) if isinstance(value, dict) and fields else []
    field, message = _found(str(error), kind)
    return refused(wrong or [(_with_keys(field, kind, value), message)])


def _wrong_names(values: Mapping[str, object], fields: Mapping[str, bool]) -> list[tuple[str, str]]:
    unknown = islice((name for name in values if name not in fields), _MOST_NAMED)
    wrong = [
        (name[:100], _unknown(name, fields, suggest=at < _MOST_SUGGESTED))
        for at, name in enumerate(unknown)
    ]
    return wrong + [
        (name, f"{name} is required.")
        for name, required in fields.items()
        if required and name not in values
    ]


def refused(wrong: Sequence[tuple[str, str]]) -> Invalid:
    """Returns what is raised for fields that are at fault, each with its message."""
    names = ", ".join(field for field, _ in wrong[:5])
    return Invalid(f"{names} can't be taken as it is", *wrong[:_MOST_NAMED])


def _found(text: str, kind: type[object]) -> tuple[str, str]:
    match = _PLACE.match(text)
    message, place = (match[1], match[2] or "") if match else (text, "")
    if named := _NAMED.match(message):
        field = f"{place}.{named[2]}" if place else named[2]
        if named[1] == "missing required":
            return field, f"{field} is required."
        return field[:200], _unknown(named[2], _fields(_walk(inspect.type_info(kind), place)))
    return place or "body", value_fault(message, _walk(inspect.type_info(kind), place))


def _with_keys(place: str, kind: type[object], value: object) -> str:
    """Returns a place such as `overrides[...]` with the key, which msgspec leaves out: the first that is refused."""
    name, *steps = place.split("[...]")
    if not isinstance(value, dict):
        return place
    entries = value.get(name)
    keys: list[str] = []
    for _ in steps:
        if not isinstance(entries, dict):
            return place
        for key, inner in entries.items():
            part: object = inner
            for each in (key, *reversed(keys)):
                part = {each: part}
            if not _fits({**value, name: part}, kind):
                keys.append(key)
                entries = inner
                break
    return ".".join((name, *(key[:100] for key in keys))) + steps[-1] if steps else place


def _fits(value: object, kind: type[object]) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _unknown(name: str, fields: Mapping[str, bool], *, suggest: bool = True) -> str:
    near = nearest(name, fields) if suggest else []
    known = f"There are: {', '.join(fields)}."
    return (
        f"There is no such field; did you mean {near[0]}? {known}"
        if near
        else f"There is no such field. {known}"
    )


def _fields(info: inspect.Type) -> dict[str, bool]:
    """Returns the names of a struct's fields, and whether each is required."""
    if isinstance(info, inspect.UnionType):
        return next(filter(None, map(_fields, info.types)), {})
    if not isinstance(info, inspect.StructType):
        return {}
    return {field.encode_name: field.required for field in info.fields}


def _walk(info: inspect.Type, place: str) -> inspect.Type:
    """Returns the type at a place such as `recipients[3]`."""
    for name in place.split("."):
        if isinstance(info, inspect.StructType):
            known = {field.encode_name: field.type for field in info.fields}
            info = known.get(name.split("[")[0], info)
        if isinstance(info, inspect.UnionType):
            info = next(each for each in info.types if not isinstance(each, inspect.NoneType))
        if "[" in name and isinstance(info, inspect.CollectionType):
            info = info.item_type
    return info


def _check_depth(raw: bytes) -> None:
    """Raises Invalid where objects and lists are nested too deeply, at the field of the body; or Unreadable."""
    if _depth(raw) <= _DEEPEST:
        return
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.ValidationError, RecursionError):
        fields = {}
    except ValueError:
        raise Unreadable("The body is not JSON in UTF-8.") from None
    name = next((name for name, value in fields.items() if _depth(value) >= _DEEPEST), "body")
    cure = f"Nest objects and lists at most {_DEEPEST} levels deep."
    raise Invalid(f"{name} is nested too deeply", (name, cure))


def _depth(raw: bytes | msgspec.Raw) -> int:
    """Returns how deep objects and lists are nested; 0 where there are too few of them to be too deep."""
    text = bytes(raw)
    if count_containers(text) <= _DEEPEST:
        return 0
    without_escapes = text.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_of_strings = b"".join(without_escapes.split(b'"')[::2])
    steps = array("b", outside_of_strings.translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps), default=0)


def count_containers(raw: bytes) -> int:
    """Returns how many objects and lists there are in a body, or more: brackets in texts are counted too."""
    return raw.count(b"[") + raw.count(b"{")


def _check_values(value: Any) -> None:
    """Raises Invalid where a text has a NUL."""
    waiting = [(value, "")]
    while waiting:
        inner, place = waiting.pop()
        if isinstance(inner, str) and "\0" in inner:
            raise _nul_at(place)
        if isinstance(inner, dict | list):
            waiting += _items(inner, place)


def _items(value: dict[str, Any] | list[Any], place: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield inner, f"{place}[{index}]"
        return
    for key, inner in value.items():
        if "\0" in key:
            raise _nul_at(place)
        yield inner, f"{place}.{key}" if place else key


def _nul_at(place: str) -> Invalid:
    place = place or "body"
    return Invalid(_NUL, (place, f"{place} {_NUL}."))


class Services(Struct, frozen=True):
    """The dependency `services` of every handler."""

    settings: Settings
    database: Database
    hub: BadgeHub
    links: Links
    readiness: ReadinessCheck
    reads: Reads

    def url(self, path: str, query: dict[str, str] | None = None) -> str:
        """Returns an address of this service, as the outside sees it (also behind a proxy's path prefix)."""
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in (query or {}).items())
        return f"{self.settings.public_url or ''}{path}{'?' + pairs if pairs else ''}"


# Stands for %2F inside a segment while the path is routed; no id may have a control character.
_SLASH = "\x1f"


class PathReader:
    """Makes the path that is routed of the one that came."""

    def __init__(self, public_url: str | None) -> None:
        self._prefix = urlsplit(public_url or "").path.rstrip("/")

    def __call__(self, scope: Scope) -> str:
        """Returns the path without the prefix of the public URL, with its %2F kept apart from /."""
        path = scope["path"]
        raw = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            text = raw.split(b"?")[0].decode("latin-1")
            path = unquote(text.replace("%2F", _SLASH).replace("%2f", _SLASH), errors="replace")
        if self._prefix and path.startswith(self._prefix + "/"):
            path = path[len(self._prefix) :]
        return path


def rest(scope: Scope, route: str) -> str:
    """Returns what follows `route` in the path, but for the last slash.

    As it came, since the router would lose a doubled slash. An id in it may be percent-encoded or not.
    """
    raw = (scope.get("raw_path") or quote(scope["path"]).encode()).split(b"?")[0].decode("latin-1")
    return decoded(unquote(raw.partition(route)[2].removesuffix("/"), errors="replace"))


def relative_root(scope: Scope) -> str:
    """Returns what leads from a page to the folder it is in, reached with its last slash or without."""
    path = (scope.get("raw_path") or scope["path"].encode()).split(b"?")[0]
    return ".." if path.endswith(b"/") else "."


def decoded(segment: str) -> str:
    """Returns an id of a path, its slashes put back; what no id can have is not found."""
    if "\0" in segment:
        raise NotFound("There is nothing by that id.")
    return segment.replace(_SLASH, "/")
