"""Mails a second, built and sent: rendered, personalised, with all headers, to Postfix's smtp-sink; against Django.

Ours are rendered and go through the email actor as a worker does, with a last look that answers at once. Django renders
the same HTML from its own templates and calls `send_mail`, with a connection for each mail, and with one for all. In
turns, five rounds or more; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from tocsin.engine.actors.email import EmailActor
from tocsin.engine.links import Links
from tocsin.engine.mailer import mail_renderer
from tocsin.engine.model import Channel, Claimed, Mail, Message, Priority, Sent, Verdict

RESULTS = Path(__file__).parent / "results"
PEER = Path(__file__).parent / "peers" / "django_mail.py"
SENDER = "Example Club <notifications@example.com>"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
AT_ONCE = 64

render = mail_renderer(Links("https://notify.example.com", bytes(32)), SENDER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sink", default="/usr/sbin/smtp-sink")
    parser.add_argument("--peer-python", default="build/peers/bin/python")
    options = parser.parse_args()
    port = free_port()
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [options.sink, *as_nobody(), f"127.0.0.1:{port}", "256"], stdout=subprocess.DEVNULL
        ) as sink,
    ):
        write_templates(Path(folder))
        with subprocess.Popen(
            [options.peer_python, PEER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as django:
            try:
                version = readline(django).strip()
                rates = asyncio.run(rounds(options.rounds, options.mails, port, django))
            finally:
                django.kill()
                sink.kill()
    report(rates, options.mails, f"Django {version}")


async def rounds(
    count: int, mails: int, port: int, django: subprocess.Popen[str]
) -> dict[str, list[float]]:
    """Each in its turn."""
    rates: dict[str, list[float]] = {"tocsin": [], "send_mail": [], "send_mail, one connection": []}
    await reachable(port)
    await ours(port, 50)
    for number in range(count):
        rates["tocsin"].append(mails / await ours(port, mails))
        rates["send_mail"].append(mails / await theirs(django, port, mails, reuse=False))
        seconds = await theirs(django, port, mails, reuse=True)
        rates["send_mail, one connection"].append(mails / seconds)
        print(f"round {number + 1} of {count}", file=sys.stderr)
    return rates


async def ours(port: int, count: int) -> float:
    """Seconds for so many mails."""
    actor = EmailActor(look=look, sender=SENDER, host="127.0.0.1", port=port)
    await actor.start()
    free = asyncio.Semaphore(AT_ONCE)

    async def send(number: int) -> None:
        async with free:
            settlement = await actor.send(render([claimed(number)], ()))
            assert isinstance(settlement.outcome, Sent), settlement

    started = time.perf_counter()
    await asyncio.gather(*(send(number) for number in range(count)))
    seconds = time.perf_counter() - started
    await actor.stop()
    return seconds


async def theirs(django: subprocess.Popen[str], port: int, count: int, *, reuse: bool) -> float:
    """Seconds that Django took."""
    assert django.stdin is not None
    django.stdin.write(json.dumps({"port": port, "count": count, "reuse": reuse}) + "\n")
    django.stdin.flush()
    return float(await asyncio.to_thread(readline, django))


async def look(messages: Sequence[Message]) -> dict[int, Verdict]:
    """All may go."""
    now = datetime.now(UTC)
    return {
        each.delivery_id: Verdict(each.delivery_id, f"person{each.delivery_id}@example.com", now)
        for each in messages
    }


def claimed(number: int) -> Claimed:
    """One delivery, as a worker claims it."""
    return Claimed(
        delivery_id=number,
        claim=UUID(int=1),
        notification_id=number,
        event_id=number,
        recipient_id=f"person{number}",
        channel=Channel.EMAIL,
        priority=Priority.NORMAL,
        attempt=1,
        max_attempts=10,
        expires_at=None,
        mandatory=False,
        event_type="forum.new_reply",
        label="New reply",
        category="forum",
        title=f"Reply {number}",
        body="The roses came.",
        body_html=None,
        action_url=f"/t/{number}",
        initiator="bob",
        name=f"Person {number}",
        locale="en",
        timezone="Europe/Rome",
        created_at=NOW,
    )


def write_templates(folder: Path) -> None:
    """Our own mail as templates of Django's: the same size, and less to do."""
    mail = render([claimed(7)], ()).content
    assert isinstance(mail, Mail)
    for name, said in (("mail.html", mail.html), ("mail.txt", mail.text)):
        text = said.replace("Reply 7", "{{ title }}").replace("The roses came.", "{{ body }}")
        (folder / name).write_text(text, "utf-8")


def report(rates: dict[str, list[float]], mails: int, peer: str) -> None:
    """Prints a table and keeps it."""
    medians = {name: statistics.median(each) for name, each in rates.items()}
    print(f"{'':<28} {'mails/s':>9} {'spread':>15} {'tocsin is':>10}   ({peer})")
    for name, each in rates.items():
        ratio = medians["tocsin"] / medians[name]
        print(
            f"{name:<28} {medians[name]:>9.0f} {min(each):>7.0f}-{max(each):<7.0f} {ratio:>9.1f}x"
        )
    RESULTS.mkdir(exist_ok=True)
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": sys.version},
        "peer": peer,
        "mails": mails,
        "rates": rates,
    }
    (RESULTS / "mails.json").write_text(json.dumps(result, indent=2) + "\n")


def readline(process: subprocess.Popen[str]) -> str:
    """One answer; a peer that ended has none."""
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise SystemExit("The peer ended: its lines above say why.")
    return line


def as_nobody() -> list[str]:
    """The sink will not run as root."""
    return ["-u", "nobody"] if os.geteuid() == 0 else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def reachable(port: int) -> None:
    """Waits until the sink listens."""
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit("smtp-sink does not listen.")


if __name__ == "__main__":
    main()
