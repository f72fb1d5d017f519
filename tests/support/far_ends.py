"""The channels under contract: each with a real far end that plays every case, one class a channel.

A new channel is one more class here, and its name in FAR_ENDS; see docs/channels.md.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from tests.support.smtp_server import Scripted, raw
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin.engine.actors.apns import ApnsActor
from tocsin.engine.actors.apns_token import MemoryStore, ProviderKey, ProviderToken
from tocsin.engine.actors.chat import ChatActor
from tocsin.engine.actors.chat_services import SERVICES, ChatService
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.fcm import FcmActor
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.web_push import WebPushActor
from tocsin.engine.actors.webhook import WebhookActor
from tocsin.engine.model import Mail, PresendCheck, Push, WebhookBody
from tocsin.settings.addresses import SmtpServer
from tocsin.settings.keys import VapidKey, new_vapid_key
from tocsin.testing import fcm
from tocsin.testing.apns import Act, ApnsReply, ApnsServer, Authority, Drop, Garbage, Hang, Key
from tocsin.testing.chats import ChatServer
from tocsin.testing.far_end import Fault, Reply, Script, Turn
from tocsin.testing.fcm import FcmServer
from tocsin.testing.web_push import PushService

RETRY_AFTER = 30
"""Seconds that LATER_NAMED asks for."""

TIMEOUT = 30.0
"""Seconds of an actor's clock; a test lets them pass (tests/support/loop_clock.py)."""


class Case(Enum):
    """What a far end does with each message, until a test changes it."""

    ACCEPT = "accept"
    DEAD = "the address is dead"
    ELSEWHERE = "the address is another app's"
    BAD = "this message is refused permanently"
    LATER = "slow down"
    LATER_NAMED = "slow down, and for how long"
    DOWN = "the provider fails"
    CREDENTIALS = "our credentials are revoked"
    HANG = "takes it and never replies"
    RESET = "takes it and cuts the connection"
    SLOW_BODY = "takes it and replies a byte at a time"
    GARBAGE = "takes it and replies with nonsense"


class FarEnd(ABC):
    """One channel: how its actor is made, and how its provider plays each case."""

    content: ClassVar[Mail | Push | WebhookBody]
    lacks: ClassVar[Mapping[Case, str]] = {}  # cases that this provider can't have, with the reason
    shared: ClassVar[bool] = True  # one provider behind all messages: its failures open the breaker

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self.listen(self._stack)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    @abstractmethod
    def address(self) -> str:
        """Where messages go."""

    @property
    def options(self) -> dict[str, Any] | None:
        """What else belongs to the address."""
        return None

    @property
    @abstractmethod
    def received(self) -> int:
        """How many messages have arrived whole."""

    @abstractmethod
    async def listen(self, stack: AsyncExitStack) -> None:
        """Starts the far end."""

    @abstractmethod
    def plays(self, case: Case) -> None:
        """Plays this case from now on."""

    @abstractmethod
    def actor(self, *, presend_check: PresendCheck, **options: Any) -> Actor[Any]:
        """Returns the actor that sends to the far end."""


