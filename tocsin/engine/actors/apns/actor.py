"""Push to Apple devices by APNs: many at once over a few connections, each to its own device."""

from __future__ import annotations

import re
import ssl
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import regex
import structlog
from aioapns.common import PRIORITY_HIGH, PRIORITY_NORMAL, PushType

from tocsin.engine.actors.apns import reply as replies
from tocsin.engine.actors.apns.connection import ApnsConnection, Request
from tocsin.engine.actors.apns.pool import ApnsPool, ConnectError, Endpoint, Lease
from tocsin.engine.actors.apns.provider_token import TokenSource, TokenUnavailable
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

# A push's payload: JSON within the provider's limit, its body cut between two characters as people see them.
#
# Apple: "Generating a remote notification". What a reader takes for one character can be many code
# points (a family of emoji, a flag, a letter with its accents): Unicode's UAX #29 says where they end.

MAX_PAYLOAD = 4096
MAX_COLLAPSE_ID = 64

_ELLIPSIS = "…"
_CLUSTER = regex.compile(r"\X")
_START = b'{"aps":{'
_BADGE_ROOM = len(b'"badge":-9223372036854775808,')
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEADER_SAFE = re.compile(r"[!-~]{1,64}")


class TooLargeError(Exception):
    """What the app adds is beyond the limit even without title and body."""


def draft(push: Push) -> bytes:
    """The payload for APNs but for its badge, which `with_badge` adds; raises TooLargeError."""
    title, body = _clean(push.title), _clean(push.body)
    room = MAX_PAYLOAD - _BADGE_ROOM
    if len(_encode(push, "", "")) > room:
        raise TooLargeError
    if push.kind is PushKind.ALERT and len(_encode(push, title, body)) > room:
        room -= len(_encode(push, "t", "b")) - len("tb")
        title = clip(title, room)
        body = clip(body, room - _size(title))
    return _encode(push, title, body)


def with_badge(drafted: bytes, badge: int | None) -> bytes:
    """The whole payload with the number on the app's icon; None leaves that as it is."""
    if badge is None:
        return drafted
    rest = drafted[len(_START) :]
    return b'%b"badge":%d%b%b' % (_START, badge, b"" if rest.startswith(b"}") else b",", rest)


def clip(text: str, room: int) -> str:
    """The longest beginning of a text whose JSON takes at most `room` bytes, quotes not counted.

    What is cut off is marked by an ellipsis, and no character as people see it is cut in two. Empty
    where not even the ellipsis fits.
    """
    if _size(text) <= room:
        return text
    room -= _size(_ELLIPSIS)
    if room < 0:
        return ""
    # No code point is less than a byte, so that what counts is within the first `room` of them.
    clusters: list[str] = _CLUSTER.findall(text[: room + 1])
    sizes = accumulate(_size(cluster) for cluster in clusters)
    fitting = sum(1 for size in sizes if size <= room)
    return "".join(clusters[:fitting]).rstrip() + _ELLIPSIS


def collapse_id(name: str) -> str:
    """An id of at most 64 bytes that is safe in a header; a digest where the name itself isn't."""
    return name if _HEADER_SAFE.fullmatch(name) else sha256(_clean(name).encode()).hexdigest()


def _encode(push: Push, title: str, body: str) -> bytes:
    """JSON with `aps` first, so that the badge has its known place."""
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
    return aps


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2


def _clean(text: str) -> str:
    """Half a surrogate pair is no text, and JSON can't hold it."""
    return _SURROGATE.sub("\ufffd", text)


PRODUCTION_URL = "https://api.push.apple.com"
SANDBOX_URL = "https://api.sandbox.push.apple.com"

_STORM = (
    "apns refuses every device, so none is believed to be bad: see TOCSIN_APNS_TOPIC, TOCSIN_APNS_URL,"
    " and the environment that the app registers its tokens with"
)
_DEVICE = re.compile(r"[0-9A-Fa-f]{8,200}")
_ADVICE = {
    RefusalKind.CREDENTIALS: "apns refuses our key: see TOCSIN_APNS_KEY, _KEY_ID and _TEAM_ID, and the clock",
    RefusalKind.SETTING: "apns refuses our topic: see TOCSIN_APNS_TOPIC",
    RefusalKind.REQUEST: "apns refuses a push as malformed",
}

