"""Sends to channels of chats: one actor for all services, the turns of their targets, and other services by Apprise."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import ClientSession

from tocsin.background import in_thread
from tocsin.engine.actors.chat_services import (
    SERVICES,
    ChatReply,
    ChatRequest,
    ChatService,
    ChatText,
    SendLimit,
)
from tocsin.engine.actors.machinery.endpoints import is_allowed, url_fault
from tocsin.engine.actors.machinery.envelope import Clock, Envelope, RetryNow, SendResult, describe
from tocsin.engine.actors.machinery.http_actor import HttpActor, HttpRequest, HttpResponse
from tocsin.engine.actors.machinery.shared_limits import Holds, target_key
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    Outcome,
    Push,
    Rejected,
    SendHold,
    Sent,
    Unsent,
)

if TYPE_CHECKING:
    from apprise import NotifyBase

_REMEMBERED = 1000  # messages that can't be edited

log = structlog.get_logger(__name__)


class ChatActor(HttpActor):
    """Posts notifications to the URLs of chats; the presend check returns the kind of each.

    A message whose target has had enough for now goes back to the ledger until its turn, so that no sender waits.
    Connects to public addresses over https only; with `allow_loopback` also to this machine, and by http. Further
    options are those of `HttpActor`.
    """

    several_services = True

    def __init__(
        self,
        *,
        services: Mapping[str, ChatService] = SERVICES,
        clock: Clock = time.monotonic,
        **options: Any,
    ) -> None:
        settings: dict[str, Any] = {
            "name": "chat",
            "senders": 16,
            "timeout": 10.0,
            "keep_alive": 5.0,
        }
        super().__init__(clock=clock, public_only=True, **(settings | options))
        self._services = services
        self._pacing = Pacing(clock, self.holds)
        self._gone: dict[tuple[str, str], None] = {}  # messages that were deleted, by target and id

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns nothing: what is written depends on the target."""
        return b"" if isinstance(message.content, Push) else Rejected("not_a_push")

    async def transmit(
        self, connection: ClientSession, envelope: Envelope
    ) -> SendResult | RetryNow:
        """Sends one request where it is the message's turn."""
        check_result = envelope.check_result
        if check_result is None:
            return RetryNow(keep_connection=True)
        if (check_result.options or {}).get("kind") == APPRISE:
            return await self._send_by_apprise(envelope, check_result.address)
        if reason := url_fault(check_result.address, allow_loopback=self.allow_loopback):
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

    async def _send_by_apprise(self, envelope: Envelope, url: str) -> SendResult | RetryNow:
        """Sends with Apprise, which makes its own connection."""
        delivery_id = envelope.message.delivery_id
        wait = self._pacing.wait(delivery_id, url, (_APPRISE_LIMIT,), account=APPRISE)
        if wait:
            return SendResult(Unsent("paced", wait))
        reason = await in_thread(apprise_fault, url, allow_loopback=self.allow_loopback)
        if reason is not None:
            return SendResult(Rejected(f"apprise_{reason.removeprefix('apprise_')}"))
        if not envelope.begin():
            return RetryNow(keep_connection=True)
        envelope.commit()
        outcome = await send_by_apprise(url, _text(envelope))
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


# How many messages a target gets in a time: each waits in the ledger for its turn, not in a sender. The turns are kept
# by each worker for itself. With several workers, a target may get as many more; a 429 then holds it.

HORIZON = 600.0
"""Seconds for which turns are given ahead; what is beyond asks again."""

_MARGIN = 0.02  # so that a message is due after its turn has come, not just before
_FORGET = 10_000  # entries


