"""Pushes a second through FCM: Tocsin's actor, and unmodified pyfcm, interleaved against one server in another process.

Each push goes to a device of its own, with title, body, badge and data, and waits for its response. The server is
tocsin.testing.fcm, which checks token and message, and so is the limit itself: `server, bare` is its rate with a
client that only posts. `python benchmarks/fcm_push.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import UUID

import aiohttp
from bench import cpu_limit
from bench.record import Goal, Record, keep
from google.oauth2.service_account import Credentials
from pyfcm import FCMNotification

from tests.support.sending import send_on
from tocsin.engine.actors.fcm import FcmActor
from tocsin.engine.actors.fcm_token import SCOPE
from tocsin.engine.model import Channel, CheckResult, Message, Priority, Push, Sent
from tocsin.testing.fcm import FcmServer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TITLE, BODY = "New reply", "Bob replied to your thread about the roses on Saturday. " * 3
DATA = {"notification_id": "7", "action_url": "https://app.example.com/forum/threads/42#reply-7"}
SENDERS = 32
CHUNK = 50  # as many as a job claims at once

Contestant = Callable[[dict[str, Any], int], Awaitable[float]]


async def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--pushes", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        await serve()
        return
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        far = json.loads(await server.stdout.readline())
        rates: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for _ in range(options.rounds):
            for name, contestant in CONTESTANTS.items():
                pushes = options.pushes // (10 if name == "pyfcm, notify" else 1)
                rates[name].append(pushes / await contestant(far, pushes))
        report(rates)
    finally:
        server.terminate()
        await server.wait()


async def serve() -> None:
    async with FcmServer(keep=1) as fcm:
        print(json.dumps({"url": fcm.url, "account": fcm.service_account}), flush=True)
        await asyncio.Event().wait()


async def tocsin(far: dict[str, Any], pushes: int) -> float:
    """Returns the actor as a worker has it, with its presend check."""

    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return {
            each.delivery_id: CheckResult(each.delivery_id, f"device-{each.delivery_id}", NOW)
            for each in messages
        }

    push = Push(TITLE, BODY, data=DATA)
    actor = FcmActor(
        presend_check=presend_check, service_account=far["account"], url=far["url"], senders=SENDERS
    )
    waiting = iter(range(pushes))

    async def job() -> int:
        sent = 0
        while True:
            async with actor.acquire(CHUNK) as permits:
                chunk = [
                    Message(number, UUID(int=number), Channel.PUSH, Priority.NORMAL, push)
                    for number in itertools.islice(waiting, permits.size)
                ]
                settlements = await asyncio.gather(*(send_on(permits, each) for each in chunk))
            if not chunk:
                return sent
            sent += sum(isinstance(each.outcome, Sent) for each in settlements)

    await actor.start()
    started = time.perf_counter()
    sent = sum(await asyncio.gather(*(job() for _ in range(8))))
    taken = time.perf_counter() - started
    assert sent == pushes
    await actor.stop()
    return taken


def pyfcm(far: dict[str, Any]) -> FCMNotification:
    account = far["account"]
    credentials = Credentials.from_service_account_info(account, scopes=[SCOPE])
    client = FCMNotification(credentials=credentials, project_id=account["project_id"])
    client.FCM_END_POINT_BASE = f"{far['url']}/v1/projects"
    return client


async def pyfcm_notify(far: dict[str, Any], pushes: int) -> float:
    """Sends one after the other over one session, as in its README."""
    client = pyfcm(far)

    def run() -> None:
        for number in range(pushes):
            client.notify(f"device-{number}", TITLE, BODY, data_payload=DATA)

    started = time.perf_counter()
    await asyncio.to_thread(run)
    return time.perf_counter() - started


async def pyfcm_async(far: dict[str, Any], pushes: int) -> float:
    """Sends all at once, in a thread, since it runs an event loop of its own."""
    client = pyfcm(far)
    batch = [
        {
            "fcm_token": f"device-{number}",
            "notification_title": TITLE,
            "notification_body": BODY,
            "data_payload": DATA,
        }
        for number in range(pushes)
    ]
    started = time.perf_counter()
    responses = await asyncio.to_thread(client.async_notify_multiple_devices, batch, 60)
    assert len(responses) == pushes
    return time.perf_counter() - started


async def bare(far: dict[str, Any], pushes: int) -> float:
    """Measures the server's own rate: prepared bodies, over as many connections."""
    client = pyfcm(far)
    headers = await asyncio.to_thread(client.request_headers)
    bodies = [
        client.parse_payload(f"device-{number}", TITLE, BODY, data_payload=DATA)
        for number in range(pushes)
    ]
    waiting = iter(bodies)

    async def post(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(client.fcm_end_point, data=body, headers=headers) as response:
                assert response.status == 200
                await response.read()

    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        await asyncio.gather(*(post(session) for _ in range(SENDERS)))
        return time.perf_counter() - started


CONTESTANTS: dict[str, Contestant] = {
    "tocsin": tocsin,
    "pyfcm, notify": pyfcm_notify,
    "pyfcm, async": pyfcm_async,
    "server, bare": bare,
}


def report(rates: dict[str, list[float]]) -> None:
    keep(
        Record(
            name="fcm",
            title="Pushes to FCM",
            unit="pushes/s",
            measured=rates,
            goals=[Goal("tocsin", "pyfcm, async", at_least=1.0)],
            versions={name: version(name) for name in ("pyfcm", "aiohttp")},
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
