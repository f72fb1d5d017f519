"""Sends to channels of chats: one actor for all services, each with its own format, limits and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from msgspec.structs import replace

from tocsin.engine.actors.chat import apprise
from tocsin.engine.actors.chat.discord import Discord
from tocsin.engine.actors.chat.pacing import Pacing
from tocsin.engine.actors.chat.service import ChatReply, ChatRequest, ChatService, ChatText
from tocsin.engine.actors.chat.slack import Slack
from tocsin.engine.actors.chat.teams import Teams
from tocsin.engine.actors.chat.telegram import Telegram
from tocsin.engine.actors.machinery.envelope import Clock, Envelope, RetryNow, SendResult
from tocsin.engine.actors.machinery.http_actor import (
    HttpActor,
    HttpConnection,
    HttpRequest,
    HttpResponse,
    PublicResolver,
)
from tocsin.engine.actors.machinery.public_address import url_fault
from tocsin.engine.model import CheckResult, Message, Push, Rejected, Unsent

SERVICES: Mapping[str, ChatService] = {
    each.kind: each for each in (Slack(), Discord(), Teams(), Telegram())
}

_REMEMBERED = 1000  # messages that can't be edited

log = structlog.get_logger(__name__)


class ChatActor(HttpActor):
    """Posts notifications to the URLs of chats; the presend check returns the kind of each.

    A message whose target has had enough for now goes back to the ledger until its turn, so that no sender waits.
    Connects to public addresses over https only; with `allow_loopback` also to this machine, and by http. Further
    options are those of `HttpActor`.
    """

    def __init__(
        self,
        *,
        services: Mapping[str, ChatService] = SERVICES,
        allow_loopback: bool = False,
        clock: Clock = time.monotonic,
        **options: Any,
    ) -> None:
        settings: dict[str, Any] = {"name": "chat", "senders": 16, "timeout": 10.0}
        settings["clock"] = clock
        settings["keep_alive"] = 5.0
        settings["resolver"] = PublicResolver(allow_loopback=allow_loopback)
        super().__init__(**(settings | options))
        self._services = services
        self._allow_loopback = allow_loopback
        self._pacing = Pacing(clock)
        self._gone: dict[tuple[str, str], None] = {}  # messages that were deleted, by target and id

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns nothing: what is written depends on the target."""
        return b"" if isinstance(message.content, Push) else Rejected("not_a_push")

    async def transmit(
        self, connection: HttpConnection, envelope: Envelope
    ) -> SendResult | RetryNow:
        """Sends one request where it is the message's turn."""
        check_result = envelope.check_result
        if check_result is None:
            return RetryNow(keep_connection=True)
        if (check_result.options or {}).get("kind") == apprise.KIND:
            return await self._send_by_apprise(envelope, check_result.address)
        if reason := url_fault(check_result.address, allow_loopback=self._allow_loopback):
            return SendResult(Rejected(f"chat_{reason}"))
        service = self._services.get(str((check_result.options or {}).get("kind")))
        if service is None:
            return SendResult(Rejected("chat_kind_unknown"))
        if reason := service.url_fault(check_result.address):
            return SendResult(Rejected(f"chat_{reason}"))
        url, delivery_id = check_result.address, envelope.message.delivery_id
        wait = self._pacing.wait(
            delivery_id,
            url,
            service.limits_of(url),
            account=service.account(url),
            shared=service.shared_limit,
        )
        if wait:
            return SendResult(Unsent("paced", wait))
        result = await super().transmit(connection, envelope)
        if isinstance(result, SendResult):
            self._pacing.done(delivery_id)
        return result

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | Rejected:
        """Returns the request of the target's service."""
        options = check_result.options or {}
        url, edits = check_result.address, options.get("replaces")
        if edits is not None and (url, edits) in self._gone:
            edits = None
        return self._services[options["kind"]].request(url, _text(envelope), edits)

    def classify(self, response: HttpResponse) -> SendResult | RetryNow:
        """Returns what the service's response means; a new one is posted in place of one that can't be edited."""
        request = response.request
        assert isinstance(request, ChatRequest)
        service = self._services[request.kind]
        reply: ChatReply = service.classify(response)
        if reply.gone and request.edits is not None:
            self._remember_gone(request.target, request.edits)
            return RetryNow(keep_connection=True)
        if reply.hold is not None:
            key = service.account(request.target) if reply.everywhere else request.target
            self._pacing.hold(key, reply.hold)
        outcome = reply.outcome
        if isinstance(outcome, Rejected) and not outcome.address_dead:
            log.error("a chat refuses a message", kind=request.kind, reason=outcome.reason)
        return SendResult(outcome)

    def classify_no_response(self, reason: str, *, sent: bool) -> SendResult:
        """Returns an outcome that the breaker does not count: other services may work."""
        if reason == "address_forbidden":
            return SendResult(Rejected(f"chat_{reason}"))
        return replace(super().classify_no_response(reason, sent=sent), provider_failed=False)

    async def _send_by_apprise(self, envelope: Envelope, url: str) -> SendResult | RetryNow:
        """Sends with Apprise, which makes its own connection."""
        delivery_id = envelope.message.delivery_id
        wait = self._pacing.wait(delivery_id, url, (apprise.LIMIT,), account=apprise.KIND)
        if wait:
            return SendResult(Unsent("paced", wait))
        reason = await asyncio.to_thread(
            apprise.apprise_fault, url, allow_loopback=self._allow_loopback
        )
        if reason is not None:
            return SendResult(Rejected(f"apprise_{reason.removeprefix('apprise_')}"))
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        envelope.commit()
        outcome = await apprise.send(url, _text(envelope))
        self._pacing.done(delivery_id)
        return SendResult(outcome)

    def _remember_gone(self, target: str, message_id: str) -> None:
        self._gone[target, message_id] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]


def _text(envelope: Envelope) -> ChatText:
    push = envelope.message.content
    assert isinstance(push, Push)
    return ChatText(push.title, push.body, push.link)
