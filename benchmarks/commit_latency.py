"""Time from sending COMMIT until an SMTP server has accepted the mail, on an idle service.

Starts the whole of `tocsin up` in a folder of its own, with an SMTP server of this process as the provider. Each round
is one `tocsin.notify` in a transaction; the clock starts when its COMMIT is sent. There is no peer and no goal:
it measures the latency for a person. bench-notify measures the same for the badge. Milliseconds; `make bench-latency`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time

import httpx
import psycopg
from aiosmtpd.smtp import SMTP, Envelope
from bench import cpu_limit
from bench.record import Record, keep
from bench.service import UNREACHED_CAP

TOCSIN = [sys.executable, "-m", "tocsin"]


class Sink:
    """Accepts every mail and records when."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[float] = asyncio.Queue()

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:  # noqa: N802, ARG002
        self.accepted.put_nowait(time.perf_counter())
        return "250 OK"


async def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="commits, two at least")
    rounds = max(2, parser.parse_args().rounds)
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as folder:
        os.chmod(folder, 0o755)
        sink = Sink()
        smtp = await asyncio.get_running_loop().create_server(lambda: SMTP(sink), "127.0.0.1", 0)
        environ = os.environ | {
            "TOCSIN_DATA_DIR": folder,
            "TOCSIN_PORT": str(free_port()),
            "TOCSIN_MAIL_CAP": UNREACHED_CAP,
            "TOCSIN_SMTP_URL": f"smtp://127.0.0.1:{smtp.sockets[0].getsockname()[1]}",
        }
        up = await asyncio.create_subprocess_exec(
            *TOCSIN, "up", env=environ, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            report(await measure(environ, sink, rounds))
        finally:
            up.terminate()
            await up.wait()
            smtp.close()


async def measure(environ: dict[str, str], sink: Sink, rounds: int) -> dict[str, list[float]]:
    url = f"http://127.0.0.1:{environ['TOCSIN_PORT']}"
    await until_ready(url)
    dsn = await cli(environ, "dsn", "--role", "app")
    taken: dict[str, list[float]] = {"commit to SMTP accepted": []}
    async with await psycopg.AsyncConnection.connect(dsn) as app:
        await asyncio.sleep(2)  # the seeded mails are sent first
        empty(sink.accepted)
        for _ in range(rounds):
            await app.execute(
                "select tocsin.notify('forum.new_reply', array['alice'], 'New reply', 'Bob replied.')"
            )
            sent = time.perf_counter()
            await app.commit()
            taken["commit to SMTP accepted"].append(await sink.accepted.get() - sent)
            await asyncio.sleep(0.25)  # idle again: so is the leader
    return taken


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(600):
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise SystemExit("tocsin up is not ready after a minute")


async def cli(environ: dict[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *TOCSIN, *arguments, env=environ, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().strip().splitlines()[-1]


def report(taken: dict[str, list[float]]) -> None:
    """Percentiles, since each value is one commit."""
    percentiles: dict[str, list[float]] = {}
    for name, seconds in taken.items():
        cuts = statistics.quantiles(seconds, n=100)
        for label, value in (("p50", cuts[49]), ("p90", cuts[89]), ("p99", cuts[98])):
            percentiles[f"tocsin, {name}, {label}"] = [1000 * value]
    keep(
        Record(
            name="latency",
            title="From COMMIT to a mail, on an idle service",
            unit="ms",
            measured=percentiles,
            facts={"commits": len(next(iter(taken.values())))},
        )
    )


def empty(queue: asyncio.Queue[float]) -> None:
    while not queue.empty():
        queue.get_nowait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
