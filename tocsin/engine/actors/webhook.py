"""Webhooks by Standard Webhooks (https://www.standardwebhooks.com): signed JSON, posted to a URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from tocsin.engine.actors.machinery.envelope import Envelope, SendResult
from tocsin.engine.actors.machinery.http_actor import (
    HttpActor,
    HttpRequest,
    HttpResponse,
    PublicResolver,
)
from tocsin.engine.actors.machinery.public_address import url_fault
from tocsin.engine.model import CheckResult, Deferred, Message, Push, Rejected, Sent

PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)


class WebhookActor(HttpActor):
    """Posts notifications to the URL that is the address of each.

    Signs with each of `secrets` (`whsec_…`), so that they can be rotated: add the new one, and remove the old one
    once every receiver has both. Connects to public addresses over https only, unless `allow_private`. Further
    options are those of `HttpActor`. Raises ValueError for an invalid secret.
    """

    def __init__(
        self, *, secrets: Sequence[str], allow_private: bool = False, **options: Any
    ) -> None:
        settings: dict[str, Any] = {"name": "webhook", "senders": 16}
        settings["keep_alive"] = 2.0  # long enough for another check; there are many hosts
        settings["resolver"] = None if allow_private else PublicResolver()
        super().__init__(**(settings | options))
        self._keys = [to_key(secret) for secret in secrets]
        if not self._keys:
            raise ValueError("a webhook needs a secret")
        self._allow_private = allow_private

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the notification as JSON, the same for each attempt."""
        push = message.content
        if not isinstance(push, Push):
            return Rejected("not_a_push")
        data = {"title": push.title, "body": push.body} | push.data
        kind = push.data.get("event_type", "notification")
        return msgspec.json.encode({"type": kind, "data": data})

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | Rejected:
        """Returns the signed request."""
        if reason := url_fault(check_result.address, allow_private=self._allow_private):
            return Rejected(f"webhook_{reason}")
        name, at = f"msg_{envelope.message.delivery_id}", str(int(self._now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": sign(self._keys, name, at, envelope.draft),
        }
        return HttpRequest(check_result.address, envelope.draft, headers)

    def classify(self, response: HttpResponse) -> SendResult:
        """See the function `classify`."""
        return classify(response.status, response.retry_after)

    def classify_no_response(self, reason: str, *, sent: bool) -> SendResult:
        """Returns an outcome that the breaker does not count: other endpoints may work."""
        if reason == "address_forbidden":
            return SendResult(Rejected(f"webhook_{reason}"))
        result = super().classify_no_response(reason, sent=sent)
        return replace(result, provider_failed=False)


def classify(status: int, retry_after: float | None) -> SendResult:
    """Returns what an endpoint's response means: 2xx accepted, 410 no more, a redirect is not followed, else later.

    Other endpoints may work, so the breaker does not count it.
    """
    if 200 <= status < 300:
        return SendResult(Sent())
    if status == 410:
        return SendResult(Rejected("webhook_410", address_dead=True))
    if 300 <= status < 400:
        return SendResult(Rejected(f"webhook_{status}"))
    return SendResult(Deferred(f"webhook_{status}", retry_after))


def to_key(secret: str) -> bytes:
    """Returns the bytes of a `whsec_…` secret, 24 to 64 of them; raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError(f"a webhook's secret is {PREFIX} and 24 to 64 bytes in base64")
    return key


def sign(keys: Sequence[bytes], name: str, at: str, body: bytes) -> str:
    """Returns the webhook-signature header: one `v1,` signature over id, timestamp and body for each key."""
    signed = b".".join((name.encode(), at.encode(), body))
    made = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in made)
