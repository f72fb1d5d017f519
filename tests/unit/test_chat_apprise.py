"""Chats by Apprise: any service that it has, with what it promises."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from aiohttp import web

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.sending import send_by
from tocsin.engine.actors.chat import ChatActor, apprise_fault
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
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Service:
    """A service that Apprise reaches by its `json://`."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[dict[str, str]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"json://127.0.0.1:{runner.addresses[0][1]}/hook"
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        self.received.append(json.loads(await request.read()))
        headers = {"Location": "http://127.0.0.1:1/"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)


async def send(url: str, *numbers: int, allow_loopback: bool = True) -> list[Outcome]:
    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        options = {"kind": "apprise"}
        return {
            each.delivery_id: CheckResult(each.delivery_id, url, NOW, options=options)
            for each in messages
        }

    content = Push("Title", "body", link="https://app.example.com/7")
    actor = ChatActor(presend_check=presend_check, allow_loopback=allow_loopback, senders=1)
    await actor.start()
    try:
        settled = [
            await send_by(
                actor, Message(number, UUID(int=number), Channel.CHAT, Priority.NORMAL, content)
            )
            for number in numbers
        ]
    finally:
        await actor.stop(grace=0.05)
    return [each.outcome for each in settled]


async def test_a_message_is_sent_with_its_link() -> None:
    service = Service()
    async with service.running() as url:
        assert await send(url, 1) == [Sent()]
    (received,) = service.received
    assert received["title"] == "Title"
    assert received["message"] == "body\nhttps://app.example.com/7"


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_whatever_is_not_accepted_is_tried_again(status: int) -> None:
    service = Service()
    service.status = status
    async with service.running() as url:
        assert await send(url, 1) == [Deferred("apprise_refused")]
    assert len(service.received) == 1, "and a redirect is not followed"


async def test_what_apprise_does_not_know_is_refused() -> None:
    assert await send("nonsense://a/b", 1) == [Rejected("apprise_url_not_of_apprise")]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("json://127.0.0.1/x", "address_forbidden"),
        ("jsons://[::1]/x", "address_forbidden"),
        ("json://localhost/x", "address_forbidden"),
        ("json://169.254.169.254/latest", "address_forbidden"),
        ("syslog://", "address_forbidden"),
        ("json://1.1.1.1/x", None),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", None),
        ("nonsense://a/b", "url_not_of_apprise"),
        ("https://app.example.com/hook", "url_not_of_apprise"),
    ],
)
async def test_private_addresses_and_this_machine_are_refused(url: str, fault: str | None) -> None:
    assert await asyncio.to_thread(apprise_fault, url, allow_loopback=False) == fault
    if fault == "address_forbidden":
        outcomes = await send(url, 1, allow_loopback=False)
        assert outcomes == [Rejected("apprise_address_forbidden")]


async def test_without_the_extra_a_target_names_it(
    db: Db, machine: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"kind": "apprise", "url": "json://1.1.1.1/secret", "topic": "forum.thread:42"}
    made = await machine.put("/api/chat-targets/other/", json=given)
    assert (made.status_code, made.json()["url"]) == (201, "json://…")
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr("tocsin.engine.actors.chat.find_spec", lambda _: None)
    refused = await machine.put("/api/chat-targets/team/", json=given)
    assert refused.status_code == 422
    assert "tocsin[apprise]" in refused.json()["errors"][0]["message"]
    assert db.execute("select count(*) from tocsin.target").fetchone() == (1,)
