"""Text cut to a size: for subjects, headings, the list view, and mails that would be too large.

What a reader takes for one character can be many code points (a family of emoji, a flag, a letter with its accents):
Unicode's UAX #29 says where they end, and none is cut in two.
"""

from __future__ import annotations

import re

import regex

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ELLIPSIS = "…"

_CLUSTER = regex.compile(r"\X")


def one_line(text: str, most: int | None = None) -> str:
    """Without line breaks and control characters, cut at a number of code points."""
    line = " ".join(CONTROL.sub(" ", text).split())
    return line if most is None else shortened(line, most)


def shortened(text: str, most: int) -> str:
    """The text, or what of its beginning goes into so many code points with an ellipsis."""
    return text if len(text) <= most else beginning(text, most - 1).rstrip() + ELLIPSIS


def shortened_bytes(text: str, most: int) -> str:
    """The same by bytes of UTF-8."""
    if len(text) * 4 <= most or len(encoded := text.encode("utf-8", "replace")) <= most:
        return text
    room = max(most - len(ELLIPSIS.encode()), 0)
    return beginning(text, len(encoded[:room].decode("utf-8", "ignore"))).rstrip() + ELLIPSIS


def beginning(text: str, most: int) -> str:
    """At most so many code points, and no character cut in two unless a single one is longer than that."""
    start = text[: most + 1]
    if len(start) <= most or start.isascii():
        return start[:most]
    # whether a character ends here depends on what is before and on the next code point alone
    *whole, _ = _CLUSTER.findall(start)
    return "".join(whole) or start[:most]
