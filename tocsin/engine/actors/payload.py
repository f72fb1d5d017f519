"""A push's payload: JSON within the provider's limit, its body cut between two characters as people see them.

Apple: "Generating a remote notification". What a reader takes for one character can be many code
points (a family of emoji, a flag, a letter with its accents): Unicode's UAX #29 says where they end.
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import accumulate
from typing import Any

import msgspec
import regex

from tocsin.engine.model import Push, PushKind

MAX_PAYLOAD = 4096
MAX_COLLAPSE_ID = 64

_ELLIPSIS = "…"
_CLUSTER = regex.compile(r"\X")
_START = b'{"aps":{'
_BADGE_ROOM = len(b'"badge":-9223372036854775808,')
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEADER_SAFE = re.compile(r"[!-~]{1,64}")


class TooLargeError(Exception):
    """What the app adds is beyond the limit even without title and body."""


def draft(push: Push) -> bytes:
    """The payload for APNs but for its badge, which `with_badge` adds; raises TooLargeError."""
    title, body = _clean(push.title), _clean(push.body)
    room = MAX_PAYLOAD - _BADGE_ROOM
    if len(_encode(push, "", "")) > room:
        raise TooLargeError
    if push.kind is PushKind.ALERT and len(_encode(push, title, body)) > room:
        room -= len(_encode(push, "t", "b")) - len("tb")
        title = clip(title, room)
        body = clip(body, room - _size(title))
    return _encode(push, title, body)


def with_badge(drafted: bytes, badge: int | None) -> bytes:
    """The whole payload with the number on the app's icon; None leaves that as it is."""
    if badge is None:
        return drafted
    rest = drafted[len(_START) :]
    return b'%b"badge":%d%b%b' % (_START, badge, b"" if rest.startswith(b"}") else b",", rest)


def clip(text: str, room: int) -> str:
    """The longest beginning of a text whose JSON takes at most `room` bytes, quotes not counted.

    What is cut off is marked by an ellipsis, and no character as people see it is cut in two. Empty
    where not even the ellipsis fits.
    """
    if _size(text) <= room:
        return text
    room -= _size(_ELLIPSIS)
    if room < 0:
        return ""
    # No code point is less than a byte, so that what counts is within the first `room` of them.
    clusters: list[str] = _CLUSTER.findall(text[: room + 1])
    sizes = accumulate(_size(cluster) for cluster in clusters)
    fitting = sum(1 for size in sizes if size <= room)
    return "".join(clusters[:fitting]).rstrip() + _ELLIPSIS


def collapse_id(name: str) -> str:
    """An id of at most 64 bytes that is safe in a header; a digest where the name itself isn't."""
    return name if _HEADER_SAFE.fullmatch(name) else sha256(_clean(name).encode()).hexdigest()


def _encode(push: Push, title: str, body: str) -> bytes:
    """JSON with `aps` first, so that the badge has its known place."""
    data = {name: value for name, value in push.data.items() if name != "aps"}
    return msgspec.json.encode({"aps": _aps(push, title, body), **data})


def _aps(push: Push, title: str, body: str) -> dict[str, Any]:
    if push.kind is PushKind.BADGE:
        return {}
    if push.kind is PushKind.BACKGROUND:
        return {"content-available": 1}
    parts = {"title": title, "body": body}
    aps: dict[str, Any] = {"alert": {name: text for name, text in parts.items() if text}}
    if push.sound is not None:
        aps["sound"] = push.sound
    if push.thread_id is not None:
        aps["thread-id"] = push.thread_id
    return aps


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2


def _clean(text: str) -> str:
    """Half a surrogate pair is no text, and JSON can't hold it."""
    return _SURROGATE.sub("\ufffd", text)
