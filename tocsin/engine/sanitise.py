"""HTML from apps, cut down to a small safe set; for mails and for what clients read."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from html.parser import HTMLParser

import nh3

from tocsin.engine.one_line import ELLIPSIS, beginning
from tocsin.engine.web_address import is_web_address

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
    """Text structure and links; all else is removed, scripts and styles with their content.

    A link leads to a mail address, or to what an event's action_url may be; another loses its href. In a mail a path is
    put behind `base_url`. In an inbox it stays as it is, since that is part of the app's pages. The last
    results are kept: the HTML of an event is the same for all recipients.
    """
    return _cleaner(base_url).clean(html)


def shortened_html(html: str, most: int) -> str:
    """Sanitised HTML, or its beginning with an ellipsis, well-formed, in at most so many bytes of UTF-8."""
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
    """The text of sanitised HTML: a line per block, a dash per item, a link's target in brackets."""
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
    """What nh3 asks of each attribute: its value, or None to remove it."""

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
        """Starts a line for a block, notes a link."""
        if tag == "a":
            self._targets.append((dict(attrs).get("href") or "", len(self.pieces)))
        elif tag == "br":
            self.pieces.append("\n")
        elif tag == "li":
            self.pieces.append("\n- ")
        elif tag in _BLOCKS:
            self.pieces.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """Ends a block, says where a link led."""
        if tag == "a" and self._targets:
            target, start = self._targets.pop()
            shown = "".join(self.pieces[start:]).strip()
            if target and target.removeprefix("mailto:") != shown:
                self.pieces.append(f" ({target})")
        elif tag in _BLOCKS - {"li"}:
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Keeps text as it is, line breaks too, but not those between two blocks."""
        self.pieces.append(" " if data.isspace() else data)
