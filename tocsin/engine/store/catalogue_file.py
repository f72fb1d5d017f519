"""Catalogue files of event types: what they may contain, and every fault with its line and its cure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, structs

from tocsin.engine.model import Channel
from tocsin.engine.text import find_fault, is_language

ChannelName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$(?!\n)")]
_CategoryName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$(?!\n)")]
_EventTypeName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$(?!\n)")]
# one line; tocsin.checked_label refuses what can't be seen too
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\S[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$(?!\n)"
_Label = Annotated[str, Meta(min_length=1, max_length=100, pattern=_LINE)]
Duration = Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}[smhd]$(?!\n)")]
ThrottleText = Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}/[1-9][0-9]{0,4}[smhd]$(?!\n)")]
Days = Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}d$(?!\n)")]
LanguageTag = Annotated[str, Meta(pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$(?!\n)")]
PluralCategory = Literal["zero", "one", "two", "few", "many", "other"]
GroupTitle = Annotated[str, Meta(min_length=1, max_length=200, pattern=_LINE)]


_LONGEST_THROTTLE = 7 * 86400  # seconds

# What is allowed, in words.
_ALLOWED: Final[dict[Any, str]] = {
    _Label: "a label is 1 to 100 characters in one line",
    Duration: 'a duration is a number up to 99999 and one of s, m, h, d, such as "3d"',
    ThrottleText
    | None: 'a throttle is a number of messages, a slash and a duration, such as "10/1h"',
    Days | None: 'a number of days up to 99999, such as "30d"',
}
_NAMES: Final = {
    "categories": "a category is lower-case letters, digits and underscores, such as shop",
    "event_types": "an event type is category.name, each of lower-case letters, digits and underscores",
}


class CatalogueError(Exception):
    """The catalogue file is wrong; a line for each error, with its position and the cure."""


class EntryDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """One event type of a catalogue file."""

    label: _Label
    channels: list[ChannelName]
    mandatory: list[ChannelName] = []
    priority: Literal["low", "normal", "high"] = "normal"
    time_to_live: Duration = "3d"
    max_attempts: Annotated[int, Meta(ge=1, le=50)] = 10
    digest: bool = True
    delay: dict[ChannelName, Duration] = {}
    skip_if_read: list[ChannelName] = []
    alone: bool = False
    mention: bool = False  # an event of a topic also reaches people who follow it for mentions only
    group: bool = True
    title_many: dict[LanguageTag, dict[PluralCategory, GroupTitle]] = {}
    throttle: ThrottleText | None = None
    unread_retention: Days | None = None


class CatalogueFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A catalogue file: categories with labels, and event types."""

    event_types: dict[_EventTypeName, EntryDefinition]
    categories: dict[_CategoryName, _Label] = {}
    replace: bool = False  # retire event types that the file does not name

    def in_order(self) -> dict[str, object]:
        """Returns lists for the database, whose objects would lose the order of the file."""
        return {
            "categories": [
                {"category": name, "label": label} for name, label in self.categories.items()
            ],
            "event_types": [
                {"event_type": name, **msgspec.to_builtins(entry)}
                for name, entry in self.event_types.items()
            ],
            "replace": self.replace,
        }


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def default_catalogue() -> CatalogueFile:
    """Returns the catalogue that a new database starts with."""
    text = (files("tocsin") / "event_types.toml").read_text(encoding="utf-8")
    return parse_catalogue(text, "event_types.toml")


