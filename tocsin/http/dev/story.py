"""What the demo's people tell one another: words for each event type of the default catalogue, in story.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

from tocsin.engine.store.event import NewEvent

_LATER = re.compile(r"([+-]\d+)d")


class Story(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file; `{me}` and `{you}` stand for the two names."""

    button: str
    title: str
    body: str = ""
    action_url: str | None = None
    metadata: dict[str, Any] = {}
    topic: str | None = None  # told to its followers


class Cast(Struct, frozen=True):
    """Who tells whom: their ids and what they are called."""

    me: str
    you: str
    my_name: str
    your_name: str

    def fill(self, text: str) -> str:
        """A text of the story with the names in it."""
        return text.replace("{me}", self.my_name).replace("{you}", self.your_name)


def story_of(event_type: str, label: str) -> Story:
    """The words for an event type; a host's own is told by its label."""
    return _stories().get(event_type) or Story(label, label)


def told(story: Story, event_type: str, cast: Cast, now: datetime) -> NewEvent:
    """What the app says as somebody presses the button."""
    return NewEvent(
        event_type=event_type,
        recipients=[] if story.topic else [cast.you],
        topic=story.topic,
        title=cast.fill(story.title),
        body=cast.fill(story.body),
        action_url=story.action_url,
        metadata={name: _moved(value, now) for name, value in story.metadata.items()},
        initiator=cast.me,
    )


def known_stories() -> Mapping[str, Story]:
    """By event type."""
    return _stories()


def _moved(value: Any, now: datetime) -> Any:
    found = _LATER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    at = (now + timedelta(days=int(found[1]))).replace(minute=0, second=0, microsecond=0)
    return at.isoformat().replace("+00:00", "Z")


@cache
def _stories() -> dict[str, Story]:
    text = (files("tocsin.http.dev") / "story.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, Story])
