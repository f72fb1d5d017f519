"""`tocsin top`: the numbers of the operations page, once or in a real terminal, which is as before when it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.ledger import deliver
from tests.support.notifying import *  # noqa: F403 - fixtures
from tests.support.notifying import Db
from tests.support.services import until
from tocsin.engine.model import ActorReport
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import Identity, ProcessReport, report_process

ACTOR = ActorReport("email", 3, 256, 4, 4, 10.0, "open", 0, None, "smtp_connect_refused", 60.0, 9.0)
STARTING = ActorReport("fcm", 0, 0, 0, 0, 0.0, "closed", 0, None, None, 0.0, 0.0)
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
ANSI = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


@pytest.fixture
async def busy(db: Db, people: None, database: Database) -> None:
    """Sent, failed, waiting, retried and held deliveries; a worker whose breaker is open; many services."""
    deliver(db, "sent", n=120, ago="0 seconds")
    deliver(db, "failed", n=6, reason="smtp_550_5.1.1", ago="0 seconds")
    for n, reason in ((2, "smtp_451"), (3, "quiet_hours")):
        waiting = deliver(db, "deferred", n=n, reason=reason)
        db.execute(
            """
            update tocsin.delivery d
            set settled_at = null, due_at = now() + interval '1 hour'
            where d.delivery_id = any (%s)
            """,
            (waiting,),
        )
    for number in range(12):
        kind = "serve" if number else "worker"
        identity = Identity(UUID(int=number), kind, "box", 40 + number, "1", datetime.now(UTC))
        actors = [] if number else [ACTOR, STARTING]
        await report_process(database, identity, ProcessReport(not number, number, actors))
    # however long it takes until the command runs, they are not silent
    db.execute("update tocsin.process set reported_at = now() + interval '1 hour'")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tocsin", "top", *arguments]


def environ(dsn: str, folder: Path) -> dict[str, str]:
    mine = {"TOCSIN_DATABASE_URL": dsn, "TOCSIN_DATA_DIR": str(folder), "TERM": "xterm"}
    return {**os.environ, **mine}


def once(dsn: str, folder: Path, *arguments: str) -> str:
    return subprocess.run(
        command(*arguments), env=environ(dsn, folder), capture_output=True, text=True, check=True
    ).stdout


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("arguments", [(), ("--once",)], ids=["no terminal", "once"])
def test_without_a_terminal_it_prints_once(
    dsn: str, busy: None, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    text = once(dsn, tmp_path, *arguments)
    assert "\x1b" not in text
    assert "workers 1  serve 11  streams 66" in text
    assert "leader box:40  slowest email" in text
    #                           waiting, retry, held                     sent, failed, other
    assert row(text, "email ")[1:4] == ["5", "2", "3"]
    assert row(text, "email ")[6:9] == ["2.0", "0.1", "0.0"]
    assert "email                           1       3/256         4/4  open in 1: smtp_con" in text
    assert row(text, "fcm ")[1:4] == ["1", "0/0", "0/0"]
    assert row(text, "worker ")[-1] == "leader"
    assert re.search(r"^warning: |^critical: ", text, re.MULTILINE)


def test_an_event_that_is_fanned_out_in_slices_has_a_line_with_its_progress(
    dsn: str, db: Db, busy: None, tmp_path: Path
) -> None:
    assert "FAN-OUT" not in once(dsn, tmp_path)
    (event,) = db.execute(
        "insert into tocsin.running_fan_out (event_id, as_of, fanned_out, total)"
        " select max(event_id), now() - interval '3 hours', 4500, 100000 from tocsin.event returning event_id"
    ).fetchone() or (0,)
    text = once(dsn, tmp_path)
    assert row(text, "forum.new_reply")[1:5] == [str(event), "4500", "100000", "3h"]
    assert all(len(line) <= 80 for line in text.splitlines() if "forum.new_reply" in line)


def test_as_json_it_prints_what_the_operations_page_shows(
    dsn: str, busy: None, tmp_path: Path
) -> None:
    found = json.loads(once(dsn, tmp_path, "--json"))
    email = next(each for each in found["channels"] if each["channel"] == "email")
    assert email["last_minute"] == {"sent": 120, "failed": 6}
    assert {each["reason"] for each in found["waiting"]} == {"smtp_451", "quiet_hours"}
    assert 0 < found["connections"]["used"] < found["connections"]["possible"]


class Screen:
    """`tocsin top` in a terminal of 80 columns and 24 lines."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        os.set_blocking(self.ours, False)
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command("--interval", "0.5")],
            env=environ(dsn, folder),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
        )

    def read(self) -> str:
        with suppress(BlockingIOError):
            self.output += os.read(self.ours, 65536).decode()
        return self.output

    def frames(self) -> list[str]:
        """The screens that are complete."""
        return self.read().split("\x1b[H")[1:-1]

    async def end(self) -> int:
        await until(lambda: (self.read(), self.process.poll() is not None)[1])
        self.read()
        return self.process.wait()


@pytest.fixture
def screen(dsn: str, busy: None, tmp_path: Path) -> Iterator[Screen]:
    made = Screen(dsn, tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.ours)
    os.close(made.theirs)


async def test_a_small_terminal_holds_each_frame(screen: Screen) -> None:
    await until(lambda: len(screen.frames()) > 1)
    for frame in screen.frames():
        lines = ANSI.sub("", frame).splitlines()
        assert len(lines) == 24
        assert max(map(len, lines)) <= 80
        assert "more lines in a taller window" in lines[-1]
        assert any(line.startswith("PROVIDER") for line in lines)


@pytest.mark.parametrize("how", ["q", "\x03", "SIGTERM"], ids=["q", "Ctrl-C", "SIGTERM"])
async def test_the_terminal_is_as_before_when_it_ends(screen: Screen, how: str) -> None:
    await until(lambda: len(screen.frames()) > 0)
    assert termios.tcgetattr(screen.theirs) != screen.before
    if how == "SIGTERM":
        screen.process.send_signal(signal.SIGTERM)
    else:
        os.write(screen.ours, how.encode())
    assert await screen.end() == 0
    assert screen.output.startswith("\x1b[?1049h\x1b[?25l")
    assert screen.output.endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(screen.theirs) == screen.before


async def test_it_continues_after_its_connection_was_lost(screen: Screen, db: Db) -> None:
    await until(lambda: len(screen.frames()) > 0)
    db.execute(
        """
        select pg_terminate_backend(a.pid)
        from pg_stat_activity a
        where a.datname = current_database()
            and a.pid <> pg_backend_pid()
        """
    )
    shown = len(screen.frames())
    await until(lambda: len(screen.frames()) > shown + 2)
    assert screen.process.poll() is None
    assert "PROVIDER" in screen.frames()[-1]