def read_catalogue(path: Path) -> CatalogueFile:
    """Reads a catalogue file; raises CatalogueError with one line that names the place."""
    try:
        return parse_catalogue(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read: {error}") from error


def parse_catalogue(text: str, place: str) -> CatalogueFile:
    """Reads a catalogue's text; `place` names it in errors, which name all that is wrong, one a line."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{place}: it is not TOML: {error}") from None
    problems = list(_problems(found))
    if problems:
        raise CatalogueError("\n".join(_placed(text, place, *each) for each in problems))
    return msgspec.convert(found, CatalogueFile)


def _problems(found: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields each fault, with the keys that lead to it."""
    yield from _unknown((), found, CatalogueFile)
    if not isinstance(found.get("replace", False), bool):
        yield ("replace",), "must be true or false"
    for table, kind in (("categories", _CategoryName), ("event_types", _EventTypeName)):
        entries = found.get(table, None if table == "event_types" else {})
        if not isinstance(entries, dict):
            yield (table,), f"must be there, as a table: [{table}]"
            continue
        for name, entry in entries.items():
            if _fault(name, kind):
                yield (table, name), _NAMES[table]
            elif table == "categories":
                yield from (((table, name), fault) for fault in [_fault(entry, _Label)] if fault)
            else:
                yield from (((table, *keys), fault) for keys, fault in _entry_problems(name, entry))


def _entry_problems(name: str, entry: object) -> Iterator[tuple[tuple[str, ...], str]]:
    if not isinstance(entry, dict):
        yield (name,), 'must be a table such as { label = "Sent", channels = ["email"] }'
        return
    wrong = list(_unknown((name,), entry, EntryDefinition))
    for field in structs.fields(EntryDefinition):
        if field.name in entry:
            if fault := _fault(entry[field.name], field.type):
                wrong.append(((name, field.name), fault))
        elif field.required:
            wrong.append(((name,), f"{field.name} is required"))
    yield from wrong
    if not wrong:
        definition = msgspec.convert(entry, EntryDefinition)
        yield from (((name,), fault) for fault in _contradictions(definition))


def _contradictions(entry: EntryDefinition) -> Iterator[str]:
    """Yields contradictions between values that are valid by themselves."""
    yield from _channel_faults(entry)
    for channel in entry.mandatory:
        if channel not in entry.channels:
            yield f"{channel} is mandatory but not among its channels; add it to channels"
    for channel, delay in entry.delay.items():
        if _seconds(delay) >= _seconds(entry.time_to_live):
            yield (
                f"{channel} is delayed by {delay}, but nothing is sent after its "
                f"time_to_live of {entry.time_to_live}; make that longer"
            )
    if "in_app" in (*entry.delay, *entry.skip_if_read):
        yield "in_app is the inbox itself, and comes at once; delay another channel"
    if entry.throttle and _seconds(entry.throttle.partition("/")[2]) > _LONGEST_THROTTLE:
        yield f"a throttle of {entry.throttle} is longer than a week; use 7d at most"
    yield from _title_faults(entry)


def _channel_faults(entry: EntryDefinition) -> Iterator[str]:
    known = [each.value for each in Channel]
    named = {
        "channels": entry.channels,
        "mandatory": entry.mandatory,
        "delay": list(entry.delay),
        "skip_if_read": entry.skip_if_read,
    }
    for key, channels in named.items():
        for channel in dict.fromkeys(channels):
            if channel not in known:
                near = get_close_matches(channel[:100], known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                yield f"{key} has {channel}, which is no channel{hint}; there are {', '.join(known)}"
            if channels.count(channel) > 1:
                yield f"{key} has {channel} several times; name it once"


def _title_faults(entry: EntryDefinition) -> Iterator[str]:
    for language, forms in entry.title_many.items():
        if not is_language(language):
            yield f"title_many.{language} is no language with known plural rules; use a tag such as pt-BR"
        if "other" not in forms:
            yield f"title_many.{language} has no text for other, which is used where no plural form fits; add it"
        for category, text in forms.items():
            if fault := find_fault(text):
                yield f"title_many.{language}.{category}: {fault}"


def _unknown(
    keys: tuple[str, ...], found: dict[str, Any], known: type[Struct]
) -> Iterator[tuple[tuple[str, ...], str]]:
    names = known.__struct_fields__
    for name in found:
        if name not in names:
            near = get_close_matches(name[:100], names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield (*keys, name), f"there is no such key{hint}; there are {', '.join(names)}"


def _fault(value: object, kind: Any) -> str | None:
    """Returns what is wrong with one value, with what is allowed and the nearest to it."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        allowed = [str(each) for each in get_args(kind)] if get_origin(kind) is Literal else []
        near = get_close_matches(str(value)[:100], allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        if allowed:
            return f"{value!r:.60} is not one of {', '.join(allowed)}{hint}"
        return f"{value!r:.60} can't be used: {_ALLOWED.get(kind) or str(error).replace('`', '')}"
    return None


def _placed(text: str, place: str, keys: tuple[str, ...], fault: str) -> str:
    """Returns a fault with its file, its line where that can be found, and its key."""
    line = _line_of(text, keys)
    path = ".".join(key if re.fullmatch(r"[\w-]+", key) else f'"{key}"' for key in keys)
    return f"{place}{f':{line}' if line else ''}: {path}: {fault}."


def _line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """Returns the line of the deepest key that can be found; each is searched for below the one before."""
    at = 0
    lines = text.splitlines()
    for key in keys:
        named = re.compile(rf'(?:^|[\[{{,.\s"]){re.escape(key)}"?\s*[=\].]')
        at = (
            next((n for n in range(max(at - 1, 0), len(lines)) if named.search(lines[n])), at - 1)
            + 1
        )
    return at or None
