"""From a claimed delivery to the push that its actor sends."""

from __future__ import annotations

from tocsin.engine.model import Claimed, Message, Push


def render_push(claimed: Claimed) -> Message:
    """The push of one delivery; `data` has what an app needs to open it."""
    data = {
        "notification_id": str(claimed.notification_id),
        "event_id": str(claimed.event_id),
        "event_type": claimed.event_type,
    }
    if claimed.action_url:
        data["action_url"] = claimed.action_url
    push = Push(
        title=claimed.title,
        body=claimed.body,
        data=data,
        thread_id=claimed.category,
        expires_at=claimed.expires_at,
    )
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, push)
