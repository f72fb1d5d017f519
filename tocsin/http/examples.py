"""True examples for the API's description."""

from __future__ import annotations

from typing import Any

POSTED_EVENT: dict[str, Any] = {
    "event_type": "forum.new_reply",
    "recipients": ["alice", {"id": "bob", "email": "bob@example.com", "name": "Bob"}],
    "title": "Carol replied to “Bell ringing”",
    "body": "The new ropes arrive on Monday.",
    "action_url": "/forums/7#reply-42",
    "metadata": {"thread_id": 7, "reply_id": 42},
    "initiator": "carol",
}
NOTIFICATION: dict[str, Any] = {
    "id": 1042,
    "event_id": 311,
    "event_type": "forum.new_reply",
    "category": "forum",
    "title": "Carol replied to “Bell ringing”",
    "body": "The new ropes arrive on Monday.",
    "body_html": None,
    "action_url": "/forums/7#reply-42",
    "metadata": {"thread_id": 7, "reply_id": 42},
    "initiator": "carol",
    "read": False,
    "read_at": None,
    "created_at": "2026-11-21T08:15:30.123456Z",
}
LISTING: dict[str, Any] = {
    "results": [NOTIFICATION],
    "next": "https://notify.example.com/api/notifications/?cursor=bzE3OTUyNDg5MzAxMjM0NTYuMTA0Mg",
    "previous": None,
    "as_of": "NzUxOjc1MTo",
}
WHY: dict[str, Any] = {
    "channels": [
        {
            "channel": "in_app",
            "decision": "on",
            "reason": "default",
            "sentence": "The inbox is on for New reply by default. It is in your inbox.",
            "deliveries": [],
        },
        {
            "channel": "email",
            "decision": "on",
            "reason": "default",
            "sentence": "Email is on for New reply by default. It was sent.",
            "deliveries": [
                {
                    "state": "sent",
                    "reason": None,
                    "address": "a***e@example.com",
                    "attempts": [
                        {"at": "2026-11-21T08:15:30.201500Z", "outcome": "sent", "reason": None}
                    ],
                }
            ],
        },
        {
            "channel": "push",
            "decision": "off",
            "reason": "preference",
            "sentence": "You turned push off for everything in Forum.",
            "deliveries": [],
        },
    ]
}
PREFERENCES: dict[str, Any] = {
    "event_types": {"forum.new_reply": {"in_app": True, "email": False, "push": True}},
    "sources": {"forum.new_reply": {"in_app": "default", "email": "forum.*", "push": "default"}},
    "overrides": {"forum.*": {"email": False}},
    "mandatory": {"compliance.overdue": ["email"]},
}
EVENT_TYPES: dict[str, Any] = {
    "results": [
        {
            "category": "forum",
            "label": "Forum",
            "event_types": [
                {
                    "event_type": "forum.new_reply",
                    "label": "New reply",
                    "default_channels": ["in_app", "email", "push"],
                    "mandatory_channels": [],
                    "priority": "normal",
                    "digest": True,
                }
            ],
        }
    ]
}
DEVICE: dict[str, Any] = {
    "id": 5,
    "token": "f6a7b8",
    "platform": "ios",
    "provider": "apns",
    "environment": "production",
    "label": "Bob's iPhone",
    "created_at": "2026-11-21T09:30:00Z",
    "registered_at": "2026-11-22T07:10:00Z",
    "disabled_at": None,
    "disabled_reason": None,
}

SUBSCRIPTION: dict[str, Any] = {
    "topic": "forum.thread:42",
    "level": "all",
    "because": "replied",
    "created_at": "2026-11-21T08:15:30.123456Z",
    "latest": {
        "notification_id": 1042,
        "title": "Carol replied to “Bell ringing”",
        "action_url": "/forums/7#reply-42",
        "created_at": "2026-11-21T08:15:30.123456Z",
    },
}
TICKET: dict[str, Any] = {
    "ticket": "q1Zb0rG2k6hO5Yt0u5cB3vX7n9m1a4s8d2f6g0h3j5k",
    "expires_at": "2026-11-22T08:00:00Z",
    "usable_until": "2026-11-21T08:16:30.123456Z",
}
RECIPIENT: dict[str, Any] = {
    "id": "bob",
    "email": "bob@example.com",
    "name": "Bob",
    "locale": "en",
    "timezone": "Europe/Rome",
    "created_at": "2026-11-20T17:00:00Z",
    "updated_at": "2026-11-20T17:00:00Z",
}
EVENT: dict[str, Any] = {
    "id": 311,
    "event_type": "forum.new_reply",
    "title": "Carol replied to “Bell ringing”",
    "topic": None,
    "initiator": "carol",
    "initiator_skipped": False,
    "caller": "key:1",
    "created_at": "2026-11-21T08:15:30.123456Z",
    "send_at": None,
    "told_at": "2026-11-21T08:15:30.123456Z",
    "cancelled_at": None,
    "notifications": 2,
    "deliveries": {"email": {"sent": 1, "queued": 1}},
}
EVENT_LISTING: dict[str, Any] = {
    "results": [
        {
            **{
                k: v
                for k, v in EVENT.items()
                if k not in {"deliveries", "initiator_skipped", "told_at", "topic"}
            },
            "notification": {
                "id": 1042,
                "recipient": "alice",
                "channels": WHY["channels"][:1],
            },
        }
    ],
    "next": None,
    "previous": None,
}
DRY_RUN: dict[str, Any] = {
    "event_id": None,
    "notifications": 1,
    "decisions": {
        "alice": {
            "in_app": {"decision": "on", "reason": "default", "scope": None},
            "email": {"decision": "off", "reason": "preference", "scope": "forum.*"},
        }
    },
}
STREAM = 'retry: 4210\n\nid: NzUxOjc1MTp-fjA\nevent: badge\ndata: {"count":3}\n\n: heartbeat\n\n'
DIGEST_PREFERENCES: dict[str, Any] = {
    "frequency": "weekly",
    "categories": ["forum", "bulletin"],
    "all_categories": False,
    "send_at": "06:00",
    "timezone": "Europe/Rome",
    "weekday": "friday",
    "next_at": "2026-11-27T05:00:00Z",
}
QUIET_HOURS: dict[str, Any] = {"starts": "22:00", "ends": "07:00", "timezone": "Europe/Rome"}
