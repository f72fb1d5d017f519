"""An actor for each endpoint: one that hangs costs the others nothing, and hosts have a common limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.support.sending import send_by
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin.engine.actors.machinery.admission import ClaimPace
from tocsin.engine.actors.machinery.endpoints import EndpointActors
from tocsin.engine.actors.webhook import WebhookActor
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Message,
    Priority,
    Sent,
    Settlement,
    Unsent,
    WebhookBody,
)
from tocsin.testing.far_end import Fault, Reply

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BODY = WebhookBody("notification.created", NOW, {})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def actors(
    urls: dict[int, str], clock: Clock | None = None, **options: Any
) -> AsyncIterator[EndpointActors]:
    """Actors of the endpoints of these deliveries."""

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        secrets = {"secrets": [{"secret": SECRET}]}
        return {
            each.delivery_id: CheckResult(
                each.delivery_id, urls[each.delivery_id], NOW, options=secrets
            )
            for each in messages
        }

    def make(limit: asyncio.Semaphore) -> WebhookActor:
        settings: dict[str, Any] = {
            "allow_loopback": True,
            "timeout": 30.0,
            "host_limit": limit,
        } | options
        return WebhookActor(presend_check=presend_check, **settings)

    found = EndpointActors("webhook", make, clock=clock or Clock())
    try:
        yield found
    finally:
        await found.stop(grace=0.1)


async def send(found: EndpointActors, delivery_id: int, url: str) -> Settlement:
    actor = await found.of(delivery_id, url)
    return await send_by(
        actor, Message(delivery_id, UUID(int=delivery_id), Channel.WEBHOOK, Priority.NORMAL, BODY)
    )


async def test_one_that_hangs_delays_no_other() -> None:
    async with Endpoint(SECRET) as hanging, Endpoint(SECRET) as quick:
        hanging.script.always("/hook", Fault.HANG)
        async with actors({1: hanging.url, 2: quick.url}) as found:
            stuck = [asyncio.create_task(send(found, 1, hanging.url)) for _ in range(20)]
            assert (await send(found, 2, quick.url)).outcome == Sent()
            assert not any(task.done() for task in stuck)
            for task in stuck:
                task.cancel()


async def test_one_that_fails_is_left_alone_and_the_others_are_not() -> None:
    async with Endpoint(SECRET) as failing, Endpoint(SECRET) as quick:
        failing.script.always("/hook", Reply(500))
        async with actors({1: failing.url, 2: quick.url}) as found:
            outcomes = [(await send(found, 1, failing.url)).outcome for _ in range(8)]
            assert all(isinstance(each, Unsent) for each in outcomes[5:])
            assert failing.requests == 5
            assert (await send(found, 2, quick.url)).outcome == Sent()


async def test_a_host_has_one_limit_for_all_its_endpoints() -> None:
    async with Endpoint(SECRET) as endpoint:
        endpoint.script.always("/a", Fault.HANG)
        endpoint.script.always("/b", Fault.HANG)
        base = f"http://127.0.0.1:{endpoint.port}"
        urls = {1: f"{base}/a", 2: f"{base}/b"}
        async with actors(urls, senders=12) as found:
            tasks = [
                asyncio.create_task(send(found, id_, url))
                for id_, url in urls.items()
                for _ in range(12)
            ]
            while endpoint.requests < 16:
                await asyncio.sleep(0.005)
            in_flight = found.report().in_flight
            assert in_flight == 24, "the others wait for a place at the host"
            assert endpoint.requests == 16
            for task in tasks:
                task.cancel()


async def test_a_new_address_has_a_new_actor_and_the_old_one_is_stopped_once_it_is_idle() -> None:
    clock = Clock()
    async with Endpoint(SECRET) as endpoint:
        first, second = f"{endpoint.url}/1", f"{endpoint.url}/2"
        async with actors({1: first}, clock) as found:
            await send(found, 1, first)
            old = await found.of(1, first)
            assert await found.of(1, second) is not old
            assert found.report().senders == 16
            clock.now += 61
            await found.of(1, second)
            assert found.report().senders == 8
            assert await found.of(1, first) is not old


async def test_an_endpoint_that_is_left_alone_keeps_its_back_off() -> None:
    clock = Clock()
    async with Endpoint(SECRET) as endpoint:
        endpoint.script.always("/hook", Reply(429, "", (("Retry-After", "600"),)))
        async with actors({1: endpoint.url}, clock) as found:
            await send(found, 1, endpoint.url)
            actor = await found.of(1, endpoint.url)
            clock.now += 61
            assert await found.of(1, endpoint.url) is actor
            assert isinstance((await send(found, 1, endpoint.url)).outcome, Unsent)
        assert endpoint.requests == 1


async def test_a_claim_does_not_wait_for_a_full_mailbox() -> None:
    async with Endpoint(SECRET) as endpoint:
        endpoint.script.always("/hook", Fault.HANG)
        pace = ClaimPace(wait=0.01, spread=0.05)
        async with actors({1: endpoint.url}, size=2, senders=1, pace=pace) as found:
            stuck = [asyncio.create_task(send(found, 1, endpoint.url)) for _ in range(3)]
            actor = await found.of(1, endpoint.url)
            while actor.report().waiting < 2:
                await asyncio.sleep(0.005)
            async with actor.acquire(5) as permits:
                assert (permits.size, permits.retry_after > 0, permits.spread) == (0, True, 0.05)
            for task in stuck:
                task.cancel()
