"""Mails a second, rendered, personalised and with all headers, to Postfix's smtp-sink.

Ours are rendered and sent by the email actor as in a worker (uvloop, four connections, a presend check that returns at
once): with an event for each mail, and with one event for all, with a name and links for each. Without DKIM, like
Django's.

Peer: Django renders the same HTML and text from its own templates and calls `send_mail`, which opens a connection for
each mail; and with one connection for all, which its documentation advises for many.

Floor: Postfix's smtp-source, a C program that sends a finished body of the same size over four connections.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import uvloop
from bench import cpu_limit
from bench.peer import Peer, peer
from bench.record import Goal, Record, keep
from bench.rounds import in_turns
from bench.stage import free_port

from tocsin.engine.actors import email_mime as mime
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.render import mail_renderer
from tocsin.engine.model import (
    Channel,
    CheckResult,
    Claimed,
    Mail,
    Message,
    Outcome,
    Priority,
    Sent,
    Settlement,
)
from tocsin.settings.addresses import SmtpServer

SENDER = "Example Club <notifications@example.com>"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
CLAIMED = 128  # at once, as in a worker
RENDERING = 0.002  # seconds, after which the senders run, as in a worker
CONNECTIONS = 4

OURS, ONE_EVENT = "tocsin, each its own event", "tocsin, one event for all"
SEND_MAIL, ONE_CONNECTION = "Django send_mail", "Django, one connection"
FLOOR = "smtp-source, 4 connections"

render = mail_renderer(Links("https://notify.example.com", bytes(32)), SENDER)


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--mails", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    mails = options.mails
    with TemporaryDirectory() as name, sink() as port:
        folder = Path(name)
        write_templates(folder)
        with peer("django_mail.py", name) as django:
            ours(port, 200, by_event=True)
            contenders: dict[str, Callable[[], float]] = {
                OURS: lambda: mails / ours(port, mails, by_event=True),
                ONE_EVENT: lambda: mails / ours(port, mails, by_event=False),
                SEND_MAIL: lambda: mails / theirs(django, port, mails, reuse=False),
                ONE_CONNECTION: lambda: mails / theirs(django, port, mails, reuse=True),
                FLOOR: lambda: mails / source(port, mails),
            }
            measured = in_turns(contenders, options.rounds)
            versions = django.versions | {"postfix": postfix()}
    keep(
        Record(
            name="mails",
            title="Mails to a sink in C",
            unit="mails/s",
            measured=measured,
            goals=[
                Goal(OURS, SEND_MAIL, at_least=8),
                Goal(ONE_EVENT, SEND_MAIL, at_least=8),
                Goal(OURS, FLOOR, at_least=0.5),
            ],
            facts={
                "mails a round": mails,
                "bytes a mail": size(),
                "ours to Django with one connection": ratio(measured, OURS, ONE_CONNECTION),
            },
            versions=versions,
        )
    )


def ours(port: int, count: int, *, by_event: bool) -> float:
    """Seconds for that many mails."""
    return uvloop.run(sent(port, [claimed(number, by_event=by_event) for number in range(count)]))


async def sent(port: int, deliveries: Sequence[Claimed]) -> float:
    """Renders and sends them as a worker does: for as many permits as it gets, then the next ones."""
    actor = EmailActor(
        presend_check=presend_check,
        sender=SENDER,
        server=SmtpServer(host="127.0.0.1", port=port),
        senders=CONNECTIONS,
    )
    await actor.start()
    outcomes: list[Outcome] = []
    all_settled = asyncio.Event()

    def on_settled(settlement: Settlement) -> None:
        outcomes.append(settlement.outcome)
        if len(outcomes) == len(deliveries):
            all_settled.set()

    started = time.perf_counter()
    waiting = deque(deliveries)
    while waiting:
        async with actor.acquire(min(CLAIMED, len(waiting))) as permits:
            others_ran_at = time.monotonic()
            for _ in range(permits.size):
                permits.submit(render([waiting.popleft()], ()), on_settled)
                if time.monotonic() - others_ran_at > RENDERING:
                    await asyncio.sleep(0)
                    others_ran_at = time.monotonic()
    await all_settled.wait()
    seconds = time.perf_counter() - started
    await actor.stop()
    assert all(isinstance(outcome, Sent) for outcome in outcomes), outcomes
    return seconds


def theirs(django: Peer, port: int, count: int, *, reuse: bool) -> float:
    """Seconds of Django."""
    return float(django.ask(port=port, count=count, reuse=reuse))


def source(port: int, count: int) -> float:
    """Seconds of smtp-source, for bodies as large as our mails."""
    options = ["-d", "-s", str(CONNECTIONS), "-m", str(count), "-l", str(size())]
    started = time.perf_counter()
    subprocess.run([tool("smtp-source"), *options, f"127.0.0.1:{port}"], check=True)
    return time.perf_counter() - started


async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
    """Returns a presend check that allows all."""
    now = datetime.now(UTC)
    return {
        each.delivery_id: CheckResult(
            each.delivery_id, f"person{each.delivery_id}@example.com", now
        )
        for each in messages
    }


def claimed(number: int, *, by_event: bool) -> Claimed:
    """Returns one delivery, as a worker claims it."""
    event = number if by_event else 0
    return Claimed(
        delivery_id=number,
        claim=UUID(int=1),
        notification_id=number,
        event_id=event,
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
        title=f"Reply {event}",
        body="The roses came.",
        body_html=None,
        action_url=f"/t/{event}",
        initiator="bob",
        name=f"Person {number}",
        locale="en",
        timezone="Europe/Rome",
        created_at=NOW,
        metadata={"post_id": event},
    )


def rendered(number: int) -> Mail:
    """Returns one of our mails."""
    mail = render([claimed(number, by_event=True)], ()).content
    assert isinstance(mail, Mail)
    return mail


def size() -> int:
    """Bytes of one of our mails."""
    return len(mime.draft(rendered(7), sender=mime.to_sender(SENDER)[1]))


def write_templates(folder: Path) -> None:
    """Our own mail as Django templates: the same size, with less to compute."""
    mail = rendered(7)
    for name, original in (("mail.html", mail.html), ("mail.txt", mail.text)):
        text = original.replace("Reply 7", "{{ title }}").replace("The roses came.", "{{ body }}")
        (folder / name).write_text(text, "utf-8")


def ratio(measured: dict[str, list[float]], one: str, other: str) -> float:
    """Returns the median of the rounds."""
    ratios = sorted(a / b for a, b in zip(measured[one], measured[other], strict=True))
    return round(ratios[len(ratios) // 2], 2)


@contextmanager
def sink() -> Iterator[int]:
    """Yields the port of an smtp-sink that accepts everything."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it does not run as root
    with subprocess.Popen(
        [tool("smtp-sink"), *user, f"127.0.0.1:{port}", "256"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            listens(port)
            yield port
        finally:
            process.kill()


def listens(port: int) -> None:
    """Waits until something listens."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("smtp-sink does not listen.")


def tool(name: str) -> str:
    """Returns the path of one of Postfix's programs."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return shutil.which(name, path=path) or sys.exit(f"There is no {name}: install postfix.")


def postfix() -> str:
    """Its version."""
    output = subprocess.run(
        [tool("postconf"), "-d", "mail_version"], capture_output=True, text=True
    )
    return output.stdout.rpartition("= ")[2].strip()


if __name__ == "__main__":
    main()
