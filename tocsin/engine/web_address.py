"""Which links are safe to follow: the rule of `tocsin.is_web_address` (sql/functions/check.sql), for links in HTML."""

from __future__ import annotations

import re

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
    """Whether it is a path on the app's own host, or an http(s) address that browsers read in one way only."""
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