log = structlog.get_logger(__name__)


class ApnsActor(Actor[Lease]):
    """Sends pushes to the devices of one environment; for the other one, another actor with its URL.

    `tokens` is shared by all actors of a team. `topic` is the app's bundle id. `installation` is any
    text that stays the same for this installation: with the delivery's id it makes the apns-id. At
    most `senders` pushes are under way, over at most `connections`; `timeout` bounds each answer in
    seconds, `connect` a connection, and `quiet` the silence before a connection's pulse is taken.
    Further options are those of `Actor`.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        tokens: TokenSource,
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
            name=name, presend_check=presend_check, senders=senders, advice=_STORM, **options
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
        """As any actor, and then closes its connections."""
        await super().stop(grace)
        await self._pool.close()

    def draft(self, message: Message) -> bytes | Rejected:
        """The payload, but for its badge."""
        assert isinstance(message.content, Push)
        try:
            return draft(message.content)
        except TooLargeError:
            return Rejected("payload_too_large")
        except (TypeError, ValueError, msgspec.MsgspecError):
            return Rejected("payload_not_json")

    async def prepare(self, connection: Lease | None) -> Lease | Deferred:
        """A stream on a connection that is good."""
        if connection is not None:
            if connection.good:
                return connection
            connection.release()
        try:
            return await self._pool.lease()
        except ConnectError as error:
            return Deferred(str(error))

    async def transmit(self, connection: Lease, envelope: Envelope) -> SendResult | RetryNow:
        """Sends the push to the device of this moment; see `apns_reply.classify` for the answers."""
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
        if not connection.good:
            return RetryNow(keep_connection=False)
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        envelope.commit()
        wire = connection.connection
        try:
            reply = await wire.send(request, token, timeout=self._timeout)
        finally:
            connection.release()
        if isinstance(reply, NoResponse):
            return _on_lost(reply, wire)
        return await self._on_reply(reply, token, wire, request)

    async def discard(self, connection: Lease) -> None:
        """Gives its stream back; the connection is for others too."""
        connection.release()

    async def _on_reply(
        self,
        reply: ApnsResponse,
        token: str,
        wire: ApnsConnection,
        request: Request,
    ) -> SendResult | RetryNow:
        if reply.reason == "ExpiredProviderToken" and await self._renewed(token):
            return RetryNow(keep_connection=True)
        answer = replies.classify(
            reply.status,
            reply.reason,
            reply.timestamp,
            reply.retry_after,
            apns_id=dict(request.headers)["apns-id"],
        )
        whose = replies.refusal_kind(reply.status, reply.reason) if reply.status != 200 else None
        if whose in _ADVICE:
            log.error(_ADVICE[whose], actor=self.name, status=reply.status, reason=reply.reason)
        if not answer.keep_connection:
            wire.retire()
        return answer

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
        """The same at each attempt of a delivery, and for no other delivery anywhere."""
        return uuid5(self._namespace, f"delivery:{delivery_id}")

    def _headers(
        self, push: Push, priority: Priority, apns_id: UUID
    ) -> tuple[tuple[str, str], ...]:
        """A push that changes only the badge is no background push to Apple, but need not hurry."""
        background = push.kind is PushKind.BACKGROUND
        hurry = push.kind is PushKind.ALERT and priority is not Priority.LOW
        headers = [
            ("apns-topic", self._topic),
            ("apns-push-type", (PushType.BACKGROUND if background else PushType.ALERT).value),
            ("apns-priority", PRIORITY_HIGH if hurry else PRIORITY_NORMAL),
            ("apns-id", str(apns_id)),
        ]
        if push.expires_at is not None:
            headers.append(("apns-expiration", str(max(1, int(push.expires_at.timestamp())))))
        # shown once, also where Apple takes it a second time: it knows no other way to tell that it is the same
        wanted = push.collapse_id or str(apns_id)
        headers.append(("apns-collapse-id", collapse_id(wanted)))
        return tuple(headers)


def _on_lost(loss: NoResponse, wire: ApnsConnection) -> SendResult | RetryNow:
    """What the server never took goes again at once, unless it has never answered anything."""
    if loss.unprocessed and wire.answered:
        return RetryNow(keep_connection=False)
    return replies.classify_no_response(loss)
