"""HTML from apps, cut down to a small safe set; for mails and for what clients read."""

from __future__ import annotations

from functools import lru_cache
from html.parser import HTMLParser

import nh3

_TAGS = frozenset(
    {"a", "p", "br", "strong", "em", "b", "i", "ul", "ol", "li", "blockquote", "code", "pre"}
    | {"h1", "h2", "h3", "h4"}
)
_BLOCKS = _TAGS - {"a", "strong", "em", "b", "i", "code", "br"}


def sanitise(html: str, *, base_url: str | None = None) -> str:
    """Text structure and links to http, https and mailto; all else goes, scripts and styles with their content.

    Relative links lead nowhere in a mail: there they are made absolute with `base_url`. In an inbox they stay as they
    are, since it is part of the host app's own pages.
    """
    return _cleaner(base_url).clean(html)


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
        url_relative=("rewrite_with_base", base_url) if base_url else "pass_through",
    )


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
