"""One push as FCM's JSON: pyfcm's payload with a block for each platform, its texts cut to fit 4096 bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import regex
from pyfcm import FCMNotification

from tocsin.engine.model import Push, PushKind

MOST_BYTES = 4096 - 64
"""FCM's limit, applied to the message without its token and badge: then no platform's part is larger."""

LONGEST_LIFE = 28 * 24 * 3600
"""Seconds that FCM keeps a message for a device that is away."""

_GRAPHEMES = regex.compile(r"\X")
_TOPIC = regex.compile(r"[A-Za-z0-9_-]{1,32}")  # RFC 8030 section 5.4
_COLLAPSE_BYTES = 64


class FcmTooLargeError(Exception):
    """A push is too large even without its texts."""


class FcmPayload:
    """Writes pushes; `channel_id` is the Android notification channel, the app's default where it is None."""

    def __init__(self, pyfcm: FCMNotification, channel_id: str | None = None) -> None:
        self._pyfcm = pyfcm
        self._channel_id = channel_id

    def draft(self, push: Push, *, tag: str, now: datetime, high: bool) -> bytes:
        """Returns the JSON without token and badge, its texts cut so that it fits; raises FcmTooLargeError.

        `tag` identifies the delivery: a repeated push replaces the first one on the device.
        """
        blocks = self._blocks(push, tag, now, high=high)

        def write(title: str, body: str) -> bytes:
            shown = {} if silent(push) else {"notification_title": title, "notification_body": body}
            return bytes(self._pyfcm.parse_payload(**shown, **blocks))

        draft = write(push.title, push.body)
        if len(draft) <= MOST_BYTES:
            return draft
        body = _longest(push.body, lambda text: len(write(push.title, text)) <= MOST_BYTES)
        if body is not None:
            return write(push.title, body)
        title = _longest(push.title, lambda text: len(write(text, "")) <= MOST_BYTES)
        if not title:  # without any text it would be a silent push
            raise FcmTooLargeError
        return write(title, "")

    def _blocks(self, push: Push, tag: str, now: datetime, *, high: bool) -> dict[str, Any]:
        life = _seconds(push.expires_at, now)
        return {
            "data_payload": push.data or ({"silent": "1"} if silent(push) else None),
            "android_config": self._android(push, tag, life, high=high),
            "apns_config": _apns(push, tag, high=high),
            "webpush_config": _webpush(push, tag, life, high=high),
        }

    def _android(self, push: Push, tag: str, life: int | None, *, high: bool) -> dict[str, Any]:
        block: dict[str, Any] = {"priority": "HIGH" if high else "NORMAL"}
        if life is not None:
            block["ttl"] = f"{life}s"
        if push.collapse_id:
            block["collapse_key"] = push.collapse_id
        if not silent(push):
            shown = {"tag": push.collapse_id or tag, "default_sound": True}
            more = {"channel_id": self._channel_id} if self._channel_id else {}
            block["notification"] = shown | more
        return block


def silent(push: Push) -> bool:
    """Returns whether the device shows nothing."""
    return push.kind is not PushKind.ALERT


def with_token(draft: bytes, token: str, badge: int | None) -> bytes:
    """Returns the draft with its token and the number for the icon, which only the check before sending knows.

    Android takes no number with a push that shows nothing: the app finds it in `data`.
    """
    message = json.loads(draft)["message"]
    if badge is not None:
        message["apns"]["payload"]["aps"]["badge"] = badge
        if "notification" not in message["android"]:
            message["data"]["badge"] = str(badge)
        elif badge:
            message["android"]["notification"]["notification_count"] = badge
    whole = {"message": {"token": token, **message}}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def shorten(text: str, most: int) -> str:
    """Returns the text in at most so many bytes of UTF-8; a cut one ends in an ellipsis after a whole grapheme."""
    if len(text.encode()) <= most:
        return text
    room = most - len("…".encode())
    end = 0
    for grapheme in _GRAPHEMES.finditer(text):
        room -= len(grapheme[0].encode())
        if room < 0:
            break
        end = grapheme.end()
    kept = text[:end].rstrip()
    return f"{kept}…" if kept else ""


def _longest(text: str, fits: Callable[[str], bool]) -> str | None:
    """Returns the longest beginning of a text that fits, by bisection: JSON takes more bytes for some characters.

    None if not even the empty text fits.
    """
    if not fits(""):
        return None
    text = shorten(text, MOST_BYTES)
    low, high = 0, len(text.encode())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(shorten(text, middle)) else (low, middle - 1)
    return shorten(text, low)


def _apns(push: Push, tag: str, *, high: bool) -> dict[str, Any]:
    """Returns the block for iPhones; the texts are those of the notification."""
    background = (
        push.kind is PushKind.BACKGROUND
    )  # to Apple, a push that changes the badge is no background push
    headers = {
        "apns-priority": "10" if high else "5",
        "apns-push-type": "background" if background else "alert",
        "apns-collapse-id": shorten(push.collapse_id or tag, _COLLAPSE_BYTES),
    }
    if push.expires_at is not None:
        headers["apns-expiration"] = str(int(push.expires_at.timestamp()))
    aps: dict[str, Any] = {"content-available": 1} if background else {}
    if not silent(push):
        aps["sound"] = "default"
    if push.thread_id is not None:
        aps["thread-id"] = push.thread_id
    return {"headers": headers, "payload": {"aps": aps}}


def _webpush(push: Push, tag: str, life: int | None, *, high: bool) -> dict[str, Any]:
    """Returns the block for browsers (RFC 8030), which open https addresses only."""
    headers = {"Urgency": "high" if high else "normal"}
    if life is not None:
        headers["TTL"] = str(life)
    if push.collapse_id and _TOPIC.fullmatch(push.collapse_id):
        headers["Topic"] = push.collapse_id
    block: dict[str, Any] = {"headers": headers}
    if not silent(push):
        block["notification"] = {"tag": push.collapse_id or tag}
        if (link := push.data.get("action_url", "")).startswith("https://"):
            block["fcm_options"] = {"link": link}
    return block


def _seconds(expires_at: datetime | None, now: datetime) -> int | None:
    if expires_at is None:
        return None
    return min(LONGEST_LIFE, max(0, int((expires_at - now).total_seconds())))
