"""From what a far end received to what a phone shows of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tocsin.phones import Arrival, Kind
from tocsin.testing.apns import Received
from tocsin.testing.fcm import Arrived


def of_apns(received: Received, at: datetime) -> Arrival:
    """An iPhone: `aps` is the system's, the rest the app's."""
    payload: dict[str, Any] = dict(received.payload)
    aps = _object(payload.pop("aps", None))
    alert = aps.get("alert")
    texts = {"body": alert} if isinstance(alert, str) else _object(alert)
    return Arrival(
        at=at,
        provider="apns",
        token=received.device,
        kind=_kind(shown=bool(texts), badge=aps.get("badge")),
        title=_text(texts.get("title")) or "",
        body=_text(texts.get("body")) or "",
        badge=_number(aps.get("badge")),
        sound=_text(aps.get("sound")),
        data=payload,
        collapse_id=received.headers.get("apns-collapse-id"),
    )


def of_fcm(arrived: Arrived) -> Arrival:
    """An Android phone, or an iPhone behind FCM, whose number on the icon is in its own block."""
    message = arrived.message
    texts = _object(message.get("notification"))
    android = _object(_object(message.get("android")).get("notification"))
    aps = _object(_object(_object(message.get("apns")).get("payload")).get("aps"))
    badge = android.get("notification_count", aps.get("badge"))
    return Arrival(
        at=arrived.at,
        provider="fcm",
        token=arrived.token,
        kind=_kind(shown=bool(texts), badge=badge),
        title=_text(texts.get("title")) or "",
        body=_text(texts.get("body")) or "",
        badge=_number(badge),
        sound=_text(android.get("sound")) or ("default" if android.get("default_sound") else None),
        data=_object(message.get("data")),
        collapse_id=_text(android.get("tag")),
    )


def _kind(*, shown: bool, badge: object) -> Kind:
    if shown:
        return "alert"
    return "background" if badge is None else "badge"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
