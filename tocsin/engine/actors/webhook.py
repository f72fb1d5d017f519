"""Webhooks by Standard Webhooks (https://www.standardwebhooks.com): signed JSON, posted to whoever asked for it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec.structs import replace
from yarl import URL

from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.http_connection import (
    ForbiddenAddressError,
    HttpConnection,
    Lost,
    lost,
    retry_after,
)
from tocsin.engine.actors.machinery.mailbox import Envelope
from tocsin.engine.actors.machinery.outcome import Again, Answer
from tocsin.engine.model import Deferred, Message, PresendCheck, Push, Rejected, Sent

PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)\.?", re.IGNORECASE | re.ASCII)
"""An IPv4 address in one of its old spellings (127.1, 0x7f000001), which no name looks like."""

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


def _utc_now() -> datetime:
    return datetime.now(UTC)


class WebhookActor(Actor[HttpConnection]):
    """Posts notifications to the URL that is the address of each.

    Signs with each of `secrets` (`whsec_…`), so that they can be rotated: the new one is added, the old one taken
    away once every receiver has both. Connects to public addresses over https only, unless `allow_private`.
    `timeout` bounds an exchange in seconds. Raises ValueError for a secret that is none.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        secrets: Sequence[str],
        allow_private: bool = False,
        ca_file: Path | str | None = None,
        timeout: float = 15.0,
        now: Callable[[], datetime] = _utc_now,
        **options: Any,
    ) -> None:
        super().__init__(name="webhook", presend_check=presend_check, **({"senders": 16} | options))
        self._keys = [to_key(secret) for secret in secrets]
        if not self._keys:
            raise ValueError("a webhook needs a secret")
        self._allow_private = allow_private
        self._context = ssl.create_default_context(cafile=ca_file)
        self._timeout = timeout
        self._now = now

    def draft(self, message: Message) -> bytes | Rejected:
        """The notification as JSON, the same for each attempt."""
        push = message.content
        if not isinstance(push, Push):
            return Rejected("not_a_push")
        told = {"title": push.title, "body": push.body} | push.data
        kind = push.data.get("event_type", "notification")
        return msgspec.json.encode({"type": kind, "data": told})

    async def prepare(self, connection: HttpConnection | None) -> HttpConnection | Deferred:
        """A connection that opens as it is used: the host is known with the address only."""
        return connection or HttpConnection(
            context=self._context,
            timeout=self._timeout,
            keep_alive=2.0,  # long enough for another presend check; there are many hosts
            resolver=None if self._allow_private else PublicResolver(),
        )

    async def transmit(self, connection: HttpConnection, envelope: Envelope) -> Answer | Again:
        """Posts it to the URL of this moment; see `classify` for the answers."""
        check_result = envelope.check_result
        if check_result is None:
            return Again(keep=True)
        if fault := url_fault(check_result.address, allow_private=self._allow_private):
            return Answer(Rejected(fault))
        now = self._now()
        name, at = f"msg_{envelope.message.delivery_id}", str(int(now.timestamp()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": sign(self._keys, name, at, envelope.draft),
        }
        reply = await connection.post(
            envelope, check_result.address, body=envelope.draft, headers=headers
        )
        if isinstance(reply, Again):
            return reply
        if isinstance(reply, Lost):
            return unanswered(reply.how, sent=envelope.committed)
        answer = classify(reply.status, retry_after(reply.headers.get("Retry-After"), now))
        if isinstance(answer.outcome, Rejected) and answer.outcome.address_dead:
            return replace(
                answer, outcome=replace(answer.outcome, dead_since=check_result.checked_at)
            )
        return answer

    async def discard(self, connection: HttpConnection) -> None:
        """Closes it."""
        await connection.close()


def classify(status: int, retry_after: float | None) -> Answer:
    """What an endpoint's answer means: 2xx took it, 410 wants no more, a redirect is not followed, all else is later.

    Whatever it is, it says nothing of other endpoints: the breaker stays out of it.
    """
    if 200 <= status < 300:
        return Answer(Sent())
    if status == 410:
        return Answer(Rejected("webhook_410", address_dead=True))
    if 300 <= status < 400:
        return Answer(Rejected(f"webhook_{status}"))
    return Answer(Deferred(f"webhook_{status}", retry_after))


def unanswered(how: str, *, sent: bool) -> Answer:
    """What it means that no answer came."""
    if how == "address_forbidden":
        return Answer(Rejected(f"webhook_{how}"))
    return replace(lost("webhook", how, sent=sent), provider_failed=False)


def to_key(secret: str) -> bytes:
    """The bytes of a `whsec_…` secret, 24 to 64 of them; raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError(f"a webhook's secret is {PREFIX} and 24 to 64 bytes in base64")
    return key


def sign(keys: Sequence[bytes], name: str, at: str, body: bytes) -> str:
    """The webhook-signature header: one `v1,` signature over id, timestamp and body for each key."""
    signed = b".".join((name.encode(), at.encode(), body))
    made = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in made)


def url_fault(url: str, *, allow_private: bool) -> str | None:
    """Why nothing is posted to a URL: it is none, not https, has credentials in it, or names a private address."""
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError:
        return "webhook_url_invalid"
    if parts.scheme not in {"https", "http"} or not host or not port or "@" in parts.raw_authority:
        return "webhook_url_invalid"
    if allow_private:
        return None
    if parts.scheme != "https":
        return "webhook_url_not_https"
    return None if _may_be_public(host) else "webhook_address_forbidden"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, as is one that is wrapped in it."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ip_address(int(ip) & 0xFFFFFFFF)  # type: ignore[assignment]
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _may_be_public(host: str) -> bool:
    """A name that is still to be resolved, or a public address."""
    try:
        return is_public(host)
    except ValueError:
        return not _NUMBER.fullmatch(host)


class PublicResolver(AbstractResolver):
    """Resolves once, and to public addresses only: what it answers is what is connected to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of a host; raises ForbiddenAddressError if any of them is private."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results = [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]
        if not all(is_public(result["host"]) for result in results):
            raise ForbiddenAddressError
        return results

    async def close(self) -> None:
        """Holds nothing."""
