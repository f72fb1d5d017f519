"""Push to Apple devices by APNs: many requests at the same time over a few connections."""

from __future__ import annotations

import re
import ssl
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import structlog
from aioapns.common import PRIORITY_HIGH, PRIORITY_NORMAL, PushType

from tocsin.engine.actors.apns import reply as replies
from tocsin.engine.actors.apns.connection import ApnsConnection, Request
from tocsin.engine.actors.apns.pool import ApnsPool, ConnectError, Endpoint, StreamSlot
from tocsin.engine.actors.apns.provider_token import ProviderToken, TokenUnavailable
from tocsin.engine.actors.apns.reply import ApnsResponse, RefusalKind
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, NoResponse, RetryNow, SendResult
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    PresendCheck,
    Priority,
    Push,
    PushKind,
    Rejected,
)
from tocsin.engine.text import clip

# The payload: JSON within Apple's limit ("Generating a remote notification").

MAX_PAYLOAD = 4096
MAX_COLLAPSE_ID = 64

_START = b'{"aps":{'
_BADGE_ROOM = len(b'"badge":-9223372036854775808,')
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEADER_SAFE = re.compile(r"[!-~]{1,64}")


class ApnsTooLargeError(Exception):
    """The payload is too large even without title and body."""


def draft(push: Push) -> bytes:
    """Returns the payload without its badge, which `with_badge` adds; raises ApnsTooLargeError."""
    title, body = _clean(push.title), _clean(push.body)
    room = MAX_PAYLOAD - _BADGE_ROOM
    whole = _encode(push, title, body)
    if len(whole) <= room:
        return whole
    if push.kind is not PushKind.ALERT or len(_encode(push, "", "")) > room:
        raise ApnsTooLargeError
    room -= len(_encode(push, "t", "b")) - len("tb")
    title = clip(title, room, _size)
    return _encode(push, title, clip(body, room - _size(title), _size))


def with_badge(draft: bytes, badge: int | None) -> bytes:
    """Returns the whole payload with the number on the app's icon, which None does not change."""
    if badge is None:
        return draft
    rest = draft[len(_START) :]
    return b'%b"badge":%d%b%b' % (_START, badge, b"" if rest.startswith(b"}") else b",", rest)


def collapse_id(name: str) -> str:
    """Returns an id of at most 64 bytes that is valid in a header: the name itself if it is, else its digest."""
    return name if _HEADER_SAFE.fullmatch(name) else sha256(_clean(name).encode()).hexdigest()


def _encode(push: Push, title: str, body: str) -> bytes:
    """Returns JSON with `aps` first, so that the place of the badge is known."""
    data = {name: value for name, value in push.data.items() if name != "aps"}
    return msgspec.json.encode({"aps": _aps(push, title, body), **data})


def _aps(push: Push, title: str, body: str) -> dict[str, Any]:
    if push.kind is PushKind.BADGE:
        return {}
    if push.kind is PushKind.BACKGROUND:
        return {"content-available": 1}
    parts = {"title": title, "body": body}
    aps: dict[str, Any] = {"alert": {name: text for name, text in parts.items() if text}}
    if push.sound is not None:
        aps["sound"] = push.sound
    if push.thread_id is not None:
        aps["thread-id"] = push.thread_id
    if push.category is not None:
        aps["category"] = push.category
    return aps


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2


def _clean(text: str) -> str:
    """Replaces lone surrogates, which JSON can't contain."""
    return _SURROGATE.sub("\ufffd", text)


PRODUCTION_URL = "https://api.push.apple.com"
SANDBOX_URL = "https://api.sandbox.push.apple.com"

_ADVICE = (
    "apns refuses every device, so none is believed to be bad: see TOCSIN_APNS_TOPIC, TOCSIN_APNS_URL,"
    " and the environment that the app registers its tokens with"
)
_DEVICE = re.compile(r"[0-9A-Fa-f]{8,200}")
_LOGGED = {
    RefusalKind.CREDENTIALS: "apns refuses our key: see TOCSIN_APNS_KEY, _KEY_ID and _TEAM_ID, and the clock",
    RefusalKind.SETTING: "apns refuses our topic: see TOCSIN_APNS_TOPIC",
    RefusalKind.REQUEST: "apns refuses a push as malformed",
}

log = structlog.get_logger(__name__)


