"""Text from apps: which addresses are safe links, text cut to a size, HTML reduced to a safe set, and group titles."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from html.parser import HTMLParser
from itertools import accumulate
from typing import Any, Final
from unicodedata import bidirectional

import msgspec
import nh3
import regex
from babel import Locale, UnknownLocaleError
from msgspec import Struct

# Safe links: the rule of `tocsin.is_web_address` (sql/functions/check.sql), for links in HTML.

MOST_CHARACTERS = 2_000

# Backslashes, white space, control characters, marks of direction.
_REFUSED = re.compile(
    r"[\\\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u200e\u200f\u2028-\u202f\u205f\u2066-\u2069\u3000\ufeff]"
)
_PATH = re.compile(r"/(?!/)")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#:]+)(?::([0-9]{1,5}))?(?=[/?#]|\Z)")
_HOST = re.compile(
    r"[A-Za-z0-9_.\u00c0-\u02d7\u02de-\u034e\u0350-\u061b\u061d-\u115e\u1161-\u167f\u1681-\u17b3"
    r"\u17b6-\u180a\u1810-\u1fff\u2c00-\u2fff\u3005-\u3163\u3165-\ud7ff\uf900-\ufaff\U00010000-\U0003ffff-]+"
)
_EMPTY_LABEL = re.compile(r"\A\.|\.\.")
_NUMBER_LAST = re.compile(r"(?:\A|\.)[0-9]+\.?\Z")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?:\.|\Z)){4}")


def is_web_address(address: str) -> bool:
    """Returns whether it is a path on the app's own host, or an http(s) address that all browsers read alike."""
    if len(address) > MOST_CHARACTERS or _REFUSED.search(address):
        return False
    if _PATH.match(address):
        return True
    found = _ABSOLUTE.match(address)
    if found is None or not 1 <= int(found[2] or 1) <= 65535:
        return False
    host = found[1]
    return (
        _HOST.fullmatch(host) is not None
        and _EMPTY_LABEL.search(host) is None
        and (_NUMBER_LAST.search(host) is None or _IPV4.fullmatch(host) is not None)
    )


# Text cut to a size. What a reader sees as one character can be many code points (a flag, an emoji of a family, a
# letter with accents): UAX #29 defines where such a cluster ends, and none is cut in two.

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ELLIPSIS = "…"

_CLUSTER = regex.compile(r"\X")


def one_line(text: str, most: int | None = None) -> str:
    """Returns the text without line breaks and control characters, cut at a number of code points."""
    line = " ".join(CONTROL.sub(" ", text).split())
    return line if most is None else shortened(line, most)


def shortened(text: str, most: int) -> str:
    """Returns the text, or its beginning with an ellipsis, in at most so many code points."""
    return text if len(text) <= most else beginning(text, most - 1).rstrip() + ELLIPSIS


def shortened_bytes(text: str, most: int) -> str:
    """Returns the same in at most so many bytes of UTF-8."""
    if len(text) * 4 <= most or len(encoded := text.encode("utf-8", "replace")) <= most:
        return text
    room = max(most - len(ELLIPSIS.encode()), 0)
    return beginning(text, len(encoded[:room].decode("utf-8", "ignore"))).rstrip() + ELLIPSIS


def clip(text: str, room: int, size: Callable[[str], int]) -> str:
    """Returns the longest beginning of a text whose `size` is at most `room`, between two clusters.

    A text that was cut ends in an ellipsis; it is empty if not even the ellipsis fits.
    """
    if size(text) <= room:
        return text
    room -= size(ELLIPSIS)
    if room < 0:
        return ""
    # a code point takes at least one byte, so the first `room` of them are enough
    clusters: list[str] = _CLUSTER.findall(text[: room + 1])
    fitting = sum(1 for each in accumulate(map(size, clusters)) if each <= room)
    return "".join(clusters[:fitting]).rstrip() + ELLIPSIS


def json_size(text: str) -> int:
    """Returns how many bytes a text takes in JSON, without its quotation marks."""
    return len(msgspec.json.encode(text)) - 2


def beginning(text: str, most: int) -> str:
    """Returns at most so many code points; no character is cut in two unless a single one is longer."""
    start = text[: most + 1]
    if len(start) <= most or start.isascii():
        return start[:most]
    # whether a character ends here depends on what is before and on the next code point alone
    *whole, _ = _CLUSTER.findall(start)
    return "".join(whole) or start[:most]


# Names that were misspelled.

_LONGEST_COMPARED = 40  # characters


def nearest(name: str, known: Iterable[str], n: int = 1, *, cutoff: float = 0.6) -> list[str]:
    """Returns the `n` of the known names that are most like a name, none for a long one.

    difflib takes milliseconds a pair, so it compares only those few that share most pairs of letters with the name.
    """
    if len(name) > _LONGEST_COMPARED:
        return []
    pairs = _pairs(name)
    likely = nlargest(n + 3, known, key=lambda each: len(pairs & _pairs(each)))
    return get_close_matches(name, likely, n, cutoff)


def _pairs(name: str) -> set[str]:
    return {name[at : at + 2] for at in range(min(len(name), _LONGEST_COMPARED))}


# HTML from apps, reduced to a small safe set, for mails and for clients.

