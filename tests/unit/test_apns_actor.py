"""The APNs actor against a far end with real HTTP/2 and TLS, which refuses and misbehaves as scripted."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.support.apns_far_end import *  # noqa: F403 - fixtures
from tests.support.apns_far_end import DEVICE, TOPIC, tokens_of
from tests.support.loop_clock import LoopClock
from tests.support.sending import send_by, send_on
from tests.support.services import until
from tocsin.engine.actors.apns import ApnsActor
from tocsin.engine.actors.apns_token import TokenUnavailable
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    DeliveryState,
    Message,
    Outcome,
    Priority,
    Push,
    PushKind,
    Rejected,
    Sent,
    Unknown,
    Unsent,
    Withheld,
)
from tocsin.testing.apns import (
    Act,
    ApnsReply,
    ApnsServer,
    Authority,
    Drop,
    Freeze,
    Garbage,
    GoAway,
    Hang,
    Held,
    Key,
    Reset,
    Rules,
    SlowBody,
)

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PUSH = Push("New reply", "Alice: hello", {"notification_id": 7})


def message(
    delivery_id: int = 1, push: Push = PUSH, priority: Priority = Priority.NORMAL
) -> Message:
    return Message(delivery_id, UUID(int=delivery_id), Channel.PUSH, priority, push)


class Checks:
    """Passes all messages; each delivery has the device of its check."""

    def __init__(self, badge: int | None = 3) -> None:
        self.devices: dict[int, str] = {}
        self.badge = badge
        self.withheld: set[int] = set()
        self.checks = 0

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        self.checks += 1
        no = Withheld(DeliveryState.SKIPPED, "device_moved")
        return {
            each.delivery_id: CheckResult(
                each.delivery_id,
                self.devices.get(each.delivery_id, DEVICE),
                NOW,
                no if each.delivery_id in self.withheld else None,
                badge=self.badge,
            )
            for each in messages
        }


class Far:
    """A far end with actors for it."""

    def __init__(self, server: ApnsServer, key: Key, ca_file: Path) -> None:
        self.server = server
        self.key = key
        self.ca_file = ca_file
        self.checks = Checks()

    @asynccontextmanager
    async def actor(self, **options: Any) -> AsyncIterator[ApnsActor]:
        settings: dict[str, Any] = {
            "presend_check": self.checks.presend_check,
            "tokens": tokens_of(self.key),
            "topic": TOPIC,
            "installation": "test",
            "url": self.server.url,
            "ca_file": self.ca_file,
            "timeout": 10.0,
            "senders": 8,
            "idle": 0.5,
            "hold": 0.01,
        }
        actor = ApnsActor(**(settings | options))
        await actor.start()
        try:
            yield actor
        finally:
            await actor.stop(grace=1)

    async def push(self, push: Push = PUSH, **options: Any) -> Outcome:
        priority = options.pop("priority", Priority.NORMAL)
        async with self.actor(**options) as actor:
            return (await send_by(actor, message(1, push, priority))).outcome


@pytest.fixture
def far(server: ApnsServer, key: Key, ca_file: Path) -> Far:
    return Far(server, key, ca_file)


# What arrives.


async def test_a_push_arrives_whole(far: Far) -> None:
    expires_at = NOW + timedelta(hours=1)
    push = msgspec.structs.replace(
        PUSH, expires_at=expires_at, collapse_id="thread-42", thread_id="forum.thread:42"
    )
    outcome = await far.push(push)
    (received,) = far.server.received
    headers = {name: value for name, value in received.headers.items() if name.startswith("apns-")}
    assert outcome == Sent(headers.pop("apns-id"))
    assert headers == {
        "apns-topic": TOPIC,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(int(expires_at.timestamp())),
        "apns-collapse-id": "thread-42",
    }
    assert received.device == DEVICE
    assert received.payload == {
        "aps": {
            "badge": 3,
            "alert": {"title": "New reply", "body": "Alice: hello"},
            "sound": "default",
            "thread-id": "forum.thread:42",
        },
        "notification_id": 7,
    }


async def test_the_apns_id_stays_with_the_delivery(far: Far) -> None:
    far.server.plan(DEVICE, Drop())
    async with far.actor() as actor:
        assert isinstance((await send_by(actor, message(1))).outcome, Unknown)
        await send_by(actor, message(1))
        await send_by(actor, message(2))
    async with far.actor(installation="another") as actor:
        await send_by(actor, message(1))
    ids = [each.headers["apns-id"] for each in far.server.received]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("kind", "priority", "sent"),
    [
        (PushKind.ALERT, Priority.HIGH, ("alert", "10")),
        (PushKind.ALERT, Priority.NORMAL, ("alert", "10")),
        (PushKind.ALERT, Priority.LOW, ("alert", "5")),
        (PushKind.BADGE, Priority.NORMAL, ("alert", "5")),
        (PushKind.BACKGROUND, Priority.HIGH, ("background", "5")),
    ],
)
async def test_push_type_and_priority(
    far: Far, kind: PushKind, priority: Priority, sent: tuple[str, str]
) -> None:
    assert isinstance(await far.push(Push("T", kind=kind), priority=priority), Sent)
    headers = far.server.received[0].headers
    assert (headers["apns-push-type"], headers["apns-priority"]) == sent


async def test_a_silent_badge(far: Far) -> None:
    far.checks.badge = 0
    assert isinstance(await far.push(Push(kind=PushKind.BADGE)), Sent)
    assert far.server.received[0].payload == {"aps": {"badge": 0}}


async def test_a_silent_badge_without_a_number_is_nothing_to_send(far: Far) -> None:
    far.checks.badge = None
    assert await far.push(Push(kind=PushKind.BADGE)) == Rejected("apns_no_badge")
    assert not far.server.received


async def test_what_can_not_be_sent_at_all(far: Far) -> None:
    assert await far.push(Push("t", data={"x": "y" * 5000})) == Rejected("payload_too_large")
    assert await far.push(Push("t", data={"x": object()})) == Rejected("payload_not_json")
    assert await far.push(Push("t", data={"x": "\ud83d"})) == Rejected("payload_not_json")
    for device in ("", "not-hex!", "../3", "aabb\r\nx: y", "ab" * 101):
        far.checks.devices[1] = device
        assert await far.push() == Rejected("apns_invalid_token", quarantine=True)
    assert not far.server.received


async def test_a_body_of_emoji_is_cut_to_what_apple_takes(far: Far) -> None:
    assert isinstance(await far.push(Push("Title", "👨‍👩‍👧‍👦" * 2000)), Sent)
    assert far.server.received[0].payload["aps"]["alert"]["body"].endswith("👨‍👩‍👧‍👦…")


async def test_what_is_withheld_is_not_sent(far: Far) -> None:
    far.checks.withheld.add(1)
    assert await far.push() == Withheld(DeliveryState.SKIPPED, "device_moved")
    assert not far.server.received


# Responses.


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (
            ApnsReply(410, "Unregistered", 1_793_534_400_000),
            Rejected("apns_Unregistered", address_dead=True, dead_since=NOW),
        ),
        (
            ApnsReply(410, "ExpiredToken"),
            Rejected("apns_ExpiredToken", address_dead=True, dead_since=NOW),
        ),
        (
            ApnsReply(400, "BadDeviceToken"),
            Rejected("apns_BadDeviceToken", quarantine=True, dead_since=NOW),
        ),
        (ApnsReply(413, "PayloadTooLarge"), Rejected("apns_PayloadTooLarge")),
        (ApnsReply(429, "TooManyRequests"), Deferred("apns_TooManyRequests", 60.0)),
        (
            ApnsReply(429, "TooManyRequests", headers=(("retry-after", "90"),)),
            Deferred("apns_TooManyRequests", 90.0),
        ),
        (ApnsReply(500, "InternalServerError"), Deferred("apns_InternalServerError", 900.0)),
        (ApnsReply(503, "Shutdown"), Deferred("apns_Shutdown", 900.0)),
        (ApnsReply(403, "InvalidProviderToken"), Deferred("apns_InvalidProviderToken")),
        (ApnsReply(503, body=b"<html>"), Deferred("apns_503", 900.0)),
        (ApnsReply(410), Deferred("apns_410")),
        (Hang(), Unknown("apns_timeout")),
        (Reset(), Unknown("apns_reset")),
        (Reset(7), Deferred("apns_reset")),
        (GoAway(processed=False), Deferred("apns_goaway")),
        (SlowBody(410), Deferred("apns_410")),
        (Drop(), Unknown("apns_disconnected")),
        (Freeze(), Unknown("apns_timeout")),
        (Garbage(), Unknown("apns_timeout")),
        (Garbage(b"\0" * 64), Unknown("apns_protocol_error")),
    ],
)
async def test_outcomes(far: Far, act: Act, outcome: Outcome) -> None:
    far.server.plan(DEVICE, act)
    sending = asyncio.create_task(far.push())
    if act in {Hang(), SlowBody(410), Freeze(), Garbage()}:  # ended by our timeout
        await until(lambda: far.server.received)
        await LoopClock().advance_until_done(sending, step=0.1)
    assert await sending == outcome


async def test_the_deadline_of_the_whole_message(far: Far) -> None:
    far.server.plan(DEVICE, Hang())
    sending = asyncio.create_task(far.push(deadline=5.0))
    await until(lambda: far.server.received)
    assert await LoopClock().advance_until_done(sending) == Unknown("timeout")


async def test_a_server_that_sends_no_settings(far: Far) -> None:
    far.server.sends_settings = False
    assert await far.push(connect=0.1) == Deferred("apns_timeout_connect")


async def test_nobody_listens(far: Far) -> None:
    await far.server.stop()
    assert await far.push() == Deferred("apns_connect_refused")


async def test_a_certificate_of_another(far: Far, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Authority().write(tmp_path_factory.mktemp("other") / "ca.pem")
    assert await far.push(ca_file=other) == Deferred("apns_tls_failed")


# Credentials.


@pytest.mark.parametrize(
    ("act", "word", "line"),
    [
        (ApnsReply(403, "InvalidProviderToken"), Deferred, "apns refuses our key"),
        (ApnsReply(429, "TooManyProviderTokenUpdates"), Deferred, "apns refuses our key"),
        (ApnsReply(400, "TopicDisallowed"), Rejected, "apns refuses our topic"),
    ],
)
async def test_a_refusal_of_all_that_is_ours_pauses_the_channel_and_touches_no_token(
    far: Far, act: Act, word: type, line: str
) -> None:
    far.server.default = act
    with capture_logs() as logs:
        async with far.actor(senders=1, breaker=Breaker(first=30, most=30)) as actor:
            outcomes = [(await send_by(actor, message(number))).outcome for number in range(8)]
            assert actor.report().breaker is BreakerState.OPEN
    assert {type(each) for each in outcomes[:5]} == {word}
    assert {type(each) for each in outcomes[5:]} == {Unsent}
    assert not any(each.address_dead for each in outcomes if isinstance(each, Rejected))
    assert len(far.server.received) == 5
    loud = [each["event"] for each in logs if each["log_level"] == "error"]
    assert len(loud) == 5
    assert loud[0].startswith(line)
    assert DEVICE not in str(logs)


async def test_a_token_that_apns_calls_expired_is_signed_again_once(far: Far) -> None:
    far.server.plan(DEVICE, ApnsReply(403, "ExpiredProviderToken"))
    async with far.actor() as actor:
        assert isinstance((await send_by(actor, message(1))).outcome, Sent)
        assert len(far.server.rules.tokens) == 2
        far.server.plan(DEVICE, ApnsReply(403, "ExpiredProviderToken"))
        assert (await send_by(actor, message(2))).outcome == Deferred("apns_ExpiredProviderToken")
    assert len(far.server.rules.tokens) == 2


async def test_hundreds_that_meet_an_expired_token_sign_one_for_all(
    authority: Authority, key: Key, ca_file: Path
) -> None:
    ahead = 0.0
    rules = Rules(
        key, topics=frozenset({TOPIC}), min_refresh=1200, clock=lambda: 1_800_000_000 + ahead
    )
    tokens = tokens_of(key, clock=lambda: 1_800_000_000 + ahead / 2)  # a clock that is late
    async with ApnsServer(authority, key, topics={TOPIC}, rules=rules) as server:
        async with Far(server, key, ca_file).actor(tokens=tokens, senders=32) as actor:
            await send_by(actor, message(0))
            ahead = 3700.0
            settlements = await asyncio.gather(*(send_by(actor, message(n)) for n in range(1, 200)))
        assert {type(each.outcome) for each in settlements} == {Sent}
        assert len(server.rules.tokens) == 2
        assert server.replies[429] == 0


async def test_a_store_of_tokens_that_is_down_sends_nothing(far: Far) -> None:
    class Down:
        async def token(self) -> str:
            raise TokenUnavailable

        async def renew(self, stale: str) -> bool:
            raise TokenUnavailable

    assert await far.push(tokens=Down()) == Deferred("apns_token_unavailable")
    assert not far.server.received


# Connections.


async def test_one_that_is_slow_holds_up_no_other(far: Far) -> None:
    far.checks.devices[1] = "11" * 32
    far.server.plan("11" * 32, Held())
    async with far.actor() as actor:
        await send_by(actor, message(0))
        slow = asyncio.create_task(send_by(actor, message(1)))
        for number in range(2, 50):
            assert isinstance((await send_by(actor, message(number))).outcome, Sent)
        assert not slow.done()
        far.server.release()
        assert isinstance((await slow).outcome, Sent)
    assert far.server.connected <= 2


async def test_goaway_moves_to_a_new_connection_and_costs_no_attempt(far: Far) -> None:
    async with far.actor() as actor:
        await send_by(actor, message(0))
        far.server.plan(DEVICE, GoAway(processed=False, reason="Shutdown"))
        settlements = await asyncio.gather(*(send_by(actor, message(n)) for n in range(1, 40)))
        assert {type(each.outcome) for each in settlements} == {Sent}
        assert actor.report().breaker_reason is None
    sent = [each.headers["apns-id"] for each in far.server.received if each.status == 200]
    assert len(sent) == len(set(sent)) == 40
    assert far.server.connected >= 2


async def test_a_connection_that_the_server_dropped_while_idle_is_replaced(far: Far) -> None:
    async with far.actor() as actor:
        await send_by(actor, message(1))
        for wire in list(far.server.wires):
            wire.drop()
        await until(lambda: not far.server.wires)
        assert isinstance((await send_by(actor, message(2))).outcome, Sent)


async def test_a_server_that_takes_fewer_streams_is_obeyed(far: Far) -> None:
    far.server.streams = 1
    async with far.actor(connections=1) as actor:
        settlements = await asyncio.gather(*(send_by(actor, message(n)) for n in range(40)))
    assert {type(each.outcome) for each in settlements} == {Sent}
    assert far.server.connected == 1


async def test_a_limit_that_falls_while_sending(far: Far) -> None:
    async with far.actor(connections=1) as actor:
        await send_by(actor, message(0))
        (wire,) = far.server.wires
        tasks = [asyncio.create_task(send_by(actor, message(n))) for n in range(1, 60)]
        await until(lambda: len(far.server.received) > 10)
        wire.limit(2)
        settlements = await asyncio.gather(*tasks)
    assert {type(each.outcome) for each in settlements} <= {Sent}


async def test_an_outage_and_its_end(far: Far) -> None:
    far.server.default = ApnsReply(503, "ServiceUnavailable")
    async with far.actor(senders=1, breaker=Breaker(first=0.02, most=0.02)) as actor:
        for number in range(5):
            await send_by(actor, message(number))
        assert actor.report().breaker is not BreakerState.CLOSED
        far.server.default = None
        await until(lambda: actor.report().breaker is BreakerState.HALF_OPEN)
        async with actor.acquire(1) as permits:
            assert isinstance((await send_on(permits, message(9))).outcome, Sent)
        assert actor.report().breaker is BreakerState.CLOSED


async def test_stopping_leaves_nothing_open(far: Far) -> None:
    before = asyncio.all_tasks()
    async with far.actor() as actor:
        await asyncio.gather(*(send_by(actor, message(n)) for n in range(20)))
    await until(lambda: not far.server.wires)
    assert asyncio.all_tasks() <= before


async def test_memory_and_connections_stay_as_they_were(far: Far) -> None:
    """Through many hundreds of pushes, one in twenty refused, reset or cut off with its connection."""

    def misbehave(start: int) -> None:
        for number in range(start, start + 400, 20):
            device = far.checks.devices[number] = f"{number:064x}"
            acts: list[Act] = [ApnsReply(429, "TooManyRequests"), Reset(), GoAway(), ApnsReply(410)]
            far.server.plan(device, acts[number // 20 % 4])

    async def round_of(start: int) -> int:
        misbehave(start)
        settlements = await asyncio.gather(
            *(send_by(actor, message(number)) for number in range(start, start + 400))
        )
        far.checks.devices.clear()
        far.server.received.clear()
        del settlements
        gc.collect()
        return sys.getallocatedblocks()

    async with far.actor(senders=32) as actor:
        await send_by(actor, message(0))
        await round_of(1)  # fills the caches
        blocks = [await round_of(start) for start in (401, 801, 1201, 1601)]
        grown = [after - before for before, after in pairwise(blocks)]
        assert min(grown) < 400, grown  # one a push; each round has leftovers of its own
        assert len(far.server.wires) <= 2
    assert far.server.connected < 66
