"""Why somebody is told what happens in a topic, or is not, in words for people."""

from __future__ import annotations

_BECAUSE = {
    "followed": "you follow {topic}",
    "replied": "you replied in {topic}",
    "mentioned": "you were mentioned in {topic}",
}
_NOT_TOLD = {
    "muted": "You muted {topic}.",
    "not_mentioned": "You follow {topic} for mentions only, and you were not mentioned.",
}


def why_told(because: str | None, topic: str | None) -> str | None:
    """`you replied in forum.thread:42`, to go after "because"; None where it is no topic's doing."""
    words = _BECAUSE.get(because or "")
    return None if words is None or topic is None else words.format(topic=topic)


def why_not_told(because: str | None, topic: str | None) -> str | None:
    """A sentence; None where it is no topic's doing."""
    words = _NOT_TOLD.get(because or "")
    return None if words is None or topic is None else words.format(topic=topic)
