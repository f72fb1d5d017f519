"""Push to Apple devices by APNs: many at once over a few connections, each to its own device."""

from __future__ import annotations

import re
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import structlog
from aioapns.common import PRIORITY_HIGH, PRIORITY_NORMAL, PushType

from tocsin.engine.actors import apns_reply, payload
from tocsin.engine.actors.answer import Again, Answer
from tocsin.engine.actors.apns_connection import ApnsConnection, Request
from tocsin.engine.actors.apns_pool import ApnsPool, ConnectError, Endpoint, Lease
from tocsin.engine.actors.apns_reply import Fault, Lost, Reply
from tocsin.engine.actors.base import Actor
from tocsin.engine.actors.mailbox import Envelope
from tocsin.engine.actors.provider_token import TokenSource, TokenUnavailable
from tocsin.engine.model import (
    Deferred,
    Look,
    Message,
    Priority,
    Push,
    PushKind,
    Rejected,
    Verdict,
)

PRODUCTION_URL = "https://api.push.apple.com"
SANDBOX_URL = "https://api.sandbox.push.apple.com"

_STORM = (
    "apns refuses every device, so none is believed to be bad: see TOCSIN_APNS_TOPIC, TOCSIN_APNS_URL,"
    " and the environment that the app registers its tokens with"
)
_DEVICE = re.compile(r"[0-9A-Fa-f]{8,200}")
_ADVICE = {
    Fault.CREDENTIALS: "apns refuses our key: see TOCSIN_APNS_KEY, _KEY_ID and _TEAM_ID, and the clock",
    Fault.SETTING: "apns refuses our topic: see TOCSIN_APNS_TOPIC",
    Fault.REQUEST: "apns refuses a push as malformed",
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
        look: Look,
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
        super().__init__(name=name, look=look, senders=senders, advice=_STORM, **options)
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
            return payload.draft(message.content)
        except payload.TooLargeError:
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

    async def transmit(self, connection: Lease, envelope: Envelope) -> Answer | Again:
        """Sends the push to the device of this moment; see `apns_reply.classify` for the answers."""
        verdict = envelope.verdict
        if verdict is None:
            return Again(keep=True)
        request = self._request(envelope, verdict)
        if isinstance(request, Rejected):
            return Answer(request)
        try:
            token = await self._tokens.token()
        except TokenUnavailable:
            return Answer(Deferred("apns_token_unavailable"), provider_failed=True)
        if not connection.good:
            return Again(keep=False)
        if not envelope.begin():
            return Again(keep=True)
        envelope.commit()
        wire = connection.connection
        try:
            reply = await wire.send(request, token, timeout=self._timeout)
        finally:
            connection.release()
        if isinstance(reply, Lost):
            return _on_lost(reply, wire)
        return await self._on_reply(reply, token, wire, request, verdict)

    async def discard(self, connection: Lease) -> None:
        """Gives its stream back; the connection is for others too."""
        connection.release()

    async def _on_reply(
        self, reply: Reply, token: str, wire: ApnsConnection, request: Request, verdict: Verdict
    ) -> Answer | Again:
        if reply.reason == "ExpiredProviderToken" and await self._renewed(token):
            return Again(keep=True)
        answer = apns_reply.classify(
            reply.status,
            reply.reason,
            reply.timestamp,
            reply.retry_after,
            apns_id=dict(request.headers)["apns-id"],
        )
        whose = apns_reply.fault(reply.status, reply.reason) if reply.status != 200 else None
        if whose in _ADVICE:
            log.error(_ADVICE[whose], actor=self.name, status=reply.status, reason=reply.reason)
        if not answer.keep:
            wire.retire()
        return _dated(answer, verdict.checked_at)

    async def _renewed(self, token: str) -> bool:
        try:
            return await self._tokens.renew(token)
        except TokenUnavailable:
            return False

    def _request(self, envelope: Envelope, verdict: Verdict) -> Request | Rejected:
        message = envelope.message
        push = message.content
        assert isinstance(push, Push)
        if not _DEVICE.fullmatch(verdict.address):
            return Rejected("apns_invalid_token", quarantine=True)
        badge = None if push.kind is PushKind.BACKGROUND else verdict.badge
        if push.kind is PushKind.BADGE and badge is None:
            return Rejected("apns_no_badge")
        headers = self._headers(push, message.priority, self.apns_id(message.delivery_id))
        return Request(verdict.address, headers, payload.with_badge(envelope.draft, badge))

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
        collapse_id = push.collapse_id or str(apns_id)
        headers.append(("apns-collapse-id", payload.collapse_id(collapse_id)))
        return tuple(headers)


def _on_lost(loss: Lost, wire: ApnsConnection) -> Answer | Again:
    """What the server never took goes again at once, unless it has never answered anything."""
    if loss.untouched and wire.answered:
        return Again(keep=False)
    return apns_reply.lost(loss.how, untouched=loss.untouched)


def _dated(answer: Answer, checked_at: datetime) -> Answer:
    """A token that is dead as of no known time was so when it was looked up for this push."""
    outcome = answer.outcome
    if isinstance(outcome, Rejected) and outcome.address_dead and outcome.dead_since is None:
        dated = msgspec.structs.replace(outcome, dead_since=checked_at)
        return msgspec.structs.replace(answer, outcome=dated)
    return answer
