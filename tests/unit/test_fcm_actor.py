"""The FCM actor against a local FCM server: payload, deadlines, pauses."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import regex
import trustme
from aiohttp import TCPConnector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fcm_actor import *  # noqa: F403 - fixtures
from tests.support.fcm_actor import NOW, Checks, actor_for, message, send
from tests.support.sending import send_by
from tests.support.services import until
from tocsin.engine.actors.fcm import MOST_BYTES, FcmActor
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Mail,
    Message,
    Push,
    PushKind,
    Rejected,
    Sent,
    Unknown,
    Unsent,
)
from tocsin.testing import fcm as errors
from tocsin.testing.far_end import Fault, Reply
from tocsin.testing.fcm import FcmServer, fault

# What arrives.


async def test_a_push_arrives_with_a_block_for_each_platform(fcm: FcmServer) -> None:
    push = Push(
        "Grüße",
        "A new reply",
        data={"notification_id": "7", "action_url": "https://app.test/threads/1"},
        collapse_id="thread-1",
        thread_id="forum",
        category="tocsin:accept",
        expires_at=NOW + timedelta(hours=1),
    )
    check = Checks(badge=3).presend_check
    outcome = await send(fcm, push, channel_id="replies", presend_check=check)
    assert outcome == Sent("projects/tocsin-test/messages/0:1%tocsin")
    assert fcm.received[0].message == {
        "token": "device-1",
        "notification": {"title": "Grüße", "body": "A new reply"},
        "data": {"notification_id": "7", "action_url": "https://app.test/threads/1"},
        "android": {
            "priority": "HIGH",
            "ttl": "3600s",
            "collapse_key": "thread-1",
            "notification": {
                "channel_id": "replies",
                "tag": "thread-1",
                "default_sound": True,
                "notification_count": 3,
            },
        },
        "apns": {
            "headers": {
                "apns-priority": "10",
                "apns-push-type": "alert",
                "apns-collapse-id": "thread-1",
                "apns-expiration": str(int((NOW + timedelta(hours=1)).timestamp())),
            },
            "payload": {
                "aps": {
                    "sound": "default",
                    "badge": 3,
                    "thread-id": "forum",
                    "category": "tocsin:accept",
                }
            },
        },
        "webpush": {
            "headers": {"Urgency": "high", "TTL": "3600", "Topic": "thread-1"},
            "notification": {"tag": "thread-1"},
            "fcm_options": {"link": "https://app.test/threads/1"},
        },
    }


async def test_a_repeat_replaces_what_the_device_shows(fcm: FcmServer) -> None:
    async with actor_for(fcm) as actor:
        await send_by(actor, message(9))
        await send_by(actor, message(9))
    tags = [each.message["android"]["notification"]["tag"] for each in fcm.received]
    assert tags == ["tocsin-9", "tocsin-9"]


async def test_a_silent_push_shows_nothing_and_sets_the_badge(fcm: FcmServer) -> None:
    push = Push(kind=PushKind.BADGE)
    assert isinstance(await send(fcm, push, presend_check=Checks(badge=0).presend_check), Sent)
    sent = fcm.received[0].message
    assert "notification" not in sent
    assert "notification" not in sent["android"]
    assert sent["data"] == {"silent": "1", "badge": "0"}
    # Apple: a background push has no badge
    assert sent["apns"]["payload"] == {"aps": {"badge": 0}}
    assert sent["apns"]["headers"]["apns-push-type"] == "alert"
    assert sent["apns"]["headers"]["apns-priority"] == "5"


@pytest.mark.parametrize(
    ("life", "ttl"),
    [
        (timedelta(days=90), "2419200s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(minutes=1), "60s"),
    ],
)
async def test_the_life_is_within_what_fcm_allows(
    fcm: FcmServer, life: timedelta, ttl: str
) -> None:
    assert isinstance(await send(fcm, Push("t", "b", expires_at=NOW + life)), Sent)
    assert fcm.received[0].message["android"]["ttl"] == ttl


async def test_an_address_that_is_no_plain_text_stays_one_token(fcm: FcmServer) -> None:
    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return {1: CheckResult(1, '","topic":"all\n', NOW)}

    await send(fcm, presend_check=presend_check)
    assert fcm.received[0].message["token"] == '","topic":"all\n'
    assert "topic" not in fcm.received[0].message


async def test_a_mail_is_no_push(fcm: FcmServer) -> None:
    assert await send(fcm, Mail("<1@a.test>", "s", "t", "h")) == Rejected("not_a_push")
    assert fcm.requests == 0


# 4096 bytes.


def body_of(draft: bytes) -> str:
    return str(json.loads(draft)["message"]["notification"].get("body", ""))


FAMILY = "👨‍👩‍👧‍👦"


PIECES = st.sampled_from(
    [FAMILY, "🇩🇪", "e\u0301", "שלום", "\u202bمرحبا\u202c", '"', "\\", "x", "한국어", "\x01"]
)


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(PIECES, min_size=50, max_size=100), repeat=st.integers(1, 40))
def test_a_long_body_is_cut_between_graphemes_and_fills_the_room(
    writer: FcmActor, pieces: list[str], repeat: int
) -> None:
    body = "".join(pieces) * repeat
    draft = writer.draft(message(1, Push("Title", body)))
    assert isinstance(draft, bytes)
    assert len(draft) <= MOST_BYTES
    kept = body_of(draft)
    if kept == body:
        return
    ends = {found.end() for found in regex.finditer(r"\X", body)}
    assert body.startswith(kept[:-1])
    assert kept.endswith("…")
    assert len(kept) - 1 in ends
    assert len(draft) > MOST_BYTES - 40


async def test_what_was_cut_is_taken_by_the_far_end(fcm: FcmServer) -> None:
    assert isinstance(
        await send(fcm, Push("Title", FAMILY * 1000), presend_check=Checks(badge=1).presend_check),
        Sent,
    )
    assert fault(fcm.received[0].message) is None


def test_a_title_is_cut_only_where_the_body_is_gone(writer: FcmActor) -> None:
    draft = writer.draft(message(1, Push("t" * 5000, "body")))
    assert isinstance(draft, bytes)
    shown = json.loads(draft)["message"]["notification"]
    assert set(shown) == {"title"}
    assert shown["title"].endswith("t…")
    assert MOST_BYTES - 4 <= len(draft) <= MOST_BYTES


def test_data_that_leaves_no_room_is_refused(writer: FcmActor) -> None:
    push = Push("title", "body", data={"blob": "x" * 4096})
    assert writer.draft(message(1, push)) == Rejected("payload_too_large")


def test_half_a_character_is_refused(writer: FcmActor) -> None:
    assert writer.draft(message(1, Push("title", "\ud83d"))) == Rejected("invalid_text")


# Refusals.


async def test_a_dead_token_is_dead_as_of_the_presend_check(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [errors.UNREGISTERED])
    dead = Rejected("fcm_404_unregistered", address_dead=True, dead_since=NOW)
    assert await send(fcm) == dead


async def test_a_used_up_quota_pauses_the_channel_and_returns_what_waits(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [errors.quota_exceeded("120")])
    async with actor_for(fcm) as actor:
        posted = [asyncio.create_task(send_by(actor, message(number))) for number in range(1, 5)]
        first, *others = [(await each).outcome for each in posted]
        assert first == Deferred("fcm_429_quota_exceeded", 120)
        for outcome in others:
            assert isinstance(outcome, Unsent)
            assert 110 < outcome.retry_after <= 132
        assert actor.report().breaker_reason == "fcm_429_quota_exceeded"
        assert actor.breaker.retry_after > 110
    assert fcm.requests == 1


async def test_a_quota_of_one_device_leaves_the_others_alone(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [errors.DEVICE_QUOTA_EXCEEDED])
    async with actor_for(fcm) as actor:
        first = (await send_by(actor, message(1))).outcome
        assert first == Deferred("fcm_429_quota_exceeded_device", 60)
        assert isinstance((await send_by(actor, message(2))).outcome, Sent)


async def test_a_retry_after_may_be_a_date(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [errors.unavailable("Sun, 01 Nov 2026 12:01:30 GMT")])
    assert await send(fcm) == Deferred("fcm_503_unavailable", 90)


async def test_a_page_of_some_proxy_is_no_success(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [Reply(200, "<html>Log in to the Wi-Fi</html>")])
    assert await send(fcm) == Unknown("fcm_200_unreadable")


async def test_a_redirect_is_not_followed(fcm: FcmServer) -> None:
    there = (("Location", f"{fcm.url}/elsewhere"),)
    fcm.script.then("device-1", [Reply(307, "", there)])
    assert await send(fcm) == Deferred("fcm_307", 10)


async def test_an_endless_response_is_not_read_to_its_end(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [Reply(200, "x" * 10_000_000)])
    assert await send(fcm) == Unknown("fcm_200_unreadable")


# The connection.


async def test_connections_are_used_again(fcm: FcmServer) -> None:
    checks = Checks()
    async with actor_for(fcm, presend_check=checks.presend_check) as actor:
        for number in range(5):
            await send_by(actor, message(number))
        assert actor.report().in_flight == 0
    assert fcm.requests == 5
    assert checks.checks <= 5


async def test_connecting_longer_than_a_check_holds_costs_another_check_and_no_connection(
    fcm: FcmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    checks = Checks()
    opened = 0
    create = TCPConnector._create_connection

    async def counted(*given: Any) -> Any:
        nonlocal opened
        opened += 1
        return await create(*given)

    monkeypatch.setattr(TCPConnector, "_create_connection", counted)

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        nonlocal now
        found = await checks.presend_check(messages)
        if checks.checks == 1:
            # whatever comes next, connecting, takes 300 ms
            asyncio.get_running_loop().call_soon(later)
        return found

    def later() -> None:
        nonlocal now
        now += 0.3

    async with actor_for(fcm, presend_check=presend_check, clock=lambda: now) as actor:
        assert isinstance((await send_by(actor, message(1))).outcome, Sent)
    assert checks.checks == 2
    assert fcm.requests == 1
    assert opened == 2  # one for the access token, one for the push


async def test_a_cancelled_send_harms_no_other(fcm: FcmServer) -> None:
    fcm.script.then("device-1", [Fault.HANG])
    async with actor_for(fcm, senders=2) as actor:
        hanging = asyncio.create_task(send_by(actor, message(1)))
        await until(lambda: fcm.requests == 1)
        hanging.cancel()
        assert isinstance((await send_by(actor, message(2))).outcome, Sent)


async def test_nobody_listens(fcm: FcmServer) -> None:
    assert await send(fcm, url="http://127.0.0.1:9") == Deferred("fcm_connect_refused")


async def test_tls_with_a_private_certificate(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    async with FcmServer(tls=context) as fcm:
        assert isinstance(await send(fcm, ca_file=tmp_path / "ca.pem"), Sent)
        assert await send(fcm) == Deferred("fcm_token_unreachable")


@pytest.mark.parametrize("missing", ["project_id", "private_key", "client_email", "token_uri"])
def test_an_incomplete_service_account_is_refused_at_the_start(missing: str) -> None:
    account = FcmServer().service_account
    del account[missing]
    with pytest.raises(ValueError, match=missing):
        FcmActor(presend_check=Checks().presend_check, service_account=account)
