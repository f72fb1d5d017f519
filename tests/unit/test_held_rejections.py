"""Protection against mass rejection: which rejections count, and which are held, confirmed or discarded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tocsin.engine.actors.machinery.breaker import HeldRejections, RejectionCounter
from tocsin.engine.actors.machinery.envelope import Envelope, SendResult
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Deferred,
    Message,
    Outcome,
    Priority,
    Push,
    Rejected,
    Sent,
    Settlement,
    Unsent,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DEAD = Rejected("apns_Unregistered", address_dead=True)
ELSEWHERE = Rejected("apns_BadDeviceToken", quarantine=True)

# The rule: `+` is a success, a letter the refusal of that device, and `!` after it means that it is held back.


@pytest.mark.parametrize(
    ("first", "later", "story"),
    [
        (3, 5, "a"),  # one person with one dead token
        (3, 5, "aaaaaaaa"),  # however often it is refused
        (3, 5, "ab"),
        (3, 5, "abc!"),
        (3, 5, "abc!d!e!a!"),
        (3, 5, "ab+abcd"),  # what was accepted shows that the settings are right
        (3, 5, "ab+abcde!"),  # and then it is the provider that errs
        (3, 5, "abc!+abcd+abcd+"),
        (3, 5, "abc!d!+d"),  # over with a success, and then a dead token is dead
        (1, 1, "a!+b!"),
    ],
)
def test_stories(first: int, later: int, story: str) -> None:
    counter = RejectionCounter(first=first, later=later)
    result = ""
    for event in story.replace("!", ""):
        result += event
        if event == "+":
            counter.accepted()
        elif counter.rejected(event):
            result += "!"
    assert result == story


@given(st.lists(st.one_of(st.none(), st.integers(0, 30))), st.integers(1, 8), st.integers(1, 20))
def test_fewer_than_the_limit_are_believed_between_two_successes(
    events: list[int | None], first: int, later: int
) -> None:
    counter = RejectionCounter(first=first, later=later)
    believed: set[int] = set()
    refused: set[int] = set()
    limit = first
    for device in events:
        if device is None:
            counter.accepted()
            believed, refused, limit = set(), set(), later
            assert not counter.too_many
            continue
        refused.add(device)
        if not counter.rejected(str(device)):
            believed.add(device)
        assert len(believed) < limit
        assert counter.too_many == (len(refused) >= limit)
        assert counter.addresses <= limit


def test_by_default_ten_in_a_row_are_too_many_and_after_a_success_fifty() -> None:
    counter = RejectionCounter()
    assert counter.too_many is False
    assert [counter.rejected(str(device)) for device in range(11)] == [False] * 9 + [True] * 2
    counter.accepted()
    assert counter.too_many is False
    assert [counter.rejected(str(device)) for device in range(51)] == [False] * 49 + [True] * 2


# Held, confirmed, discarded.


class Rejections:
    """Held rejections of an actor that pauses for 7 seconds, and the settlements of each message."""

    def __init__(self, hold: float = 60.0, most: int = 3) -> None:
        self.pauses: list[str] = []
        self.settled: dict[int, list[Settlement]] = {}
        self.held = HeldRejections(
            "apns",
            advice="check the topic",
            pause=self._pause,
            hold=hold,
            counter=RejectionCounter(first=most, later=5),
        )

    def _pause(self, reason: str) -> float:
        self.pauses.append(reason)
        return 7.0

    def take(self, number: int, outcome: Outcome, *, sent: bool = True) -> bool:
        message = Message(number, UUID(int=number), Channel.PUSH, Priority.NORMAL, Push())
        settlements = self.settled[number] = []
        envelope = Envelope(message, settlements.append, lambda: 0.0)
        envelope.check_result = CheckResult(number, f"device-{number}", NOW) if sent else None
        envelope.begun = sent
        return self.held.take(envelope, SendResult(outcome))

    def outcomes(self) -> dict[int, Outcome | None]:
        """The outcome of each message; None for one that is not settled."""
        return {
            number: found[0].outcome if found else None for number, found in self.settled.items()
        }


@pytest.mark.parametrize("outcome", [Sent(), Deferred("apns_500"), Rejected("apns_BadPath")])
async def test_only_a_rejection_of_an_address_is_held(outcome: Outcome) -> None:
    assert not Rejections().take(1, outcome)


async def test_a_rejection_by_the_service_itself_is_not_held() -> None:
    rejections = Rejections(most=1)
    assert not rejections.take(1, ELSEWHERE, sent=False)
    assert not rejections.held.too_many


async def test_a_rejection_without_a_first_byte_is_not_held() -> None:
    rejections = Rejections(most=1)
    message = Message(1, UUID(int=1), Channel.PUSH, Priority.NORMAL, Push())
    envelope = Envelope(message, lambda _: None, lambda: 0.0)
    envelope.check_result = CheckResult(1, "device", NOW)
    assert not rejections.held.take(envelope, SendResult(ELSEWHERE))


async def test_the_end_of_the_hold_confirms_a_rejection() -> None:
    rejections = Rejections(hold=0.0)
    assert rejections.take(1, DEAD)
    assert rejections.outcomes() == {1: None}
    await asyncio.sleep(0.001)
    assert rejections.outcomes() == {1: DEAD}
    (settlement,) = rejections.settled[1]
    assert settlement.check_result is not None
    assert settlement.check_result.address == "device-1"


async def test_a_success_confirms_all_that_are_held() -> None:
    rejections = Rejections()
    assert rejections.take(1, DEAD)
    assert rejections.take(2, ELSEWHERE)
    assert not rejections.take(3, Sent())
    assert rejections.outcomes() == {1: DEAD, 2: ELSEWHERE, 3: None}
    assert rejections.settled[2][0].check_result == CheckResult(2, "device-2", NOW)


async def test_too_many_are_discarded_and_open_the_breaker() -> None:
    rejections = Rejections()
    with capture_logs() as logs:
        for number in range(1, 4):
            assert rejections.take(number, ELSEWHERE)
    reason = "apns_BadDeviceToken_mass_rejection"
    assert rejections.outcomes() == dict.fromkeys(range(1, 4), Unsent(reason, 7.0))
    assert [each[0].check_result for each in rejections.settled.values()] == [
        CheckResult(number, f"device-{number}", NOW) for number in range(1, 4)
    ]
    assert rejections.held.too_many
    assert rejections.held.advice == "check the topic"
    assert logs == [
        {
            "event": "check the topic",
            "log_level": "error",
            "actor": "apns",
            "reason": reason,
            "addresses": 3,
        }
    ]
    with capture_logs() as logs:
        assert rejections.take(4, ELSEWHERE)
    assert rejections.outcomes()[4] == Unsent(reason, 7.0)
    assert rejections.pauses == [reason] * 2
    assert not logs  # it is logged once


async def test_a_success_ends_a_mass_rejection() -> None:
    rejections = Rejections()
    for number in range(1, 4):
        rejections.take(number, ELSEWHERE)
    with capture_logs() as logs:
        rejections.take(4, Sent())
        rejections.take(5, Sent())
    assert logs == [{"event": "addresses are accepted again", "log_level": "info", "actor": "apns"}]
    assert not rejections.held.too_many
    assert rejections.held.advice is None
    assert rejections.take(6, DEAD)
    assert rejections.outcomes()[6] is None


async def test_closing_returns_what_is_held_and_stops_its_timers() -> None:
    rejections = Rejections(hold=0.0)
    rejections.take(1, DEAD)
    rejections.held.close()
    await asyncio.sleep(0.001)
    assert rejections.outcomes() == {1: Unsent("shutdown")}
    assert rejections.settled[1] == [
        Settlement(Unsent("shutdown"), CheckResult(1, "device-1", NOW))
    ]


async def test_a_rejection_is_held_for_a_second_by_default() -> None:
    loop, held = (
        asyncio.get_running_loop(),
        HeldRejections("apns", advice="check the topic", pause=lambda _: 7.0),
    )
    message = Message(1, UUID(int=1), Channel.PUSH, Priority.NORMAL, Push())
    envelope = Envelope(message, lambda _: None, lambda: 0.0)
    envelope.check_result, envelope.begun = CheckResult(1, "device", NOW), True
    started = loop.time()
    assert held.take(envelope, SendResult(DEAD))
    ((_, timer),) = held._held.values()
    assert 0.9 < timer.when() - started < 1.1
    held.close()
    assert timer.cancelled()
