"""How a chat is paced: each target by the limits of its service, in order, and without occupying a sender."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.support.sending import send_by
from tocsin.engine.actors.chat import HORIZON, ChatActor, Pacing
from tocsin.engine.actors.chat_services import SERVICES, SendLimit
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Message,
    Outcome,
    Priority,
    Push,
    Sent,
    Unsent,
)
from tocsin.testing.chats import ChatServer
from tocsin.testing.far_end import Reply

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def sent_at(limits: Sequence[SendLimit], count: int, **options: Any) -> list[float]:
    """Returns when each of `count` messages that wait from now on may be sent."""
    clock = Clock()
    pacing = Pacing(clock)
    waiting = dict.fromkeys(range(count), clock.at)
    sent: dict[int, float] = {}
    while waiting:
        clock.at = min(waiting.values())
        for number in sorted(each for each, due in waiting.items() if due <= clock.at):
            wait = pacing.wait(number, "target", limits, account="account", **options)
            if wait:
                waiting[number] = clock.at + wait
            else:
                sent[number] = clock.at - 1000.0
                del waiting[number]
    assert list(sent) == sorted(sent), "in the order in which they came"
    return list(sent.values())


def most_within(times: Sequence[float], seconds: float) -> int:
    return max(sum(start <= each < start + seconds for each in times) for start in times)


@pytest.mark.parametrize(
    ("kind", "url", "most"),
    [
        ("slack", "https://hooks.slack.com/services/T0/B0/x", {1.0: 1}),
        ("discord", "https://discord.com/api/webhooks/1/x", {2.0: 5, 60.0: 30}),
        ("teams", "https://a.logic.azure.com/workflows/1", {1.0: 4}),
        ("telegram", "https://api.telegram.org/bot1:x/sendMessage?chat_id=5", {1.0: 1}),
        ("telegram", "https://api.telegram.org/bot1:x/sendMessage?chat_id=-5", {1.0: 1, 60.0: 20}),
    ],
)
def test_a_target_gets_as_many_as_its_provider_takes(
    kind: str, url: str, most: dict[float, int]
) -> None:
    times = sent_at(SERVICES[kind].limits_of(url), 100)
    assert times[0] == 0.0
    for seconds, number in most.items():
        assert most_within(times, seconds) == number


def test_a_bot_sends_thirty_a_second_to_all_its_chats_together() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    limit = SERVICES["telegram"].shared_limit
    waits = [
        pacing.wait(number, f"chat {number}", (SendLimit(1, 1.0),), account="bot", shared=limit)
        for number in range(40)
    ]
    assert waits.count(0.0) == 30
    assert {round(each) for each in waits if each} == {1}
    clock.at += 1.1
    assert pacing.wait(39, "chat 39", (SendLimit(1, 1.0),), account="bot", shared=limit) == 0.0


def test_a_held_target_waits_and_others_do_not() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    limits = (SendLimit(1, 1.0),)
    pacing.hold("a", 30.0)
    assert pacing.wait(1, "a", limits, account="slack") >= 30.0
    assert pacing.wait(2, "b", limits, account="slack") == 0.0
    pacing.hold("slack", 5.0)
    assert pacing.wait(3, "c", limits, account="slack") >= 5.0
    clock.at += 30.1
    assert pacing.wait(1, "a", limits, account="slack") == 0.0


def test_what_is_late_does_not_come_at_once() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    limits = (SendLimit(1, 1.0),)

    def waits(*numbers: int) -> list[float]:
        return [pacing.wait(each, "a", limits, account="x") for each in numbers]

    assert waits(1, 2, 3, 4)[0] == 0.0
    clock.at += 60  # the database was away
    second, third, fourth = waits(2, 3, 4)
    assert second == 0.0
    assert 0.9 < third < 1.1
    assert 1.9 < fourth < 2.1
    clock.at += third
    assert waits(3) == [0.0]
    assert waits(4)[0] > 0.9


def test_turns_are_given_for_ten_minutes_ahead_and_forgotten_when_nobody_takes_them() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    limits = (SendLimit(1, 1.0),)
    waits = [pacing.wait(number, "a", limits, account="x") for number in range(700)]
    assert waits[600] > HORIZON - 1
    assert waits[601:] == [HORIZON] * 99
    for number in range(20_000):
        clock.at += 2
        pacing.wait(1000 + number, f"target {number}", limits, account="x")
    assert len(pacing._reserved) <= 10_000
    assert len(pacing._turns) <= 10_000


# With the actor.


def message(number: int) -> Message:
    content = Push(f"Title {number}", "body")
    return Message(number, UUID(int=number), Channel.CHAT, Priority.NORMAL, content)


class Targets:
    """The presend check: which target each message goes to."""

    def __init__(self, chats: ChatServer, kind: str, targets: Sequence[str]) -> None:
        self._chats, self._kind, self._targets = chats, kind, targets
        self.replaces: str | None = None

    async def presend_check(self, messages: Sequence[Message]) -> dict[int, CheckResult]:
        options = {"kind": self._kind, "replaces": self.replaces}
        return {
            each.delivery_id: CheckResult(
                each.delivery_id,
                self._chats.url(self._kind, self._targets[each.delivery_id % len(self._targets)]),
                NOW,
                options=options,
            )
            for each in messages
        }


async def outcomes(
    chats: ChatServer,
    kind: str,
    targets: Sequence[str],
    numbers: Sequence[int],
    *,
    senders: int = 1,
) -> list[Outcome]:
    checks = Targets(chats, kind, targets)
    actor = ChatActor(
        presend_check=checks.presend_check,
        allow_loopback=True,
        senders=senders,
        size=2000,
        clock=Clock(),
    )
    await actor.start()
    try:
        settled = await asyncio.gather(*(send_by(actor, message(number)) for number in numbers))
    finally:
        await actor.stop(grace=0.05)
    return [each.outcome for each in settled]


async def test_a_target_with_many_messages_occupies_no_sender() -> None:
    """Two hundred wait for one target in the ledger; what is for the others is sent at once, by two senders."""
    async with ChatServer() as chats:
        targets = ["busy"] * 20 + [f"quiet{number}" for number in range(10)]
        found = await outcomes(chats, "slack", targets, [*range(300)], senders=2)
        # of each ten of the quiet ones the first is sent
        assert Counter(type(each) for each in found)[Sent] == 11
        assert {each.target for each in chats.posts} == {"busy", *targets[20:]}
        paced = [each for each in found if isinstance(each, Unsent)]
        assert {each.reason for each in paced} == {"paced"}
        assert max(each.retry_after for each in paced) > 195


async def test_many_targets_are_paced_each_by_itself() -> None:
    """Of three messages to each, one is sent and two wait for their turn, with two senders."""
    async with ChatServer() as chats:
        targets = [f"t{number}" for number in range(200)]
        found = await outcomes(chats, "slack", targets, [*range(600)], senders=2)
        assert len(chats.posts) == len({each.target for each in chats.posts}) == 200
        assert Counter(type(each) for each in found) == {Sent: 200, Unsent: 400}


async def test_after_a_429_the_next_messages_of_the_target_wait_as_long() -> None:
    async with ChatServer() as chats:
        chats.script.then("discord", [Reply(429, '{"retry_after": 40, "global": false}')])
        first, *rest = await outcomes(chats, "discord", ["a"], [0, 1, 2])
        assert getattr(first, "retry_after", None) == 40.0
        assert all(isinstance(each, Unsent) and each.retry_after > 39 for each in rest)
        assert chats.requests == 1


async def test_a_global_429_of_discord_holds_all_its_targets() -> None:
    async with ChatServer() as chats:
        chats.script.then("discord", [Reply(429, '{"retry_after": 40, "global": true}')])
        _, other = await outcomes(chats, "discord", ["a", "b"], [0, 1])
        assert isinstance(other, Unsent)


@pytest.mark.parametrize("kind", ["discord", "telegram"])
async def test_a_replacement_changes_the_earlier_message_and_is_posted_where_that_is_gone(
    kind: str,
) -> None:
    async with ChatServer() as chats:
        checks = Targets(chats, kind, ["7"])
        actor = ChatActor(presend_check=checks.presend_check, allow_loopback=True, clock=Clock())
        await actor.start()

        async def send(number: int) -> Outcome:
            actor._pacing = Pacing(Clock())
            return (await send_by(actor, message(number))).outcome

        try:
            first = await send(1)
            assert isinstance(first, Sent)
            checks.replaces = first.provider_id
            assert await send(2) == first
            assert [(each.edits, "Title 2" in each.text) for each in chats.posts] == [(1, True)]
            assert await send(2) == first, "repeated, it changes nothing"
            chats.posts.clear()
            again = await send(3)
            assert isinstance(again, Sent)
            assert again != first
            assert "Title 3" in chats.posts[0].text
        finally:
            await actor.stop(grace=0.05)
