"""Text from apps: which addresses are safe links, text cut to a size, and HTML reduced to a safe set."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from html.parser import HTMLParser
from itertools import accumulate

import nh3
import regex

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


def beginning(text: str, most: int) -> str:
    """Returns at most so many code points; no character is cut in two unless a single one is longer."""
    start = text[: most + 1]
    if len(start) <= most or start.isascii():
        return start[:most]
    # whether a character ends here depends on what is before and on the next code point alone
    *whole, _ = _CLUSTER.findall(start)
    return "".join(whole) or start[:most]


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
