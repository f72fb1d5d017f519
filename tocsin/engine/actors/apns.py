"""Push to Apple devices by APNs: many requests at the same time over a few connections that all senders share.

Each sender reserves a stream before its presend check.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import structlog
from aioapns.common import PRIORITY_HIGH, PRIORITY_NORMAL, PushType

from tocsin.engine.actors.apns_connection import (
    MAX_PAYLOAD,
    ApnsConnection,
    ConnectError,
    Endpoint,
    Request,
    connect,
)
from tocsin.engine.actors.apns_reply import (
    ApnsResponse,
    NoResponse,
    RefusalKind,
    classify,
    classify_no_response,
    refusal_kind,
)
from tocsin.engine.actors.apns_token import ProviderToken, TokenUnavailable
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
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
from tocsin.engine.text import clip, json_size

_CLOSE_TIMEOUT = 1.0  # seconds for an orderly close


class StreamSlot:
    """One stream on a connection, reserved until it is released."""

    def __init__(self, connection: ApnsConnection) -> None:
        connection.reserved += 1
        self.connection = connection
        self._reserved = True

    @property
    def usable(self) -> bool:
        """Whether a request may still be sent on it."""
        return self._reserved and self.connection.usable

    def release(self) -> None:
        """Releases the stream; may be called several times."""
        if self._reserved:
            self._reserved = False
            self.connection.reserved -= 1
            self.connection.changed()


class ApnsPool:
    """Opens connections when they are needed, one at a time and at most `most`."""

    def __init__(self, endpoint: Endpoint, *, most: int = 2) -> None:
        self._endpoint = endpoint
        self._most = most
        self._connections: list[ApnsConnection] = []
        self._opening: asyncio.Task[None] | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> StreamSlot:
        """Waits for a stream; raises ConnectError if there is no connection and none can be opened."""
        while True:
            for connection in self._connections:
                if connection.free_streams > 0:
                    return StreamSlot(connection)
            if self._may_open:
                self._opening = asyncio.create_task(self._open())
            await self._wait()

    async def close(self) -> None:
        """Closes all connections; requests in flight are lost."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([each.closed for each in connections], timeout=_CLOSE_TIMEOUT)
        for connection in connections:
            connection.abort("shutdown")

    @property
    def _may_open(self) -> bool:
        open_ones = sum(not each.closing for each in self._connections)
        return self._opening is None and open_ones < self._most

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self._changed()  # it was woken and cancelled at once: wakes the next one
            raise

    async def _open(self) -> None:
        """Opens a connection, in its own task: the sender that asked for it may be cancelled meanwhile."""
        error: ConnectError | None = None
        try:
            connection = await connect(self._endpoint, self._changed)
            self._connections.append(connection)
        except ConnectError as failure:
            error = failure
        finally:
            self._opening = None
        if error is None:
            self._changed()
        elif not any(not each.closing for each in self._connections):
            self._fail(error)

    def _fail(self, error: ConnectError) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ConnectError(*error.args))

    def _changed(self) -> None:
        """Wakes as many senders as there are free streams, or one that may open a connection."""
        self._connections = [each for each in self._connections if not each.closed.done()]
        free = sum(each.free_streams for each in self._connections if each.free_streams > 0)
        wake = max(free, 1 if self._may_open else 0)
        while wake > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wake -= 1


# The payload: JSON within Apple's limit ("Generating a remote notification").

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
    title = clip(title, room, json_size)
    return _encode(push, title, clip(body, room - json_size(title), json_size))


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
        result = classify(
            response.status,
            response.reason,
            response.timestamp,
            response.retry_after,
            apns_id=dict(request.headers)["apns-id"],
        )
        kind = refusal_kind(response.status, response.reason) if response.status != 200 else None
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
    return classify_no_response(loss)
