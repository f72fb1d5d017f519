"""What a webhook is sent."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec

from tocsin.engine.model import Claimed, Message, WebhookBody


def render_webhook(claimed: Claimed) -> Message:
    """Returns the message: what happened, for the app; for a person, their notification."""
    stored = (claimed.options or {}).get("message")
    body = _notification(claimed) if stored is None else _stored(stored)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, body)


def _stored(stored: dict[str, Any]) -> WebhookBody:
    found = msgspec.convert(
        {"type": stored["type"], "timestamp": stored["at"], "data": stored["data"]}, WebhookBody
    )
    return msgspec.structs.replace(found, timestamp=found.timestamp.astimezone(UTC))


def _notification(claimed: Claimed) -> WebhookBody:
    data = {
        "notification_id": claimed.notification_id,
        "event_id": claimed.event_id,
        "event_type": claimed.event_type,
        "category": claimed.category,
        "recipient": claimed.recipient_id,
        "initiator": claimed.initiator,
        "subject": claimed.subject,
        "topic": claimed.topic,
        "title": claimed.title,
        "body": claimed.body,
        "action_url": claimed.action_url,
        "metadata": claimed.metadata,
        "actions": claimed.actions or [],
    }
    return WebhookBody("notification.created", claimed.created_at.astimezone(UTC), data)
