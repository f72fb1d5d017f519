"""Webhooks by Standard Webhooks (https://www.standardwebhooks.com): signed JSON, posted to a URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from asyncio import Semaphore
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import ClientSession

from tocsin.engine.actors.machinery.admission import ClaimPace
from tocsin.engine.actors.machinery.base import SenderState
from tocsin.engine.actors.machinery.breaker import Breaker
from tocsin.engine.actors.machinery.endpoints import url_fault
from tocsin.engine.actors.machinery.envelope import Envelope, SendResult
from tocsin.engine.actors.machinery.http_actor import HttpActor, HttpRequest, HttpResponse
from tocsin.engine.model import CheckResult, Deferred, Message, Rejected, Sent, WebhookBody

PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
# An endpoint that fails is left alone for up to so many seconds.
_LONGEST_PAUSE = 600.0
_TIMEOUT = 10.0


class WebhookActor(HttpActor):
    """Posts to the URL of one webhook, with the secrets that the presend check returns.

    Each webhook has an actor of its own (`machinery/endpoints.py`). `host_limit` bounds the requests to its host, also
    those of other webhooks there. Connects to public addresses over https only; with `allow_loopback` also to this
    machine, and by http. Further options are those of `HttpActor`.
    """

    def __init__(self, *, host_limit: Semaphore | None = None, **options: Any) -> None:
        settings: dict[str, Any] = {
            "name": "webhook",
            "senders": 8,
            "size": 128,
            "reserve": 16,
            "timeout": _TIMEOUT,
            "keep_alive": 2.0,  # long enough for another check; there are many hosts
            "pace": ClaimPace(wait=0.2, spread=0.05),
            "breaker": Breaker(first=5.0, most=_LONGEST_PAUSE),
            "public_only": True,
        }
        super().__init__(**(settings | options))
        self._host_limit = host_limit or Semaphore(8)

    async def _send(self, envelope: Envelope, sender: SenderState[ClientSession]) -> None:
        async with self._host_limit:
            await super()._send(envelope, sender)

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the body, the same for each attempt."""
        if not isinstance(message.content, WebhookBody):
            return Rejected("not_a_webhook")
        return msgspec.json.encode(message.content)

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | Rejected:
        """Returns the signed request."""
        if reason := url_fault(check_result.address, allow_loopback=self.allow_loopback):
            return Rejected(f"webhook_{reason}")
        now = self._now()
        keys = valid_keys((check_result.options or {}).get("secrets") or (), now)
        if not keys:
            return Rejected("webhook_no_secret")
        name, at = f"msg_{envelope.message.delivery_id}", str(int(now.timestamp()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": sign(keys, name, at, envelope.draft),
        }
        if envelope.message.traceparent is not None:
            headers["traceparent"] = envelope.message.traceparent
        return HttpRequest(check_result.address, envelope.draft, headers)

    def classify(self, response: HttpResponse) -> SendResult:
        """See the function `classify`."""
        return classify(response.status, response.retry_after)


def classify(status: int, retry_after: float | None) -> SendResult:
    """Returns what an endpoint's response means: 2xx accepted, 410 no more, a redirect is not followed, else later.

    A status that the next message would get too counts for the endpoint's breaker.
    """
    reason = f"webhook_{status}"
    if 200 <= status < 300:
        return SendResult(Sent())
    if status == 410:
        return SendResult(Rejected(reason, address_dead=True))
    if 300 <= status < 400:
        return SendResult(Rejected(reason))
    if status == 429:
        return SendResult(Deferred(reason, retry_after), pause=retry_after)
    failed = status >= 500 or status in {401, 403, 404}
    return SendResult(Deferred(reason, retry_after), provider_failed=failed)


def valid_keys(secrets: Sequence[Mapping[str, str]], now: datetime) -> list[bytes]:
    """Returns the keys of the secrets that are valid; one that was rotated is until its `until`."""
    return [
        to_key(each["secret"])
        for each in secrets
        if "until" not in each or datetime.fromisoformat(each["until"]) > now
    ]


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
