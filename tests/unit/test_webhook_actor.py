"""The webhook actor against real endpoints: Standard Webhooks' signatures, rotation, 410, and no private addresses."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks

from tests.support.sending import send_by
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin.engine.actors import webhook
from tocsin.engine.actors.machinery import http_actor
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.actors.webhook import (
    WebhookActor,
    classify,
    sign,
    to_key,
)
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    Mail,
    Message,
    Outcome,
    Priority,
    Rejected,
    Sent,
    WebhookBody,
)
from tocsin.testing.far_end import Reply

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NEXT = "whsec_" + base64.b64encode(b"n" * 32).decode()
BODY = WebhookBody("notification.created", NOW, {"title": "Grüße", "notification_id": 7})


def message(delivery_id: int = 1, content: WebhookBody | Mail = BODY) -> Message:
    return Message(delivery_id, UUID(int=delivery_id), Channel.WEBHOOK, Priority.NORMAL, content)


@asynccontextmanager
async def actor_for(
    url: str, *, secrets: Sequence[dict[str, str]] = ({"secret": SECRET},), **options: Any
) -> AsyncIterator[WebhookActor]:
    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        found = {"secrets": list(secrets)}
        return {
            each.delivery_id: CheckResult(each.delivery_id, url, NOW, options=found)
            for each in messages
        }

    settings: dict[str, Any] = {
        "presend_check": presend_check,
        "allow_loopback": True,
        "senders": 1,
        "timeout": 5.0,
        "now": lambda: NOW,
    }
    actor = WebhookActor(**(settings | options))
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=1)


async def send(url: str, content: WebhookBody | Mail = BODY, **options: Any) -> Outcome:
    async with actor_for(url, **options) as actor:
        return (await send_by(actor, message(1, content))).outcome


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint(SECRET) as each:
        yield each


# Signatures.


def test_the_signature_is_that_of_the_standard() -> None:
    """The standard's own example: https://github.com/standard-webhooks/standard-webhooks."""
    key = to_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_receiver_can_verify_what_it_gets(endpoint: Endpoint) -> None:
    assert await send(endpoint.url) == Sent()
    ((headers, body),) = endpoint.received
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "type": "notification.created",
        "timestamp": "2026-11-01T12:00:00Z",
        "data": {"title": "Grüße", "notification_id": 7},
    }


async def test_a_repeat_bears_the_same_id_and_body(endpoint: Endpoint) -> None:
    async with actor_for(endpoint.url) as actor:
        await send_by(actor, message(3))
        await send_by(actor, message(3))
    (first, second) = endpoint.received
    assert first[0]["webhook-id"] == second[0]["webhook-id"] == "msg_3"
    assert first[1] == second[1]


@pytest.mark.parametrize("known", [SECRET, NEXT])
async def test_while_a_secret_is_rotated_both_verify(known: str) -> None:
    secrets = [{"secret": NEXT}, {"secret": SECRET, "until": "2026-11-01T12:00:01+00:00"}]
    async with Endpoint(known) as endpoint:
        assert await send(endpoint.url, secrets=secrets) == Sent()
        assert endpoint.received[0][0]["webhook-signature"].count("v1,") == 2


async def test_once_its_time_is_over_the_secret_before_signs_no_more() -> None:
    secrets = [{"secret": NEXT}, {"secret": SECRET, "until": "2026-11-01T12:00:00+00:00"}]
    async with Endpoint(SECRET) as endpoint:
        assert await send(endpoint.url, secrets=secrets) == Deferred("webhook_401")


async def test_another_secret_does_not_verify() -> None:
    async with Endpoint(NEXT) as endpoint:
        assert await send(endpoint.url) == Deferred("webhook_401")


@pytest.mark.parametrize("secret", [SECRET, NEXT])
async def test_the_library_of_the_standard_verifies_it(endpoint: Endpoint, secret: str) -> None:
    secrets = [{"secret": NEXT}, {"secret": SECRET}]
    await send(endpoint.url, secrets=secrets, now=lambda: datetime.now(UTC))
    ((headers, body),) = endpoint.received
    standardwebhooks.Webhook(secret).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(body + b" ", headers)


@pytest.mark.parametrize(
    "secret",
    ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_%%", SECRET[6:], "whsec_" + "A" * 96],
)
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        to_key(secret)


async def test_without_a_secret_nothing_is_sent(endpoint: Endpoint) -> None:
    assert await send(endpoint.url, secrets=[]) == Rejected("webhook_no_secret")
    assert endpoint.requests == 0


# Responses.


TABLE = [
    (200, None, SendResult(Sent())),
    (204, None, SendResult(Sent())),
    (410, None, SendResult(Rejected("webhook_410", address_dead=True))),
    (301, None, SendResult(Rejected("webhook_301"))),
    (307, None, SendResult(Rejected("webhook_307"))),
    (400, None, SendResult(Deferred("webhook_400"))),
    (401, None, SendResult(Deferred("webhook_401"), provider_failed=True)),
    (404, None, SendResult(Deferred("webhook_404"), provider_failed=True)),
    (429, None, SendResult(Deferred("webhook_429"))),
    (429, 120.0, SendResult(Deferred("webhook_429", 120.0), pause=120.0)),
    (500, None, SendResult(Deferred("webhook_500"), provider_failed=True)),
    (503, 7.0, SendResult(Deferred("webhook_503", 7.0), provider_failed=True)),
]


@pytest.mark.parametrize(("status", "wait", "result"), TABLE)
def test_responses_are_classified(status: int, wait: float | None, result: SendResult) -> None:
    assert classify(status, wait) == result


async def test_410_ends_an_endpoint_as_of_the_presend_check(endpoint: Endpoint) -> None:
    endpoint.script.then("/hook", [Reply(410)])
    gone = Rejected("webhook_410", address_dead=True, dead_since=NOW)
    assert await send(endpoint.url) == gone


async def test_a_redirect_is_not_followed(endpoint: Endpoint) -> None:
    there = (("Location", f"http://127.0.0.1:{endpoint.port}/elsewhere"),)
    endpoint.script.then("/hook", [Reply(302, "", there)])
    assert await send(endpoint.url) == Rejected("webhook_302")
    assert endpoint.requests == 1


async def test_a_mail_is_no_webhook(endpoint: Endpoint) -> None:
    mail = Mail("<1@a.test>", "s", "t", "h")
    assert await send(endpoint.url, mail) == Rejected("not_a_webhook")


# Private addresses.


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "0"])
async def test_a_name_for_a_private_address_is_not_connected_to(
    endpoint: Endpoint, host: str
) -> None:
    url = f"https://{host}:{endpoint.port}/hook"
    outcome = await send(url, allow_loopback=False)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "webhook_address_forbidden"
    assert endpoint.requests == 0


async def test_what_was_checked_is_what_is_connected_to(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that would resolve to a private address at the second time (DNS rebinding) is resolved only once."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(http_actor, "is_allowed", lambda address, **_: len(asked) == 1)
    monkeypatch.setattr(webhook, "url_fault", lambda url, **_: None)
    url = f"http://rebind.example.com:{endpoint.port}/hook"
    async with actor_for(url, allow_loopback=False) as actor:
        assert (await send_by(actor, message(1))).outcome == Sent()
    assert asked == ["rebind.example.com"]


async def test_a_name_that_is_none_is_tried_again_later() -> None:
    outcome = await send("https://nowhere.invalid/", allow_loopback=False)
    assert outcome == Deferred("webhook_host_unknown")
