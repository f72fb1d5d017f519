"""What mails have in common, rendered once: precompiled mails with placeholders for each mail's own values.

Rendering is the most expensive part of a mail, and most of its output is the same for all readers. So the templates
are rendered once with placeholders in place of the values (sandbox.py), and a mail is the pieces between the
placeholders, with its own values escaped. Each precompiled mail is tested before it is used: filled with values that
no escaping leaves unchanged, it has to equal what the templates themselves write of these values.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape
from msgspec import Struct

from tocsin.engine.mail.context import with_defaults
from tocsin.engine.mail.loader import Templates, names_of
from tocsin.engine.mail.sandbox import NotPrecompilable, Placeholder, precompiling
from tocsin.engine.model import Claimed

_KEPT = 128  # precompiled mails of one service
_AFTER = 3  # mails of a kind: precompiling takes as long as two mails
_LARGEST = 50_000  # characters: large mails are seldom sent to many

# different for each person
_PERSONAL = ("name", "open_url", "actions_url", "unsubscribe_url", "mute_url")
_OF_THE_EVENT = ("title", "text", "body_html", "initiator", "because")  # different for each event
# Of these a template may make anything, so they can't be used in what is precompiled for many events.
_UNUSABLE = ("metadata", "created_at")
_OF_THE_WORDS = ("subject", "preheader")  # set by words.txt, which may use what is the event's

ValueKey = str | tuple[int, int]  # a name in the context, or a line of its paragraphs
Context = Mapping[str, Any]


class PrecompiledPart(Struct, frozen=True):
    """The text or the HTML of a mail: piece, value, piece, value, …, piece."""

    pieces: tuple[str, ...]
    placeholders: tuple[tuple[ValueKey, bool], ...]  # whose value, and whether it is escaped there

    def values(self, context: Context) -> list[str]:
        """Returns the values of one mail."""
        paragraphs = context["paragraphs"]
        found: list[str] = []
        for key, escaped in self.placeholders:
            value = context[key] if type(key) is str else paragraphs[key[0]][key[1]]
            found.append(str(escape(value)) if escaped else str(value))
        return found

    def filled(self, values: Sequence[str]) -> str:
        """Returns the whole text."""
        woven = [""] * (2 * len(values) + 1)
        woven[::2] = self.pieces
        woven[1::2] = values
        return "".join(woven)


class PrecompiledMail(Struct, frozen=True):
    """All mails of one kind."""

    words: dict[str, Any]  # set by its words.txt
    text: PrecompiledPart
    html: PrecompiledPart


class PrecompiledMails:
    """The precompiled mails of one service, the last used kept."""

    def __init__(self) -> None:
        # how many mails came before it was precompiled; None: its templates can't be
        self._found: OrderedDict[Hashable, PrecompiledMail | int | None] = OrderedDict()

    def get(
        self, claimed: Claimed, context: Context, templates: Templates
    ) -> PrecompiledMail | None:
        """Returns that for this mail; None if its templates have to be rendered for it alone.

        Most mails of an event type share one. Where templates do more than to write the event's values, the mails of
        one event share one.
        """
        templates.reload_if_changed()
        kind = (templates.loaded_version, *_kind(claimed, context))
        found = self._get(kind, lambda: _precompile(context, templates, one_event=False))
        if found is not None or self._found[kind] is not None:
            return found
        event = (kind, _event(context))
        return self._get(event, lambda: _precompile(context, templates, one_event=True))

    def _get(
        self, key: Hashable, precompile: Callable[[], PrecompiledMail]
    ) -> PrecompiledMail | None:
        found = self._found.get(key, 0)
        if isinstance(found, int):
            found = found + 1 if found + 1 < _AFTER else _or_none(precompile)
            self._found[key] = found
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return found if isinstance(found, PrecompiledMail) else None


def _or_none(precompile: Callable[[], PrecompiledMail]) -> PrecompiledMail | None:
    try:
        return precompile()
    except Exception:  # noqa: BLE001 - a template that fails does so again when it is rendered
        return None


def _kind(claimed: Claimed, context: Context) -> tuple[Hashable, ...]:
    """Returns all that templates may read except for the placeholders."""
    return (
        claimed.event_type,
        claimed.locale,
        claimed.timezone,
        claimed.zone,
        context["category"],
        context["label"],
        context["service"],
        context["why"],
        context["mandatory"],
        context["invited"],
        *(tuple(action.values()) for action in context["actions"]),
        *(bool(context[key]) for key in (*_PERSONAL, *_OF_THE_EVENT, *_UNUSABLE)),
        *map(len, context["paragraphs"]),
    )


def _event(context: Context) -> Hashable:
    values = (context[key] for key in _OF_THE_EVENT)
    return (*values, repr(context["metadata"]), context["created_at"])


def _precompile(context: Context, templates: Templates, *, one_event: bool) -> PrecompiledMail:
    """Precompiles mails like this one; raises NotPrecompilable, and what the templates raise."""
    event_type = context["event_type"]
    keys = _PERSONAL if one_event else (*_PERSONAL, *_OF_THE_EVENT)
    placeholders = _Placeholders()
    replaced = placeholders.replace(context, keys, () if one_event else _UNUSABLE)
    if not one_event:
        replaced["paragraphs"] = placeholders.of_lines(context["paragraphs"])
    with precompiling(placeholders.start):
        words = templates.variables(names_of(event_type, "words.txt"), replaced)
    if not _is_plain(words):
        raise NotPrecompilable
    worded = with_defaults(words, context)
    replaced |= worded
    if not one_event:
        replaced |= {key: placeholders.add(key) for key in _OF_THE_WORDS}
        keys = (*keys, *_OF_THE_WORDS)
    test_values = _with_test_values({**context, **worded}, keys, lines=not one_event)
    text, html = (
        _part(placeholders, templates, names_of(event_type, part), replaced, test_values)
        for part in ("txt", "html")
    )
    return PrecompiledMail(words, text, html)


def _part(
    placeholders: _Placeholders,
    templates: Templates,
    names: Sequence[str],
    replaced: Context,
    test_values: Context,
) -> PrecompiledPart:
    """Precompiles one part, and tests it."""
    with precompiling(placeholders.start):
        part = placeholders.split(templates.render(names, replaced))
    if part.filled(part.values(test_values)) != templates.render(names, test_values):
        raise NotPrecompilable
    return part


def _is_plain(words: object) -> bool:
    """Returns whether there is no placeholder in it, nor a value of a kind that could hold one."""
    if isinstance(words, Mapping):
        return all(map(_is_plain, words.values()))
    if isinstance(words, list | tuple):
        return all(map(_is_plain, words))
    return words is None or isinstance(words, str | int | float)


class _Placeholders:
    """Those of one precompiled mail."""

    def __init__(self) -> None:
        self.start = f"\ue000{secrets.token_hex(8)}:"
        self._keys: list[ValueKey] = []
        self._mark = re.compile(f"{self.start}(\\d+)([ew])\ue001")

    def add(self, key: ValueKey) -> Placeholder:
        """Makes one more."""
        self._keys.append(key)
        return Placeholder(f"{self.start}{len(self._keys) - 1}")

    def replace(
        self, context: Context, keys: Sequence[str], unusable: Sequence[str]
    ) -> dict[str, Any]:
        """Returns the context with placeholders for those of its values that are not empty."""
        replaced = dict(context)
        replaced |= {key: self.add(key) for key in keys if context[key]}
        return replaced | {key: Placeholder(None) for key in unusable if context[key]}

    def of_lines(self, paragraphs: Sequence[Sequence[str]]) -> list[list[Placeholder]]:
        """Returns placeholders for the lines of a body."""
        return [[self.add((i, j)) for j in range(len(each))] for i, each in enumerate(paragraphs)]

    def split(self, written: str) -> PrecompiledPart:
        """Splits what was rendered with the placeholders; raises NotPrecompilable."""
        if len(written) > _LARGEST:
            raise NotPrecompilable
        pieces = self._mark.split(written)
        if any(self.start in piece for piece in pieces[::3]):
            raise NotPrecompilable
        marks = zip(pieces[1::3], pieces[2::3], strict=True)
        return PrecompiledPart(
            tuple(pieces[::3]),
            tuple((self._keys[int(number)], how == "e") for number, how in marks),
        )


def _with_test_values(context: Context, keys: Sequence[str], *, lines: bool) -> dict[str, Any]:
    """Returns the context with values that come out right only if each is escaped as often as the template does."""
    replaced = dict(context)
    for number, key in enumerate(keys):
        if context[key]:
            value = _test_value(number)
            replaced[key] = Markup(value) if isinstance(context[key], Markup) else value  # noqa: S704
    if lines:
        replaced["paragraphs"] = [
            [_test_value(100 * i + j) for j in range(len(each))]
            for i, each in enumerate(context["paragraphs"], 1)
        ]
    return replaced


def _test_value(number: int) -> str:
    return f" Te{number}öst & <{number}> \"'&amp; "