class Email(FarEnd):
    """An SMTP server whose replies to each step are scripted."""

    content = Mail("<1@example.test>", "Subject", "text", "<p>html</p>")
    address = "alice@example.test"
    lacks: ClassVar = {
        Case.ELSEWHERE: "an address is nobody else's",
        Case.LATER_NAMED: "SMTP has no Retry-After",
    }
    _ODD: ClassVar[dict[Case, dict[str, str | None]]] = {
        Case.ACCEPT: {},
        Case.DEAD: {"RCPT": "550 5.1.1 no such user"},
        Case.BAD: {"BODY": "554 5.6.0 content"},
        Case.LATER: {"RCPT": "450 4.2.1 later"},
        Case.DOWN: {"CONNECT": "421 4.3.2 down", "MAIL": "421 4.3.2 down"},
        Case.CREDENTIALS: {"MAIL": "530 5.7.0 authentication required"},
        Case.HANG: {"BODY": "hang"},
        Case.RESET: {"BODY": None},
        Case.SLOW_BODY: {"BODY": "dribble"},
        Case.GARBAGE: {"BODY": "HTTP/1.1 400 Bad Request"},
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        self._script = Scripted()
        self._port = await stack.enter_async_context(raw(self._script))

    @property
    def received(self) -> int:
        return self._script.commands.count("BODY")

    def plays(self, case: Case) -> None:
        self._script.odd = self._ODD[case]

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> EmailActor:
        settings: dict[str, Any] = {"timeout": TIMEOUT, "hold": 0.01, "local_hostname": "here.test"}
        return EmailActor(
            presend_check=presend_check,
            sender="a@example.test",
            server=SmtpServer(host="127.0.0.1", port=self._port),
            **(settings | options),
        )


_FAULTS = {
    Case.HANG: Fault.HANG,
    Case.RESET: Fault.RESET,
    Case.SLOW_BODY: Fault.SLOW_BODY,
    Case.GARBAGE: Fault.GARBAGE,
}


class Fcm(FarEnd):
    """FCM's HTTP v1 API with its OAuth."""

    content = Push("Title", "body", data={"notification_id": "1"})
    address = "device"
    _TURNS: ClassVar[dict[Case, Turn | None]] = {
        Case.ACCEPT: None,
        Case.DEAD: fcm.UNREGISTERED,
        Case.ELSEWHERE: fcm.SENDER_ID_MISMATCH,
        Case.BAD: fcm.INVALID_PAYLOAD,
        Case.LATER: fcm.quota_exceeded(),
        Case.LATER_NAMED: fcm.quota_exceeded(str(RETRY_AFTER)),
        Case.DOWN: fcm.INTERNAL,
        Case.CREDENTIALS: fcm.PERMISSION_DENIED,
        **_FAULTS,
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        self._server = await stack.enter_async_context(FcmServer())

    @property
    def received(self) -> int:
        return self._server.requests

    def plays(self, case: Case) -> None:
        self._server.script.always(self._server.script.EVERY, self._TURNS[case])

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> FcmActor:
        account, url = self._server.service_account, self._server.url
        settings: dict[str, Any] = {"timeout": TIMEOUT, "hold": 0.01} | options
        return FcmActor(presend_check=presend_check, service_account=account, url=url, **settings)


class Apns(FarEnd):
    """Apple's HTTP/2 over TLS, with its provider token."""

    content = Push("Title", "body", data={"notification_id": "1"})
    address = "a1" * 32
    lacks: ClassVar = {Case.SLOW_BODY: "in HTTP/2 a status comes whole, and it decides"}
    _ACTS: ClassVar[dict[Case, Act | None]] = {
        Case.ACCEPT: None,
        Case.DEAD: ApnsReply(410, "Unregistered", 1_793_534_400_000),
        Case.ELSEWHERE: ApnsReply(400, "BadDeviceToken"),
        Case.BAD: ApnsReply(413, "PayloadTooLarge"),
        Case.LATER: ApnsReply(429, "TooManyRequests"),
        Case.LATER_NAMED: ApnsReply(
            429, "TooManyRequests", headers=(("retry-after", str(RETRY_AFTER)),)
        ),
        Case.DOWN: ApnsReply(503, "ServiceUnavailable"),
        Case.CREDENTIALS: ApnsReply(403, "InvalidProviderToken"),
        Case.HANG: Hang(),
        Case.RESET: Drop(),
        Case.GARBAGE: Garbage(b"\0" * 64),
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        authority, key = Authority(), Key.new()
        folder = stack.enter_context(TemporaryDirectory())
        self._ca_file = Path(folder) / "ca.pem"
        authority.write(self._ca_file)
        self._key = ProviderKey(pem=key.private, key_id=key.key_id, team_id=key.team_id)
        self._server = await stack.enter_async_context(
            ApnsServer(authority, key, topics={"com.example.app"})
        )

    @property
    def received(self) -> int:
        return len(self._server.received)

    def plays(self, case: Case) -> None:
        self._server.default = self._ACTS[case]

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> ApnsActor:
        settings: dict[str, Any] = {
            "timeout": TIMEOUT,
            "quiet": 600.0,
            "hold": 0.01,
            "ca_file": self._ca_file,
        } | options
        return ApnsActor(
            presend_check=presend_check,
            tokens=ProviderToken(self._key, MemoryStore()),
            topic="com.example.app",
            installation="tests",
            url=self._server.url,
            **settings,
        )


class Webhook(FarEnd):
    """An endpoint of a host app."""

    content: ClassVar[Mail | Push | WebhookBody] = WebhookBody(
        "notification.created", datetime(2026, 11, 1, tzinfo=UTC), {"id": 1}
    )
    lacks: ClassVar = {Case.ELSEWHERE: "an endpoint is nobody else's"}
    _TURNS: ClassVar[dict[Case, Turn | None]] = {
        Case.ACCEPT: None,
        Case.DEAD: Reply(410),
        Case.BAD: Reply(302),
        Case.LATER: Reply(429),
        Case.LATER_NAMED: Reply(429, "", (("Retry-After", str(RETRY_AFTER)),)),
        Case.DOWN: Reply(500),
        Case.CREDENTIALS: Reply(401),
        **_FAULTS,
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        self._endpoint = await stack.enter_async_context(Endpoint(SECRET))

    @property
    def address(self) -> str:
        return self._endpoint.url

    @property
    def options(self) -> dict[str, Any] | None:
        return {"secrets": [{"secret": SECRET}]}

    @property
    def received(self) -> int:
        return self._endpoint.requests

    def plays(self, case: Case) -> None:
        self._endpoint.script.always(Script.EVERY, self._TURNS[case])

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> Actor[Any]:
        settings = {"timeout": TIMEOUT, "allow_loopback": True} | options
        return WebhookActor(presend_check=presend_check, **settings)


class WebPush(FarEnd):
    """A push service of browsers; it decrypts what it accepts."""

    content = Push("Title", "body", data={"notification_id": "1"}, link="https://here.test/c/1/")
    shared = False
    lacks: ClassVar = {Case.ELSEWHERE: "an endpoint is of one subscription, of one page"}
    _TURNS: ClassVar[dict[Case, Turn | None]] = {
        Case.ACCEPT: None,
        Case.DEAD: Reply(410),
        Case.BAD: Reply(413),
        Case.LATER: Reply(429),
        Case.LATER_NAMED: Reply(429, "", (("Retry-After", str(RETRY_AFTER)),)),
        Case.DOWN: Reply(500),
        Case.CREDENTIALS: Reply(403),
        **_FAULTS,
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        self._vapid = VapidKey(new_vapid_key(), "mailto:push@example.test")
        self._service = await stack.enter_async_context(PushService(vapid=self._vapid.public))
        self._subscription = self._service.subscribe()

    @property
    def address(self) -> str:
        return self._subscription.endpoint

    @property
    def options(self) -> dict[str, Any]:
        keys: dict[str, Any] = self._subscription.json["keys"]
        return keys

    @property
    def received(self) -> int:
        return self._service.requests

    def plays(self, case: Case) -> None:
        self._service.script.always(Script.EVERY, self._TURNS[case])

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> Actor[Any]:
        settings = {"timeout": TIMEOUT, "allow_loopback": True} | options
        return WebPushActor(presend_check=presend_check, vapid=self._vapid, **settings)


def unlimited(service: ChatService) -> ChatService:
    """Returns a service whose targets take any number of messages at once."""
    lifted = {"limits_of": lambda *_: (), "shared_limit": None}
    kind: type[ChatService] = type("Unlimited", (type(service),), lifted)
    return kind()


class Chat(FarEnd):
    """A chat of one kind, without its limits: test_chat_pacing.py has these."""

    content = Push("Title", "body", link="https://app.example.com/1")
    shared = False
    kind: ClassVar[str]
    _refusals: ClassVar[dict[Case, Turn | None]]
    _lacks: ClassVar = {
        Case.ELSEWHERE: "a target is nobody else's",
        Case.CREDENTIALS: "the URL of a target is all that there is",
    }

    async def listen(self, stack: AsyncExitStack) -> None:
        self._server = await stack.enter_async_context(ChatServer())

    @property
    def address(self) -> str:
        return self._server.url(self.kind, "100" if self.kind == "telegram" else "team")

    @property
    def options(self) -> dict[str, str]:
        return {"kind": self.kind}

    @property
    def received(self) -> int:
        return self._server.requests

    def plays(self, case: Case) -> None:
        turns = {Case.ACCEPT: None, Case.DOWN: Reply(503), **_FAULTS, **self._refusals}
        self._server.script.always(self.kind, turns[case])

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> ChatActor:
        settings: dict[str, Any] = {"timeout": TIMEOUT, "allow_loopback": True}
        settings["services"] = {self.kind: unlimited(SERVICES[self.kind])}
        return ChatActor(presend_check=presend_check, **(settings | options))


class Slack(Chat):
    """Slack's incoming webhooks."""

    kind = "slack"
    lacks: ClassVar = Chat._lacks
    _refusals: ClassVar = {
        Case.DEAD: Reply(404, "no_service"),
        Case.BAD: Reply(400, "invalid_payload"),
        Case.LATER: Reply(429, "rate_limited"),
        Case.LATER_NAMED: Reply(429, "rate_limited", (("Retry-After", str(RETRY_AFTER)),)),
    }


class Discord(Chat):
    """Discord's webhooks."""

    kind = "discord"
    lacks: ClassVar = Chat._lacks
    _refusals: ClassVar = {
        Case.DEAD: Reply(404, '{"message": "Unknown Webhook", "code": 10015}'),
        Case.BAD: Reply(400, '{"message": "Invalid Form Body", "code": 50035}'),
        Case.LATER: Reply(429, '{"message": "You are being rate limited.", "global": false}'),
        Case.LATER_NAMED: Reply(429, f'{{"retry_after": {RETRY_AFTER}.5, "global": false}}'),
    }


class Teams(Chat):
    """Workflows of Microsoft Teams."""

    kind = "teams"
    lacks: ClassVar = Chat._lacks
    _refusals: ClassVar = {
        Case.DEAD: Reply(404, '{"error": {"code": "WorkflowNotFound", "message": "…"}}'),
        Case.BAD: Reply(413),
        Case.LATER: Reply(429),
        Case.LATER_NAMED: Reply(429, "", (("Retry-After", str(RETRY_AFTER)),)),
    }


class Telegram(Chat):
    """Telegram's Bot API."""

    kind = "telegram"
    lacks: ClassVar = {Case.ELSEWHERE: "a target is nobody else's"}
    _refusals: ClassVar = {
        Case.DEAD: Reply(
            403, '{"ok": false, "description": "Forbidden: bot was blocked by the user"}'
        ),
        Case.BAD: Reply(400, '{"ok": false, "description": "Bad Request: message is too long"}'),
        Case.LATER: Reply(429, '{"ok": false}'),
        Case.LATER_NAMED: Reply(
            429, f'{{"ok": false, "parameters": {{"retry_after": {RETRY_AFTER}}}}}'
        ),
        Case.CREDENTIALS: Reply(401, '{"ok": false, "description": "Unauthorized"}'),
    }


@cache
def pager_actor() -> Any:
    """Returns the class of the example in docs/channels.md."""
    page = Path(__file__).parents[2] / "docs" / "channels.md"
    text = page.read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "pager"}
    exec(compile(example, str(page), "exec"), module)
    return module["PagerActor"]


class Pager(Webhook):
    """The example of docs/channels.md, with one pager behind each URL."""

    content = Push("Title", "body", data={"notification_id": "1"})
    _TURNS: ClassVar[dict[Case, Turn | None]] = {**Webhook._TURNS, Case.BAD: Reply(400)}

    async def listen(self, stack: AsyncExitStack) -> None:
        self._endpoint = await stack.enter_async_context(Endpoint())

    def actor(self, *, presend_check: PresendCheck, **options: Any) -> Actor[Any]:
        actor: Actor[Any] = pager_actor()(
            name="pager", presend_check=presend_check, **({"timeout": TIMEOUT} | options)
        )
        return actor


FAR_ENDS: list[type[FarEnd]] = [
    Apns,
    Discord,
    Email,
    Fcm,
    Pager,
    Slack,
    Teams,
    Telegram,
    Webhook,
    WebPush,
]