_TAGS = frozenset(
    {"a", "p", "br", "strong", "em", "b", "i", "ul", "ol", "li", "blockquote", "code", "pre"}
    | {"h1", "h2", "h3", "h4"}
)
_BLOCKS = _TAGS - {"a", "strong", "em", "b", "i", "code", "br"}
# What sanitised HTML consists of: tags, entities, and text between them.
_TOKEN = re.compile(r'<(/?)([a-z0-9]+)(?:[^">]|"[^"]*")*>|&#?\w+;|[^<&]+|[<&]')
_MAILTO = "mailto:"


@lru_cache(maxsize=16)
def sanitise(html: str, *, base_url: str | None = None) -> str:
    """Keeps the structure of text and links; all else is removed, scripts and styles with their content.

    A link is kept if it leads to a mail address, or if an event's action_url may be the same. For a mail, `base_url` is
    put before a path; in an inbox, which is part of the app's pages, a path stays as it is. The last results are
    cached: the HTML of an event is the same for all recipients.
    """
    return _cleaner(base_url).clean(html)


def shortened_html(html: str, most: int) -> str:
    """Returns sanitised HTML, or its beginning with an ellipsis, well-formed, in at most so many bytes of UTF-8."""
    if len(html.encode("utf-8", "replace")) <= most:
        return html
    kept: list[str] = []
    closing: list[str] = []
    room = most - len(ELLIPSIS.encode())
    for token in _TOKEN.finditer(html):
        text, slash, tag = token[0], token[1], token[2]
        if tag and slash:
            kept.append(closing.pop())  # its bytes were reserved as it was opened
            continue
        end = f"</{tag}>" if tag and tag != "br" else ""
        size = len(text.encode("utf-8", "replace")) + len(end)
        if size > room:
            if not tag and text[0] not in "<&":
                fitting = text.encode("utf-8", "replace")[: max(room, 0)].decode("utf-8", "ignore")
                kept.append(beginning(text, len(fitting)).rstrip())
            break
        room -= size
        kept.append(text)
        if end:
            closing.append(end)
    return "".join((*kept, ELLIPSIS, *reversed(closing))) if most > 0 else ""


def to_text(html: str) -> str:
    """Returns the text of sanitised HTML: a line per block, a dash per item, a link's target in brackets."""
    reader = _TextReader()
    reader.feed(html)
    reader.close()
    lines = "".join(reader.pieces).split("\n")
    text = "\n".join(line.strip() for line in lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()


@lru_cache(maxsize=8)
def _cleaner(base_url: str | None) -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer",
        url_relative="pass_through",
        attribute_filter=_link_filter((base_url or "").rstrip("/")),
    )


def _link_filter(base_url: str) -> Callable[[str, str, str], str | None]:
    """Returns nh3's filter of attributes: from a value to a value, or to None to remove the attribute."""

    def filtered(_tag: str, attribute: str, value: str) -> str | None:
        if attribute != "href":
            return value
        link = value.strip(" \t\n\f\r")
        if link[: len(_MAILTO)].lower() == _MAILTO:
            return link if link.isprintable() and " " not in link else None
        if not is_web_address(link):
            return None
        return base_url + link if link.startswith("/") else link

    return filtered


class _TextReader(HTMLParser):
    """Collects text piece by piece."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._targets: list[tuple[str, int]] = []  # of the open links, with the piece each began at

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Starts a line for a block, remembers a link."""
        if tag == "a":
            self._targets.append((dict(attrs).get("href") or "", len(self.pieces)))
        elif tag == "br":
            self.pieces.append("\n")
        elif tag == "li":
            self.pieces.append("\n- ")
        elif tag in _BLOCKS:
            self.pieces.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """Ends a block, adds the target of a link."""
        if tag == "a" and self._targets:
            target, start = self._targets.pop()
            shown = "".join(self.pieces[start:]).strip()
            if target and target.removeprefix("mailto:") != shown:
                self.pieces.append(f" ({target})")
        elif tag in _BLOCKS - {"li"}:
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Keeps text with its line breaks, except those between two blocks."""
        self.pieces.append(" " if data.isspace() else data)


# The title of several notifications as one: "Alice and 4 others replied to 'Spring Formal Planning'". An event type has
# its texts in `title_many`: `{language: {plural category of CLDR: text}}`; docs/event-types.md has the placeholders.
# Used wherever several notifications of one type and subject are shown in one line.

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
    return _filled_title(text, _title_values(facts)) or facts.title


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


def _title_values(facts: GroupFacts) -> dict[str, str | None]:
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


def _filled_title(text: str, values: Mapping[str, str | None]) -> str | None:
    """Fills in the placeholders; None where one outside brackets has no value."""

    def has_all(part: str) -> bool:
        return all(values[name] for name in _PLACEHOLDER.findall(part))

    whole = _OPTIONAL.sub(lambda found: found[1] if has_all(found[1]) else "", text)
    if not has_all(whole):
        return None
    right_to_left = any(bidirectional(letter) in ("R", "AL") for letter in text)
    return _PLACEHOLDER.sub(
        lambda found: _isolated_value(values[found[1]] or "", right_to_left=right_to_left), whole
    )


def _isolated_value(value: str, *, right_to_left: bool) -> str:
    """Returns a value for a sentence of a direction; between Unicode's FSI and PDI where its own is another."""
    other = ("L",) if right_to_left else ("R", "AL")
    differs = any(bidirectional(letter) in other for letter in value)
    return f"\u2068{value}\u2069" if differs else value
