"""Pushes a second to APNs' far end: our connection alone, our whole actor, and unmodified aioapns.

The far end runs in a separate process and is the same for all; runs are interleaved, each with 64 concurrent pushes
over one connection. With `--first-streams 1` a connection begins as with Apple, with one stream until it has seen a
valid provider token; aioapns then never gets beyond one (its semaphore counts wrong). So the default is to allow many
at once, where it is fastest. The far end limits all three, since it is Python too: read the ratios, and the CPU time of
this process for one push.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol
from bench import cpu_limit
from bench.record import Goal, Record, keep
from msgspec import Struct

from tests.support.sending import send_by
from tocsin.engine.actors.apns import ApnsActor, ApnsPool
from tocsin.engine.actors.apns_connection import Endpoint, Request
from tocsin.engine.actors.apns_token import MemoryStore, ProviderKey, ProviderToken
from tocsin.engine.model import Channel, CheckResult, Message, Priority, Push, Sent
from tocsin.testing.apns import ApnsServer, Authority, Key

TOPIC = "org.example.app"
DEVICE = "aabbccdd" * 8
UNDER_WAY = 64


class Run(Struct):
    rate: float  # pushes a second
    cpu: float  # microseconds of this process for one


Send = Callable[[int], Awaitable[None]]


async def serve(folder: Path, first_streams: int) -> None:
    """Runs the process of the far end."""
    authority, key = Authority(), Key.new()
    authority.write(folder / "ca.pem")
    (folder / "key.p8").write_text(key.private)
    async with ApnsServer(authority, key, topics={TOPIC}, first_streams=first_streams) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


async def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pushes", type=int, default=3000)
    parser.add_argument("--first-streams", type=int, default=1000)
    parser.add_argument("--serve", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        await serve(arguments.serve, arguments.first_streams)
        return
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as folder:
        first = str(arguments.first_streams)
        command = (sys.executable, __file__, "--serve", folder, "--first-streams", first)
        far_end = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert far_end.stdout
        try:
            url = (await far_end.stdout.readline()).decode().strip()
            report(await measure(url, Path(folder), arguments.rounds, arguments.pushes))
        finally:
            far_end.terminate()
            await far_end.wait()


async def measure(url: str, folder: Path, rounds: int, pushes: int) -> dict[str, list[Run]]:
    key = Key((folder / "key.p8").read_text())
    ca_file = folder / "ca.pem"
    signing = ProviderKey(pem=key.private, key_id=key.key_id, team_id=key.team_id)
    tokens = ProviderToken(signing, MemoryStore())
    actor = ApnsActor(
        presend_check=presend_check, tokens=tokens, topic=TOPIC, installation="bench", url=url, ca_file=ca_file,
        connections=1, senders=UNDER_WAY,
    )  # fmt: skip
    await actor.start()
    pool = ApnsPool(Endpoint(url=url, tls=context(ca_file)), most=1)
    ways = {
        "tocsin connection": by_connection(pool, tokens),
        "tocsin actor": by_actor(actor),
        "aioapns": by_aioapns(url, key, ca_file),
    }
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for send in ways.values():
        await run(send, 200)
    for _ in range(rounds):
        for name, send in ways.items():
            await send(0)  # a connection that is closed meanwhile is opened again
            runs[name].append(await run(send, pushes))
    await actor.stop()
    await pool.close()
    return runs


async def run(send: Send, pushes: int) -> Run:
    numbers = iter(range(pushes))

    async def work() -> None:
        for number in numbers:
            await send(number)

    await send(0)
    began, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(UNDER_WAY)))
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return Run(pushes / seconds, busy / pushes * 1e6)


def by_connection(pool: ApnsPool, tokens: ProviderToken) -> Send:
    payload = b'{"aps":{"alert":{"title":"New reply","body":"Alice: hello"},"sound":"default"}}'

    async def send(_: int) -> None:
        slot = await pool.acquire()
        headers = (
            ("apns-topic", TOPIC),
            ("apns-push-type", "alert"),
            ("apns-priority", "10"),
            ("apns-id", str(uuid4())),
        )
        request = Request(DEVICE, headers, payload)
        reply = await slot.connection.send(request, await tokens.token(), timeout=20)
        slot.release()
        assert getattr(reply, "status", 0) == 200, reply

    return send


def by_actor(actor: ApnsActor) -> Send:
    push = Push("New reply", "Alice: hello")

    async def send(number: int) -> None:
        message = Message(number, UUID(int=number), Channel.PUSH, Priority.NORMAL, push)
        outcome = (await send_by(actor, message)).outcome
        assert isinstance(outcome, Sent), outcome

    return send


def by_aioapns(url: str, key: Key, ca_file: Path) -> Send:
    host, _, port = url.removeprefix("https://").partition(":")
    client = APNs(
        key=key.private, key_id=key.key_id, team_id=key.team_id, topic=TOPIC, max_connections=1,
        ssl_context=context(ca_file),
    )  # fmt: skip
    there = {"APNS_SERVER": host, "APNS_PORT": int(port)}
    client.pool.protocol_class = type("Local", (APNsTLSClientProtocol,), there)

    async def send(_: int) -> None:
        message = {
            "aps": {"alert": {"title": "New reply", "body": "Alice: hello"}, "sound": "default"}
        }
        request = NotificationRequest(DEVICE, message, priority=10, push_type=PushType.ALERT)
        result = await client.send_notification(request)
        assert result.is_successful, result.description

    return send


async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
    now = datetime.now(UTC)
    return {
        each.delivery_id: CheckResult(each.delivery_id, DEVICE, now, badge=3) for each in messages
    }


def context(ca_file: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=ca_file)
    made.set_alpn_protocols(["h2"])
    return made


def report(runs: dict[str, list[Run]]) -> None:
    cpu = {name: statistics.median(run.cpu for run in each) for name, each in runs.items()}
    keep(
        Record(
            name="apns",
            title="Pushes to APNs",
            unit="pushes/s",
            measured={name: [run.rate for run in each] for name, each in runs.items()},
            goals=[Goal("tocsin actor", "aioapns", at_least=1.2)],
            facts={f"CPU of a push, {name} (µs)": round(value) for name, value in cpu.items()},
            versions={name: version(name) for name in ("aioapns", "h2", "hpack")},
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
