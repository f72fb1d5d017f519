"""From a claimed delivery to the push that its actor sends."""

from __future__ import annotations

from tocsin.engine.model import Claimed, Message, Push, PushKind

# Of several that wait for a device that is off, the last one is enough.
_BADGE = "tocsin-badge"


def render_push(claimed: Claimed) -> Message:
    """The push of one delivery; without an event it corrects the badge."""
    push = _badge(claimed) if claimed.event_id is None else _alert(claimed)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, push)


def _badge(claimed: Claimed) -> Push:
    """Nothing but the number, which the last look takes."""
    return Push(kind=PushKind.BADGE, collapse_id=_BADGE, expires_at=claimed.expires_at)


def _alert(claimed: Claimed) -> Push:
    """What people see; `data` has what an app needs to open it."""
    data = {
        "notification_id": str(claimed.notification_id),
        "event_id": str(claimed.event_id),
        "event_type": claimed.event_type,
    }
    if claimed.action_url:
        data["action_url"] = claimed.action_url
    return Push(
        title=claimed.title,
        body=claimed.body,
        data=data,
        thread_id=claimed.category,
        expires_at=claimed.expires_at,
    )
