"""A fan-out in slices: while processes are killed, while the database crashes, and as `tocsin notify` shows it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.support.crowd import CROWD
from tests.support.large_fan_out import (
    TOPIC,
    Db,
    badges,
    fan_out_at_once,
    follow,
    notify_all,
    progress,
)
from tests.support.refusing_mail_server import *  # noqa: F403 - fixtures
from tests.support.refusing_mail_server import Far, states, worker
from tests.support.services import Service, until
from tocsin import cancel, notify_topic
from tocsin.dev import embedded_postgres
from tocsin.migrate import migrate

MANY = 6000
WAITING = (
    "select pid from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'advance_fan_outs'"
)


async def test_killed_processes_and_a_crashed_database_repeat_and_forget_nobody(
    far: Far, tmp_path: Path, server_folder: Path
) -> None:
    data = server_folder / "fan-out"
    own = await asyncio.to_thread(embedded_postgres.start, data, print)
    try:
        migrate(own.dsn)
        with psycopg.connect(own.dsn, autocommit=True) as db:
            fan_out_at_once(db, 10)
            follow(db, MANY)
            async with worker(own.dsn, far, tmp_path, "killed") as killed:
                event_id = await _kill_in_the_middle_of_a_slice(own.dsn, db, killed)
            await until(lambda: progress(db) == (500, MANY))
        async with worker(own.dsn, far, tmp_path, "other"):
            with psycopg.connect(own.dsn, autocommit=True) as db:
                await until(lambda: (progress(db) or (MANY, 0))[0] > 500)
            embedded_postgres.stop(own, immediate=True)
            own = await asyncio.to_thread(embedded_postgres.start, data, print)
            with psycopg.connect(own.dsn, autocommit=True) as db:
                await until(lambda: progress(db) is None)
                ended = "select fanned_out_at is not null from tocsin.event where event_id = %s"
                assert db.execute(ended, (event_id,)).fetchone() == (True,)
                assert badges(db) == {1: MANY}
    finally:
        embedded_postgres.stop(own)


async def _kill_in_the_middle_of_a_slice(dsn: str, db: Db, service: Service) -> int:
    """Its session waits within the first slice when the process is killed, and only then goes on."""
    with psycopg.connect(dsn) as other:
        other.execute("lock table tocsin.digest_item in exclusive mode")
        event_id = notify_all(db)
        await until(lambda: db.execute(WAITING).fetchone())
        await service.kill()
    return event_id


async def test_each_mail_of_it_is_sent_once_and_an_urgent_one_meanwhile(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    fan_out_at_once(db, 10)
    follow(db, 1500)
    async with worker(dsn, far, tmp_path) as process:
        await process.wait_for_log("leading")
        notify_all(db, "bulletin.new_org")
        db.execute("select tocsin.notify('compliance.overdue', array['p7'], 'Today, please')")
        await until(lambda: states(db) == {"sent": 1501})
    assert len({address for address, _ in far.mails}) == 1500
    assert len({message_id for _, message_id in far.mails}) == len(far.mails) == 1501
    assert badges(db) == {1: 1499, 2: 1}


@pytest.mark.crowd
async def test_a_crowd_of_followers_is_notified_after_the_call(
    db: Db, dsn: str, tmp_path: Path, far: Far, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make test-crowds` shows the progress of 100,000."""
    fan_out_at_once(db, CROWD // 2)
    follow(db, CROWD)
    seen = [0]
    async with worker(dsn, far, tmp_path):
        event_id = notify_all(db)

        def done() -> bool:
            now = progress(db)
            if now is not None and now[0] > seen[-1]:
                seen.append(now[0])
                if CROWD >= 100_000:
                    with capsys.disabled():
                        print(f"\r{now[0]:,} of {now[1]:,}", end="", flush=True)
            return now is None

        await until(done, 300)
    assert len(seen) > CROWD / 2000
    assert badges(db) == {1: CROWD}
    longest = "select max(n) from (select count(*) as n from tocsin.notification where event_id = %s group by xid) s"
    assert db.execute(longest, (event_id,)).fetchone() == (500,)


async def test_a_command_shows_its_progress_and_may_be_interrupted(
    db: Db, dsn: str, far: Far, tmp_path: Path
) -> None:
    fan_out_at_once(db, 10)
    follow(db, 2000)
    arguments = ("forum.new_thread", "--topic", TOPIC, "--title", "News", "--progress")
    async with notifying(dsn, *arguments) as command:
        await until(lambda: "No `tocsin worker` or `tocsin serve` runs" in command.shown())
        assert " 0%" in command.shown()
        command.process.send_signal(signal.SIGINT)
        output, _ = await command.process.communicate()
        assert command.process.returncode == 130
        event_id = output.decode().strip()
        assert f"To see it again: tocsin notify --event {event_id}" in command.shown()
    async with notifying(dsn, "--event", event_id) as command:
        await until(lambda: " 0%" in command.shown())
        async with worker(dsn, far, tmp_path):
            assert await command.process.wait() == 0
        assert "100%" in command.shown()
        assert "2,000 people notified." in command.shown()
    assert badges(db) == {1: 2000}


async def test_a_command_that_shows_an_event_without_a_fan_out(db: Db, dsn: str) -> None:
    follow(db, 3)
    at_once = notify_all(db)
    cancelled = notify_all(db)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    later = notify_topic(db, topic=TOPIC, event_type="forum.new_thread", title="x", send_at=at)
    cancel(db, cancelled)
    for event_id, words in (
        (at_once, "3 people notified."),
        (cancelled, f"Event {cancelled} was cancelled; 3 people had been notified."),
        (later, f"Event {later} is fanned out at 2030-01-01 00:00:00 UTC."),
        (77, "there is no event 77"),
    ):
        async with notifying(dsn, "--event", str(event_id)) as command:
            await command.process.wait()
            assert words in command.shown()


class Command:
    """A process whose standard error is a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self._shown = b""

    def shown(self) -> str:
        """Returns all that it wrote there so far."""
        with suppress(OSError):  # nothing new, or it has ended
            while more := os.read(self._terminal, 10_000):
                self._shown += more
        return self._shown.decode(errors="replace")


@asynccontextmanager
async def notifying(dsn: str, *arguments: str) -> AsyncIterator[Command]:
    """Runs `tocsin notify`."""
    terminal, other_end = pty.openpty()
    os.set_blocking(terminal, False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tocsin", "notify", *arguments),
        env=os.environ | {"TOCSIN_DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=other_end,
        # where the tests run in the background, it is ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(other_end)
    try:
        yield Command(process, terminal)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(terminal)