class Pacing:
    """Gives each delivery its turn at its target, in the order in which they ask.

    A message that is sent after its turn delays the turns of all that follow: so what was late does not come at once.
    """

    def __init__(self, clock: Clock, holds: Holds | None = None) -> None:
        self._clock = clock
        self._holds = holds or Holds(clock=clock)
        self._turns: dict[str, deque[float]] = {}  # of each target, the last, without its delay
        self._delay: dict[str, float] = {}  # of each target
        self._reserved: dict[int, float] = {}  # of each delivery, without the delay
        self._sent: dict[str, deque[float]] = {}  # by account

    def wait(
        self,
        delivery_id: int,
        target: str,
        limits: Sequence[SendLimit],
        *,
        account: str,
        shared: SendLimit | None = None,
    ) -> float:
        """Returns the seconds until a delivery may be sent; 0 if it may be now, and then it counts as sent."""
        now = self._clock()
        held = self._holds.left(target_key("chat", target), target_key("chat", account))
        if held:
            return held + _MARGIN
        turn = self._turn(delivery_id, target, limits, now)
        if turn > now + HORIZON:
            return HORIZON
        if turn > now:
            return turn - now + _MARGIN
        wait = self._take(account, shared, now) if shared else 0.0
        if not wait and limits:
            self._delay[target] = self._delay.get(target, 0.0) + now - turn
        return wait

    def hold(self, key: str, seconds: float) -> None:
        """Sends nothing to a target, or with an account, for so many seconds; no worker does."""
        self._holds.add(SendHold(target_key("chat", key), "paced", seconds))

    def done(self, delivery_id: int) -> None:
        """Forgets a delivery that was sent."""
        self._reserved.pop(delivery_id, None)

    def _turn(
        self, delivery_id: int, target: str, limits: Sequence[SendLimit], now: float
    ) -> float:
        """Returns when it is a delivery's turn, and reserves it unless it is too far ahead."""
        delay = self._delay.get(target, 0.0)
        turn = self._reserved.get(delivery_id)
        if turn is None and limits:
            turn = self._next_turn(target, limits, now - delay)
            if turn + delay <= now + HORIZON:
                self._turns[target].append(turn)
                self._reserve(delivery_id, turn, now)
        return now if turn is None else turn + delay

    def _next_turn(self, target: str, limits: Sequence[SendLimit], now: float) -> float:
        turns = self._turns.setdefault(target, deque(maxlen=max(each.most for each in limits)))
        earliest = [turns[-each.most] + each.seconds for each in limits if len(turns) >= each.most]
        return max(now, turns[-1], *earliest) if turns else now

    def _reserve(self, delivery_id: int, turn: float, now: float) -> None:
        """Remembers a turn; of very many, forgets those that nobody took, since their delivery was cancelled."""
        if len(self._reserved) >= _FORGET:
            self._forget(now)
        self._reserved[delivery_id] = turn

    def _forget(self, now: float) -> None:
        used = {
            key
            for key, turns in self._turns.items()
            if turns and turns[-1] + self._delay.get(key, 0.0) > now - HORIZON
        }
        self._turns = {key: turns for key, turns in self._turns.items() if key in used}
        self._delay = {key: delay for key, delay in self._delay.items() if key in used}
        earliest = now - max(self._delay.values(), default=0.0) - HORIZON
        self._reserved = {one: turn for one, turn in self._reserved.items() if turn > earliest}

    def _take(self, account: str, limit: SendLimit, now: float) -> float:
        sent = self._sent.setdefault(account, deque(maxlen=limit.most))
        if len(sent) == limit.most and sent[0] + limit.seconds > now:
            return sent[0] + limit.seconds - now + _MARGIN
        sent.append(now)
        return 0.0


# Any other service, by Apprise (https://github.com/caronc/apprise), which is the extra `tocsin[apprise]`. Its promise
# is weaker. Apprise states only whether a message was accepted: there are no error classes, no Retry-After and no
# changes of messages; no target is disabled, and a refused message is tried again until its attempts are over. It makes
# its own connections: that an address is public is checked before it does, and redirects are off.

APPRISE = "apprise"
APPRISE_EXAMPLE = "mmosts://mattermost.example.com/token"
_APPRISE_LIMIT = SendLimit(1, 1.0)
_APPRISE_MOST = 2000
"""Characters of a body, as the shortest of the common services take it; Apprise cuts further where it has to."""

# they write to this machine, whatever their URL
_LOCAL = frozenset({"dbus", "glib", "gnome", "kde", "macosx", "qt", "rsyslog", "syslog", "windows"})


def apprise_fault(url: str, *, allow_loopback: bool) -> str | None:
    """Returns why nothing is sent to a URL; None if it may be. Resolves its host, so it is for a thread."""
    if find_spec("apprise") is None:
        return "apprise_not_installed"
    plugin = _plugin(url)
    if plugin is None:
        return "url_not_of_apprise"
    local = url.partition(":")[0].lower() in _LOCAL
    host = str(getattr(plugin, "host", "") or "")
    if (local and not allow_loopback) or not _may_be_allowed(host, allow_loopback):
        return "address_forbidden"
    return None


async def send_by_apprise(url: str, text: ChatText) -> Outcome:
    """Sends one message in a thread, and returns what Apprise states about it."""
    try:
        accepted = await in_thread(_notify, url, text)
    except Exception as error:  # noqa: BLE001 - one of a hundred plugins
        log.warning("apprise failed", **describe(error))
        return Deferred("apprise_failed")
    return Sent() if accepted else Deferred("apprise_refused")


def _notify(url: str, text: ChatText) -> bool:
    plugin = _plugin(url)
    body = text.body[:_APPRISE_MOST]
    shown = "\n".join(each for each in (body, text.link) if each) or text.title
    return plugin is not None and bool(plugin.notify(title=text.title, body=shown))


def _plugin(url: str) -> NotifyBase | None:
    from apprise import Apprise, NotifyBase  # two seconds to import

    plugin: Any = Apprise.instantiate(url, suppress_exceptions=True)
    if not isinstance(plugin, NotifyBase):
        return None
    plugin.redirects = False  # they could lead elsewhere
    return plugin


def _may_be_allowed(host: str, allow_loopback: bool) -> bool:
    """Returns whether a host may be connected to. What has no address is not a host, but a part of a token."""
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return True
    return all(is_allowed(str(address[0]), allow_loopback=allow_loopback) for *_, address in found)
