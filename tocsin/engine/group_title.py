"""The title of several notifications as one: "Alice and 4 others replied to 'Spring Formal Planning'".

An event type has its texts in `title_many`: `{language: {plural category of CLDR: text}}`. docs/event-types.md has the
placeholders. Used wherever several notifications of one type and subject are shown in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from unicodedata import bidirectional

from babel import Locale, UnknownLocaleError
from msgspec import Struct

TitleMany = Mapping[str, Mapping[str, str]]

PLACEHOLDERS: Final = ("initiator", "others", "count", "about", "title")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
# English, German, French, and single ones
_QUOTED = re.compile(
    r"\u201c([^\u201c\u201d]+)\u201d|\u201e([^\u201c-\u201e]+)[\u201c\u201d]|\u00ab\s?([^\u00ab\u00bb]+?)\s?\u00bb"
    r"|\u2018([^\u2018\u2019]+)\u2019|\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)"
)
_LONGEST_ABOUT = 120  # characters
_ENGLISH = "en"


class GroupFacts(Struct, frozen=True):
    """What a title of several notifications is made of."""

    count: int
    title: str  # of the newest one, in the person's language
    initiator: str | None = None  # name of the person who caused the newest one
    others: int = 0  # other people who caused one of them
    about: str | None = None  # of the newest one's metadata
    capped: bool = False  # there are more than was counted


def group_title(title_many: TitleMany | None, locale: str | None, facts: GroupFacts) -> str:
    """Returns the title of a group in the language of the locale; the newest one's where no text fits."""
    if facts.count < 2 or not title_many:
        return facts.title
    language = _language(title_many, locale)
    if language is None:
        return facts.title
    forms = title_many[language]
    by_people = "{others}" in forms["other"]
    if by_people and facts.others < 1:
        return facts.title
    if not by_people and "{initiator}" in forms["other"] and facts.others > 0:
        return facts.title  # it would name one of several people
    number = facts.others if by_people else facts.count
    text = forms.get(plural_category(language, number), forms["other"])
    return _filled(text, _values(facts)) or facts.title


def about_of(metadata: Mapping[str, Any]) -> str | None:
    """Returns the name of the thing that a notification is about, where its metadata has one."""
    about = metadata.get("about")
    return about if isinstance(about, str) and about.strip() else None


@lru_cache(maxsize=256)
def plural_category(language: str, number: int) -> str:
    """Returns the plural category of a number: `few` for 3 in Arabic. `other` for an unknown language."""
    try:
        return str(Locale.parse(language, sep="-").plural_form(number))
    except (UnknownLocaleError, ValueError):
        return "other"


def is_language(tag: str) -> bool:
    """Returns whether the plural rules of the language are known."""
    try:
        Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return False
    return True


def find_fault(text: str) -> str | None:
    """Returns what is wrong with a text of `title_many`, with the cure; None if nothing is."""
    unknown = [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]
    if unknown:
        names = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        return f"{{{unknown[0]}}} is no placeholder; there are {names}"
    if set(_PLACEHOLDER.sub("", text)) & set("{}"):
        return "a brace is not part of a placeholder such as {count}"
    if set(_OPTIONAL.sub("", text)) & set("[]"):
        return "a bracket has no counterpart, or is inside another pair"
    return None


def _language(title_many: TitleMany, locale: str | None) -> str | None:
    """Returns the key of the longest prefix of the locale, or English."""
    keys = {key.lower(): key for key in title_many}
    parts = re.split("[-_.@]", (locale or _ENGLISH).lower())
    for length in range(len(parts), 0, -1):
        if (key := keys.get("-".join(parts[:length]))) is not None:
            return key
    return keys.get(_ENGLISH)


def _values(facts: GroupFacts) -> dict[str, str | None]:
    more = "+" if facts.capped else ""
    return {
        "initiator": facts.initiator,
        "others": f"{facts.others}{more}",
        "count": f"{facts.count}{more}",
        "about": (facts.about or _quoted(facts.title) or "")[:_LONGEST_ABOUT] or None,
        "title": facts.title,
    }


def _quoted(title: str) -> str | None:
    found = _QUOTED.search(title)
    return next(filter(None, found.groups()), None) if found else None


def _filled(text: str, values: Mapping[str, str | None]) -> str | None:
    """Fills in the placeholders; None where one outside brackets has no value."""

    def has_all(part: str) -> bool:
        return all(values[name] for name in _PLACEHOLDER.findall(part))

    whole = _OPTIONAL.sub(lambda found: found[1] if has_all(found[1]) else "", text)
    if not has_all(whole):
        return None
    right_to_left = any(bidirectional(letter) in ("R", "AL") for letter in text)
    return _PLACEHOLDER.sub(
        lambda found: _isolated(values[found[1]] or "", right_to_left=right_to_left), whole
    )


def _isolated(value: str, *, right_to_left: bool) -> str:
    """Returns a value for a sentence of a direction; between Unicode's FSI and PDI where its own is another."""
    other = ("L",) if right_to_left else ("R", "AL")
    differs = any(bidirectional(letter) in other for letter in value)
    return f"\u2068{value}\u2069" if differs else value
