"""Web Push: what each response means, encryption, the VAPID token, and what a push service gets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from msgspec import structs

from tests.support.sending import send_by
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.actors.machinery.shared_limits import Holds
from tocsin.engine.actors.web_push import (
    VapidTokens,
    WebPushActor,
    classify,
    encrypt,
    read_receiver_keys,
)
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    Mail,
    Message,
    Outcome,
    Priority,
    Push,
    PushButton,
    Rejected,
    SendHold,
    Sent,
    Unsent,
)
from tocsin.settings.keys import VapidKey, load_vapid_key, new_vapid_key
from tocsin.testing.far_end import Reply
from tocsin.testing.web_push import BrowserSubscription, PushService

KEY = VapidKey(new_vapid_key(), "mailto:push@example.test")
LINK = "https://notify.example.test/c/token/"
PUSH = Push("Grüße", "A new reply", data={"notification_id": "7"}, link=LINK)

TABLE = [
    (200, None, Sent()),
    (201, None, Sent()),
    (202, None, Sent()),
    (404, None, Rejected("web_push_404", address_dead=True)),
    (410, None, Rejected("web_push_410", address_dead=True)),
    (413, None, Rejected("web_push_413")),
    (429, None, Deferred("web_push_429", 60.0)),
    (429, 7.0, Deferred("web_push_429", 7.0)),
    (400, None, Deferred("web_push_400")),
    (401, None, Deferred("web_push_401")),
    (403, None, Deferred("web_push_403")),
    (307, None, Deferred("web_push_307")),
    (418, None, Deferred("web_push_418")),
    (500, None, Deferred("web_push_500")),
    (503, 120.0, Deferred("web_push_503", 120.0)),
]


@pytest.mark.parametrize(("status", "retry_after", "outcome"), TABLE)
def test_each_response_has_one_meaning_and_no_push_service_speaks_for_another(
    status: int, retry_after: float | None, outcome: Outcome
) -> None:
    assert classify(status, retry_after) == SendResult(outcome)


# Encryption and authorization.


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_encryption_is_that_of_the_standard() -> None:
    """The example of RFC 8291, appendix A."""
    keys = read_receiver_keys(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "BTBZMqHH6r4Tts7J_aSIgg",
    )
    body = encrypt(
        b"When I grow up, I want to be a watermelon",
        keys,
        salt=decoded("DGv6ra1nlYgDCS1FRnbzlw"),
        sender=load_vapid_key("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
    )
    assert body == decoded(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


@pytest.mark.parametrize(
    ("p256dh", "auth"),
    [
        ("", ""),
        ("not base64url!", "BTBZMqHH6r4Tts7J_aSIgg"),
        ("BCVx", "BTBZMqHH6r4Tts7J_aSIgg"),
        (base64.urlsafe_b64encode(b"\4" + b"\1" * 64).decode(), "BTBZMqHH6r4Tts7J_aSIgg"),
    ],
)
def test_keys_that_are_not_a_browsers_are_refused(p256dh: str, auth: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the last one's text is that of cryptography
        read_receiver_keys(p256dh, auth)


def test_a_token_is_for_one_origin_and_is_renewed_before_its_end() -> None:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    tokens = VapidTokens(KEY, lambda: now)

    def claims(header: str) -> dict[str, Any]:
        token = header.removeprefix("vapid t=").partition(",")[0]
        return jwt.decode(token, options={"verify_signature": False})

    first = tokens.authorization("https://push.example.test/a")
    assert claims(first) == {
        "aud": "https://push.example.test",
        "exp": int((now + timedelta(hours=12)).timestamp()),
        "sub": "mailto:push@example.test",
    }
    now += timedelta(hours=10)
    assert tokens.authorization("https://push.example.test/b") == first
    assert (
        claims(tokens.authorization("https://other.test:8443/"))["aud"] == "https://other.test:8443"
    )
    now += timedelta(hours=1)
    assert tokens.authorization("https://push.example.test/a") != first


# What a push service gets.


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with PushService(vapid=KEY.public) as each:
        yield each


@asynccontextmanager
async def actor_for(
    subscription: BrowserSubscription, *, badge: int | None = None, **options: Any
) -> AsyncIterator[WebPushActor]:
    keys = subscription.json["keys"]

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return {
            each.delivery_id: CheckResult(
                each.delivery_id,
                subscription.endpoint,
                datetime.now(UTC),
                badge=badge,
                options=keys,
            )
            for each in messages
        }

    settings: dict[str, Any] = {
        "presend_check": presend_check,
        "vapid": KEY,
        "allow_loopback": True,
        "senders": 1,
        "timeout": 5.0,
    }
    actor = WebPushActor(**(settings | options))
    await actor.start()
    try:
        yield actor
    finally:
        await actor.stop(grace=1)


def message(
    content: Push | Mail = PUSH, priority: Priority = Priority.NORMAL, number: int = 7
) -> Message:
    return Message(number, UUID(int=number), Channel.WEB_PUSH, priority, content)


async def send(
    subscription: BrowserSubscription, content: Push | Mail = PUSH, **options: Any
) -> Outcome:
    priority = options.pop("priority", Priority.NORMAL)
    async with actor_for(subscription, **options) as actor:
        return (await send_by(actor, message(content, priority))).outcome


async def test_a_browser_reads_a_declarative_push_message(service: PushService) -> None:
    assert await send(service.subscribe(), badge=3) == Sent()
    (received,) = service.received
    assert received.message is not None
    assert json.loads(received.message) == {
        "web_push": 8030,
        "notification": {
            "title": "Grüße",
            "body": "A new reply",
            "navigate": LINK,
            "tag": "tocsin-7",
            "data": {"notification_id": "7"},
            "app_badge": "3",
        },
        "app_badge": 3,
    }


async def test_buttons_lead_to_the_page_that_asks(service: PushService) -> None:
    button = PushButton("accept", "Accept", "https://notify.example.test/a/token/?key=accept")
    await send(service.subscribe(), Push("Title", link=LINK, buttons=(button,)))
    shown = json.loads(service.received[0].message or b"")["notification"]
    large = Push("Title", data={"app": "x" * 3700}, link=LINK, buttons=(button,))
    assert await send(service.subscribe(), large) == Sent()  # without them
    assert shown["actions"] == [
        {"action": "accept", "title": "Accept", "navigate": button.navigate}
    ]


@pytest.mark.parametrize(
    ("priority", "urgency"),
    [(Priority.LOW, "low"), (Priority.NORMAL, "normal"), (Priority.HIGH, "high")],
)
async def test_urgency_is_the_priority_of_the_type(
    service: PushService, priority: Priority, urgency: str
) -> None:
    await send(service.subscribe(), priority=priority)
    assert service.received[0].headers["urgency"] == urgency


async def test_ttl_is_the_time_to_live_and_four_weeks_at_most(service: PushService) -> None:
    now = datetime.now(UTC)
    for life in (timedelta(hours=1), timedelta(days=60), timedelta(seconds=-5)):
        push = Push("Title", expires_at=now + life, link=LINK)
        await send(service.subscribe(), push, now=lambda: now)
    await send(service.subscribe())
    four_weeks = str(28 * 24 * 3600)
    assert [each.headers["ttl"] for each in service.received] == [
        "3600",
        four_weeks,
        "0",
        four_weeks,
    ]


async def test_a_subject_that_replaces_is_the_topic_and_the_tag(service: PushService) -> None:
    """The topic is a hash, since the push service reads it; a repeat of one delivery has the same one."""
    subscription = service.subscribe()
    for subject in ("order:12", "order:12", "order:13", None, None):
        push = Push("Title", collapse_id=subject, link=LINK)
        await send(subscription, push)
    topics = [each.headers["topic"] for each in service.received]
    tags = [json.loads(each.message or b"")["notification"]["tag"] for each in service.received]
    assert tags == ["order:12", "order:12", "order:13", "tocsin-7", "tocsin-7"]
    assert topics[0] == topics[1] != topics[2] != topics[3] == topics[4]
    assert not any("order" in each for each in topics)


async def test_a_429_holds_its_subscription_for_all_workers_and_no_other_one(
    service: PushService,
) -> None:
    asked, other = service.subscribe(), service.subscribe()
    shared: list[SendHold] = []

    async def store(hold: SendHold) -> None:
        shared.append(hold)

    service.script.then(asked.endpoint, [Reply(429, "", (("Retry-After", "40"),))])
    async with actor_for(asked, holds=Holds(store)) as actor:
        first = (await send_by(actor, message())).outcome
        second = (await send_by(actor, message(number=8))).outcome
    assert first == Deferred("web_push_429", 40.0)
    holds = Holds()
    holds.learn(shared)
    third = await send(asked, holds=holds)
    for waits in (second, third):
        assert isinstance(waits, Unsent)
        assert waits.reason == "paced"
        assert 39 < waits.retry_after <= 40
    assert await send(other, holds=holds) == Sent()
    assert [each.result for each in service.received] == [429, 201]


async def test_texts_are_cut_between_characters_to_the_size_of_a_push(service: PushService) -> None:
    family = "👨‍👩‍👧‍👦"
    for title, body in (("Title", family * 400), (family * 400, "body"), ("T", '"\\\n' * 2000)):
        assert await send(service.subscribe(), Push(title, body, link=LINK), badge=123456) == Sent()
    for each in service.received:
        assert each.message is not None
        assert 3800 < len(each.message) <= 3993
    shown = [json.loads(each.message or b"")["notification"] for each in service.received]
    assert shown[0]["body"].rstrip("…").replace(family, "") == ""
    assert shown[1]["title"].rstrip("…").replace(family, "") == ""


async def test_what_can_never_fit_or_is_no_push_is_rejected(service: PushService) -> None:
    big = Push("Title", data={"app": "x" * 4000}, link=LINK)
    assert await send(service.subscribe(), big) == Rejected("payload_too_large")
    assert await send(service.subscribe(), Mail("<1@x>", "s", "t", "h")) == Rejected("not_a_push")
    assert await send(service.subscribe(), Push("\ud800", link=LINK)) == Rejected("invalid_text")
    assert service.requests == 0


async def test_an_ended_or_unknown_subscription_is_dead(service: PushService) -> None:
    ended = service.subscribe()
    service.unsubscribe(ended)
    unknown = structs.replace(ended, endpoint=f"{ended.endpoint}x")
    for subscription, reason in ((ended, "web_push_410"), (unknown, "web_push_404")):
        outcome = await send(subscription)
        assert isinstance(outcome, Rejected)
        assert (outcome.reason, outcome.address_dead) == (reason, True)


async def test_a_subscription_without_keys_is_dead(service: PushService) -> None:
    bare = structs.replace(service.subscribe(), auth="")
    assert await send(bare) == Rejected("web_push_keys_invalid", address_dead=True)
    assert service.requests == 0


async def test_another_key_than_the_subscriptions_changes_no_subscription(
    service: PushService,
) -> None:
    other = VapidKey(new_vapid_key(), "mailto:push@example.test")
    assert await send(service.subscribe(), vapid=other) == Deferred("web_push_403")


async def test_a_failing_push_service_does_not_delay_another(service: PushService) -> None:
    broken, good = service.subscribe(), service.subscribe()
    service.script.always(broken.endpoint, Reply(500))
    keys = {each.endpoint: each.json["keys"] for each in (broken, good)}

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return {
            each.delivery_id: CheckResult(
                each.delivery_id, endpoint, datetime.now(UTC), options=keys[endpoint]
            )
            for each in messages
            for endpoint in [good.endpoint if each.delivery_id == 99 else broken.endpoint]
        }

    async with actor_for(broken, presend_check=presend_check) as actor:
        for number in range(20):
            assert (await send_by(actor, message(number=number))).outcome == Deferred(
                "web_push_500"
            )
        assert (await send_by(actor, message(number=99))).outcome == Sent()


# Addresses that a subscription must not have.


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://push.example.test/1", "web_push_url_not_https"),
        ("https://127.0.0.1/1", "web_push_address_forbidden"),
        ("https://[::1]/1", "web_push_address_forbidden"),
        ("https://[::ffff:10.0.0.1]/1", "web_push_address_forbidden"),
        ("https://169.254.169.254/latest/meta-data/", "web_push_address_forbidden"),
        ("https://10.1.2.3/1", "web_push_address_forbidden"),
        ("https://0x7f000001/1", "web_push_address_forbidden"),
        ("https://localhost:1/1", "web_push_address_forbidden"),
        ("https://user@push.example.test/1", "web_push_url_invalid"),
    ],
)
async def test_nothing_is_sent_to_an_address_that_is_not_public(endpoint: str, reason: str) -> None:
    subscription = structs.replace(PushService().subscribe(), endpoint=endpoint)
    outcome = await send(subscription, allow_loopback=False)
    assert isinstance(outcome, Rejected)
    # what a name resolves to may be another address the next time, the rest stays as it is
    assert (outcome.reason, outcome.address_dead) == (reason, "localhost" not in endpoint)


async def test_a_redirect_is_not_followed(service: PushService) -> None:
    first, second = service.subscribe(), service.subscribe()
    service.script.always(first.endpoint, Reply(307, "", (("Location", second.endpoint),)))
    assert await send(first) == Deferred("web_push_307")
    assert service.requests == 1