class ApnsActor(Actor[StreamSlot]):
    """Sends pushes to the devices of one environment; for the other one, another actor with its URL.

    `tokens` is shared by all actors of a team. `topic` is the app's bundle id. `installation` is any text that stays
    the same for this installation: with the delivery's id it makes the apns-id. At most `senders` pushes are in flight,
    over at most `connections` connections; `timeout` bounds the wait for a response in seconds, `connect` a connection,
    and `quiet` the silence before a ping. Further options are those of `Actor`.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        tokens: ProviderToken,
        topic: str,
        installation: str,
        url: str = PRODUCTION_URL,
        name: str = "apns",
        ca_file: Path | str | None = None,
        connections: int = 2,
        senders: int = 64,
        timeout: float = 20.0,
        connect: float = 10.0,
        quiet: float = 15.0,
        **options: Any,
    ) -> None:
        super().__init__(
            name=name, presend_check=presend_check, senders=senders, advice=_ADVICE, **options
        )
        tls = ssl.create_default_context(cafile=ca_file)
        tls.set_alpn_protocols(["h2"])
        endpoint = Endpoint(url=url, tls=tls, connect=connect, quiet=quiet)
        self._pool = ApnsPool(endpoint, most=connections)
        self._tokens = tokens
        self._topic = topic
        self._namespace = uuid5(NAMESPACE_URL, f"tocsin:{installation}")
        self._timeout = timeout

    async def stop(self, grace: float = 5.0) -> None:
        """Stops, and closes the connections."""
        await super().stop(grace)
        await self._pool.close()

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the payload without its badge."""
        assert isinstance(message.content, Push)
        try:
            return draft(message.content)
        except ApnsTooLargeError:
            return Rejected("payload_too_large")
        except (TypeError, ValueError, msgspec.MsgspecError):
            return Rejected("payload_not_json")

    async def prepare(self, connection: StreamSlot | None) -> StreamSlot | Deferred:
        """Returns a stream on a usable connection."""
        if connection is not None:
            if connection.usable:
                return connection
            connection.release()
        try:
            return await self._pool.acquire()
        except ConnectError as error:
            return Deferred(str(error))

    async def transmit(self, connection: StreamSlot, envelope: Envelope) -> SendResult | RetryNow:
        """Sends the push to the device of the check; see `reply.classify` for the responses."""
        check_result = envelope.check_result
        if check_result is None:
            return RetryNow(keep_connection=True)
        request = self._request(envelope, check_result)
        if isinstance(request, Rejected):
            return SendResult(request)
        try:
            token = await self._tokens.token()
        except TokenUnavailable:
            return SendResult(Deferred("apns_token_unavailable"), provider_failed=True)
        if not connection.usable:
            return RetryNow(keep_connection=False)
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        envelope.commit()
        http2 = connection.connection
        try:
            response = await http2.send(request, token, timeout=self._timeout)
        finally:
            connection.release()
        if isinstance(response, NoResponse):
            return _on_no_response(response, http2)
        return await self._on_response(response, token, http2, request)

    async def discard(self, connection: StreamSlot) -> None:
        """Releases its stream; other senders use the connection too."""
        connection.release()

    async def _on_response(
        self,
        response: ApnsResponse,
        token: str,
        http2: ApnsConnection,
        request: Request,
    ) -> SendResult | RetryNow:
        if response.reason == "ExpiredProviderToken" and await self._renewed(token):
            return RetryNow(keep_connection=True)
        result = replies.classify(
            response.status,
            response.reason,
            response.timestamp,
            response.retry_after,
            apns_id=dict(request.headers)["apns-id"],
        )
        kind = (
            replies.refusal_kind(response.status, response.reason)
            if response.status != 200
            else None
        )
        if kind in _LOGGED:
            log.error(
                _LOGGED[kind], actor=self.name, status=response.status, reason=response.reason
            )
        if not result.keep_connection:
            http2.retire()
        return result

    async def _renewed(self, token: str) -> bool:
        try:
            return await self._tokens.renew(token)
        except TokenUnavailable:
            return False

    def _request(self, envelope: Envelope, check_result: CheckResult) -> Request | Rejected:
        message = envelope.message
        push = message.content
        assert isinstance(push, Push)
        if not _DEVICE.fullmatch(check_result.address):
            return Rejected("apns_invalid_token", quarantine=True)
        badge = None if push.kind is PushKind.BACKGROUND else check_result.badge
        if push.kind is PushKind.BADGE and badge is None:
            return Rejected("apns_no_badge")
        headers = self._headers(push, message.priority, self.apns_id(message.delivery_id))
        return Request(check_result.address, headers, with_badge(envelope.draft, badge))

    def apns_id(self, delivery_id: int) -> UUID:
        """Returns the same id for each attempt of a delivery, and for no other delivery of any installation."""
        return uuid5(self._namespace, f"delivery:{delivery_id}")

    def _headers(
        self, push: Push, priority: Priority, apns_id: UUID
    ) -> tuple[tuple[str, str], ...]:
        """Returns the headers; a push that changes only the badge is no background push to Apple, but not urgent."""
        background = push.kind is PushKind.BACKGROUND
        urgent = push.kind is PushKind.ALERT and priority is not Priority.LOW
        headers = [
            ("apns-topic", self._topic),
            ("apns-push-type", (PushType.BACKGROUND if background else PushType.ALERT).value),
            ("apns-priority", PRIORITY_HIGH if urgent else PRIORITY_NORMAL),
            ("apns-id", str(apns_id)),
        ]
        if push.expires_at is not None:
            headers.append(("apns-expiration", str(max(1, int(push.expires_at.timestamp())))))
        # without it, a repeated push would be shown twice: Apple does not compare apns-ids
        name = push.collapse_id or str(apns_id)
        headers.append(("apns-collapse-id", collapse_id(name)))
        return tuple(headers)


def _on_no_response(loss: NoResponse, http2: ApnsConnection) -> SendResult | RetryNow:
    """Retries at once what the server did not process, unless it has never responded on this connection."""
    if loss.unprocessed and http2.responses:
        return RetryNow(keep_connection=False)
    return replies.classify_no_response(loss)
