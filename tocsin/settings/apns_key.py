"""TOCSIN_APNS_…: the four that belong together, checked as one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

_NAMES = ("APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC")


class ApnsKey(Struct, frozen=True):
    """What Apple knows an app's server by."""

    pem: str
    key_id: str
    team_id: str
    topic: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"ApnsKey(key_id={self.key_id!r}, team_id={self.team_id!r}, topic={self.topic!r})"


def read_apns_key(value: Callable[[str], str | None]) -> ApnsKey | None:
    """All four or none; raises ValueError with the name of the one at fault."""
    given = {name: value(name) for name in _NAMES}
    if not any(given.values()):
        return None
    for name, text in given.items():
        if not text:
            raise ValueError(f"TOCSIN_{name} is not set: APNs needs {', '.join(_NAMES)}")
    return ApnsKey(
        _content(given["APNS_KEY"] or ""),
        given["APNS_KEY_ID"] or "",
        given["APNS_TEAM_ID"] or "",
        given["APNS_TOPIC"] or "",
    )


def _content(text: str) -> str:
    from tocsin.engine.actors.provider_token import ProviderKey

    pem = text
    if "-----BEGIN" not in text:
        path = Path(os.path.expanduser(text))
        if not path.is_file():
            raise ValueError("TOCSIN_APNS_KEY is neither a .p8 key nor a file that is there")
        pem = path.read_text(errors="replace")
    try:
        ProviderKey(pem=pem, key_id="check", team_id="check")
    except ValueError as error:
        raise ValueError(f"TOCSIN_APNS_KEY is {error}") from None
    return pem.strip()
