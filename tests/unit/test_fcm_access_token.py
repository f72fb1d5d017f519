"""The access token of the FCM actor: how it is got, shared, renewed and refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.fcm_actor import *  # noqa: F403 - fixtures
from tests.support.fcm_actor import Checks, actor_for, message, send
from tests.support.sending import send_by
from tests.support.services import LONGEST, until
from tocsin.engine.actors.fcm import FcmActor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.model import (
    Deferred,
    Sent,
    Unsent,
)
from tocsin.testing import fcm as errors
from tocsin.testing.fcm import FcmServer

# The access token.


async def test_one_access_token_serves_all_senders(fcm: FcmServer) -> None:
    async with actor_for(fcm, senders=8) as actor:
        await asyncio.gather(*(send_by(actor, message(number)) for number in range(40)))
    assert len(fcm.issuer.issued) == 1
    assert fcm.requests == 40


async def test_an_access_token_is_renewed_in_the_background_before_it_ends(fcm: FcmServer) -> None:
    fcm.issuer.lifetime = 400.0  # of which the last 100 s are for renewing
    now = 0.0
    async with actor_for(fcm, senders=2) as actor:
        actor._access._clock = lambda: now
        await send_by(actor, message(1))
        now = 200.0
        await send_by(actor, message(2))
        assert len(fcm.issuer.issued) == 1
        now = 330.0
        assert isinstance((await send_by(actor, message(3))).outcome, Sent)
        await until(lambda: len(fcm.issuer.issued) == 2)
        await until(lambda: actor._access.current == fcm.issuer.issued[1])
        await send_by(actor, message(4))
    bearers = [each.authorization for each in fcm.received]
    assert len(set(bearers[:3])) == 1
    assert bearers[3] == f"Bearer {fcm.issuer.issued[1]}"


async def test_a_background_renewal_that_fails_stops_nothing(fcm: FcmServer) -> None:
    fcm.issuer.lifetime = 400.0
    now = 0.0
    async with actor_for(fcm) as actor:
        actor._access._clock = lambda: now
        await send_by(actor, message(1))
        fcm.issuer.status = 503
        now = 330.0
        assert isinstance((await send_by(actor, message(2))).outcome, Sent)
        await until(lambda: actor._access._renewal is not None and actor._access._renewal.done())
        assert isinstance((await send_by(actor, message(3))).outcome, Sent)


async def test_a_token_that_ended_early_is_replaced_without_an_attempt(fcm: FcmServer) -> None:
    async with actor_for(fcm, senders=4) as actor:
        await send_by(actor, message(1))
        fcm.issuer.revoke_tokens()
        sent = await asyncio.gather(*(send_by(actor, message(number)) for number in range(2, 10)))
        assert {type(each.outcome) for each in sent} == {Sent}
        assert actor.report().breaker_reason is None
    assert len(fcm.issuer.issued) == 2


async def test_tokens_that_are_never_good_are_not_asked_for_without_end(fcm: FcmServer) -> None:
    fcm.script.always(fcm.script.EVERY, errors.UNAUTHENTICATED)
    async with actor_for(fcm, breaker=Breaker(first=30, most=30)) as actor:
        outcomes = [(await send_by(actor, message(number))).outcome for number in range(8)]
        assert outcomes[:5] == [Deferred("fcm_401_unauthenticated", 10)] * 5
        assert all(isinstance(each, Unsent) for each in outcomes[5:])
    assert len(fcm.issuer.issued) == 5


async def test_a_revoked_key_pauses_the_channel_and_touches_no_token(fcm: FcmServer) -> None:
    fcm.issuer.revoked = True
    async with actor_for(fcm, breaker=Breaker(first=30, most=30)) as actor:
        outcomes = [(await send_by(actor, message(number))).outcome for number in range(6)]
        assert outcomes[:5] == [Deferred("fcm_token_refused")] * 5
        assert actor.report().breaker is BreakerState.OPEN
    assert fcm.requests == 0


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, None, "fcm_token_503"),
        (429, None, "fcm_token_429"),
        (302, None, "fcm_token_refused"),
        (200, "<html>", "fcm_token_unreadable"),
        (200, "[]", "fcm_token_unreadable"),
        (200, "{}", "fcm_token_refused"),
        (400, "nonsense", "fcm_token_refused"),
    ],
)
async def test_a_token_endpoint_that_misbehaves(
    fcm: FcmServer, status: int, body: str | None, reason: str
) -> None:
    fcm.issuer.status, fcm.issuer.body = status, body
    async with asyncio.timeout(LONGEST):
        assert await send(fcm) == Deferred(reason)


@asynccontextmanager
async def silence(fcm: FcmServer) -> AsyncIterator[dict[str, str]]:
    """An account whose token endpoint never responds."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield fcm.service_account | {"token_uri": f"http://127.0.0.1:{port}/token"}
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def test_a_token_endpoint_that_hangs_meets_its_deadline(fcm: FcmServer) -> None:
    async with silence(fcm) as account, actor_for(fcm, service_account=account) as actor:
        actor._access._timeout = 0.1
        assert (await send_by(actor, message(1))).outcome == Deferred("fcm_token_timeout")


async def test_stopping_gives_up_a_renewal(fcm: FcmServer) -> None:
    async with asyncio.timeout(LONGEST), silence(fcm) as account:
        actor = FcmActor(presend_check=Checks().presend_check, service_account=account, url=fcm.url)
        await actor.start()
        sending = asyncio.create_task(send_by(actor, message(1)))
        await until(lambda: actor._access._renewal is not None)
        await actor.stop(grace=0.01)
        assert (await sending).outcome == Unsent("shutdown")
