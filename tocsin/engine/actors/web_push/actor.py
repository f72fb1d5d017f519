"""Push to browsers by Web Push (RFC 8030), encrypted for each subscription (RFC 8291)."""

from __future__ import annotations

import base64
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from tocsin.engine.actors.machinery.envelope import Envelope, SendResult
from tocsin.engine.actors.machinery.http_actor import (
    HttpActor,
    HttpRequest,
    HttpResponse,
    PublicResolver,
)
from tocsin.engine.actors.machinery.public_address import url_fault
from tocsin.engine.actors.web_push.encryption import MOST_BYTES, encrypt, read_receiver_keys
from tocsin.engine.actors.web_push.vapid import VapidTokens
from tocsin.engine.model import CheckResult, Deferred, Message, Priority, Push, Rejected, Sent
from tocsin.engine.text import clip
from tocsin.settings.keys import VapidKey

LONGEST_LIFE = 28 * 24 * 3600
"""Seconds for which the push services keep a message for a browser that is closed."""

OVER_QUOTA_WAIT = 60.0
"""Seconds to wait where a 429 has no Retry-After."""

_URGENCY = {Priority.LOW: "low", Priority.NORMAL: "normal", Priority.HIGH: "high"}
_BADGE_BYTES = 60
_TOPIC_BYTES = 24  # 32 characters in base64url (RFC 8030 section 5.4)

log = structlog.get_logger(__name__)


class WebPushActor(HttpActor):
    """Sends pushes to the subscriptions of browsers; the address of each is its endpoint.

    Connects to public addresses over https only; with `allow_loopback` also to this machine, and by http. Further
    options are those of `HttpActor`.
    """

    def __init__(self, *, vapid: VapidKey, allow_loopback: bool = False, **options: Any) -> None:
        settings: dict[str, Any] = {"name": "web_push", "senders": 16}
        settings["resolver"] = PublicResolver(allow_loopback=allow_loopback)
        super().__init__(**(settings | options))
        self._tokens = VapidTokens(vapid, self._now)
        self._allow_loopback = allow_loopback

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the JSON without the badge."""
        if not isinstance(message.content, Push):
            return Rejected("not_a_push")
        try:
            return write_payload(message.content, tag=f"tocsin-{message.delivery_id}")
        except UnicodeEncodeError:  # half of a surrogate pair
            return Rejected("invalid_text")

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | Rejected:
        """Returns the request, encrypted for the subscription."""
        endpoint, given = check_result.address, check_result.options or {}
        if reason := url_fault(endpoint, allow_loopback=self._allow_loopback):
            return Rejected(f"web_push_{reason}", address_dead=True)
        if not envelope.draft:
            return Rejected("payload_too_large")
        try:
            keys = read_receiver_keys(str(given.get("p256dh")), str(given.get("auth")))
        except ValueError:
            return Rejected("web_push_keys_invalid", address_dead=True)
        push, priority = envelope.message.content, envelope.message.priority
        assert isinstance(push, Push)
        tag = push.collapse_id or f"tocsin-{envelope.message.delivery_id}"
        headers = {
            "Authorization": self._tokens.authorization(endpoint),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(seconds_left(push.expires_at, self._now())),
            "Topic": topic(endpoint, tag),
            "Urgency": _URGENCY[priority],
        }
        return HttpRequest(
            endpoint, encrypt(with_badge(envelope.draft, check_result.badge), keys), headers
        )

    def classify(self, response: HttpResponse) -> SendResult:
        """See the function `classify`."""
        if response.status in {400, 401, 403}:
            log.error(
                "a push service refuses our key or request: check TOCSIN_VAPID_KEY and TOCSIN_VAPID_SUBJECT",
                status=response.status,
            )
        return classify(response.status, response.retry_after)

    def classify_no_response(self, reason: str, *, sent: bool) -> SendResult:
        """Returns an outcome that the breaker does not count: other push services may work."""
        if reason == "address_forbidden":
            return SendResult(Rejected("web_push_address_forbidden"))
        return replace(super().classify_no_response(reason, sent=sent), provider_failed=False)


def classify(status: int, retry_after: float | None) -> SendResult:
    """Returns what a push service's response means (RFC 8030 sections 5 and 8, RFC 8292 section 4.2).

    Browsers have different push services, so the breaker counts none of them, and a refused key changes no
    subscription. A redirect is not followed.
    """
    reason = f"web_push_{status}"
    if 200 <= status < 300:
        return SendResult(Sent())
    if status in {404, 410}:
        return SendResult(Rejected(reason, address_dead=True))
    if status == 413:
        return SendResult(Rejected(reason))
    if status == 429:
        wait = OVER_QUOTA_WAIT if retry_after is None else retry_after
        return SendResult(Deferred(reason, wait))
    return SendResult(Deferred(reason, retry_after))


def write_payload(push: Push, *, tag: str) -> bytes:
    """Returns a declarative push message, which Safari shows by itself and our service worker elsewhere.

    Its texts are cut so that it fits, else the buttons left out; empty where it does not fit without them either.
    """

    def write(title: str, body: str) -> bytes:
        shown: dict[str, Any] = {"title": title, "body": body, "navigate": push.link or ""}
        shown |= {"tag": push.collapse_id or tag, "data": push.data}
        if push.collapse_id:
            shown["renotify"] = True
        if push.buttons:
            shown["actions"] = push.buttons
        return msgspec.json.encode({"web_push": 8030, "notification": shown})

    most = MOST_BYTES - _BADGE_BYTES
    whole = write(push.title, push.body)
    if len(whole) <= most:
        return whole
    if body := clip(push.body, most - len(write(push.title, "x")) + 1, _json_size):
        return write(push.title, body)
    if title := clip(push.title, most - len(write("x", "")) + 1, _json_size):
        return write(title, "")
    return write_payload(replace(push, buttons=()), tag=tag) if push.buttons else b""


def with_badge(draft: bytes, badge: int | None) -> bytes:
    """Returns the draft with the number of unread notifications, which only the presend check returns.

    As the standard's draft has it, and within the notification, where Safari reads it.
    """
    if badge is None:
        return draft
    message = msgspec.json.decode(draft)
    message["app_badge"] = badge
    message["notification"]["app_badge"] = str(badge)
    return msgspec.json.encode(message)


def topic(endpoint: str, tag: str) -> str:
    """Returns the name under which a later message replaces one that waits; a hash, since the service reads it."""
    digest = sha256(f"{endpoint}\0{tag}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:_TOPIC_BYTES]).decode()


def seconds_left(expires_at: datetime | None, now: datetime) -> int:
    """Returns the TTL of a message."""
    if expires_at is None:
        return LONGEST_LIFE
    return min(LONGEST_LIFE, max(0, int((expires_at - now).total_seconds())))


def _json_size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2
