"""A file of event types as the database takes it, read by psycopg and the standard library alone.

The database checks the values; `tocsin event-types apply` checks more, and names the line of a fault.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

_DEFAULTS: dict[str, Any] = {
    "mandatory": [],
    "priority": "normal",
    "time_to_live": "3d",
    "max_attempts": 10,
    "digest": True,
    "delay": {},
    "skip_if_read": [],
    "alone": False,
    "mention": False,
    "group": True,
    "title_many": {},
    "throttle": None,
    "unread_retention": None,
}


def catalogue(path: Path | None = None) -> dict[str, object]:
    """Returns the event types of a file (None: the default ones) for the database. Raises OSError or ValueError."""
    file = path or files("tocsin") / "event_types.toml"
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        "categories": [
            {"category": name, "label": label}
            for name, label in found.get("categories", {}).items()
        ],
        "event_types": [
            {"event_type": name, **_complete(name, entry)}
            for name, entry in found["event_types"].items()
        ],
        "replace": found.get("replace", False),
    }


def _complete(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry with its defaults. The database checks the values; keys are checked here."""
    keys = ["label", "channels", *_DEFAULTS]
    if unknown := entry.keys() - set(keys):
        raise ValueError(f"{name} has no key {min(unknown)!r}; the keys are {', '.join(keys)}")
    if missing := {"label", "channels"} - entry.keys():
        raise ValueError(f"{name} needs the key {min(missing)!r}")
    return {key: entry.get(key, _DEFAULTS.get(key)) for key in keys}
