"""The drill of restores: a database under load is lost, and restored from a dump or to a point in time.

`python -m drills.restore`, or `make drill-restore`. The load goes on for some seconds after the backup's moment; then
the server is killed. The operator stops the services, restores into an empty server, runs `tocsin migrate` and
`tocsin restored` with the workers' logs, and starts the services there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from msgspec import Struct, structs

from drills.ground import drill_folder
from faults.inject import Window
from faults.invariants import Check, Violation
from faults.ledger import Ledger, Passages, read_ledger, read_passages
from faults.load import COMMITTED, Load
from faults.plan import Action, make_plan
from faults.process_checks import check_badges, check_ends
from faults.run import become_quiet, populate
from faults.server import APP, DATABASE, OWNER, PASSWORD, Server, free_port
from faults.stage import START_SECONDS, Running, all_ready, offered, serving, until
from tocsin.dev.postgres_cluster import SUPERUSER, call, give

WORKERS, SERVES = 2, 1
DELAY = 0.05
BEFORE, AFTER, MORE = (
    10.0,
    8.0,
    30.0,
)  # seconds of load before and after the backup's moment, and until the end
LATER = 60.0  # seconds after which a scheduled event is due: after the restore
ROLES = """
create role tocsin_app nologin;
create role tocsin_service nologin;
create role {owner} login createrole password '{password}';
create role {app} login password '{password}';
grant tocsin_app to {app};
grant tocsin_app, tocsin_service to {owner} with admin option;
"""
SCHEDULE = """
select tocsin.notify('event.changed', array['p1'], 'M900000 later', send_at => now() + make_interval(secs => %s))
"""
KINDS = ("dump", "point-in-time")


class Outcome(Struct):
    """The result of one restore."""

    kind: str
    printed: str  # by `tocsin restored`
    lost: int  # events that an app had committed after the backup's moment
    meanwhile: int  # messages accepted between the backup's moment and the end of the server
    twice: Counter[str]  # messages that were accepted twice, by channel
    scheduled: str
    violations: list[Violation]


class ArchivingServer(Server):
    """A server that archives its WAL."""

    def __init__(self, folder: Path, template: Path, archive: Path) -> None:
        super().__init__(folder, free_port(), template)
        archive.mkdir()
        give(archive, self.cluster.run_as)
        self.archive = archive
        self.more = ("archive_mode=on", f"archive_command=cp %p {archive}/%f")

    def run_program(self, name: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs as the server's user."""
        program = str(self.cluster.binaries / "bin" / name)
        done = call([program, *arguments], self.cluster.run_as)
        assert done.returncode == 0, (name, done.stderr)


def _is_silent(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as owner:
        found = owner.execute(
            "select from tocsin.process where reported_at > clock_timestamp() - interval '30 seconds'"
        )
        return found.fetchone() is None


class Backup(ABC):
    """What is made of a server, and restored into another one."""

    def __init__(self, server: ArchivingServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o755)
        give(folder, server.cluster.run_as)

    def begin(self) -> None:  # noqa: B027 - a dump needs nothing
        """Runs long before the moment."""

    @abstractmethod
    def at_moment(self) -> None:
        """Runs at the moment that is restored."""

    @abstractmethod
    def restore(self, place: Path) -> Server:
        """Returns a running server of this backup."""


class Dump(Backup):
    """pg_dump, and pg_restore into a new cluster."""

    def at_moment(self) -> None:
        """Dumps the database."""
        url = self.server.url(SUPERUSER)
        self.server.run_program("pg_dump", "--format=custom", f"--file={self.folder}/dump", url)

    def restore(self, place: Path) -> Server:
        """Creates the roles, which a dump of one database has not, and restores."""
        server = Server(place, free_port())
        server.start()
        with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as admin:
            admin.execute(ROLES.format(owner=OWNER, app=APP, password=PASSWORD).encode())
            admin.execute(f"create database {DATABASE} owner {OWNER}".encode())
        self.server.run_program(
            "pg_restore", f"--dbname={server.url(SUPERUSER)}", f"{self.folder}/dump"
        )
        return server


class PointInTime(Backup):
    """pg_basebackup and the WAL since, up to the moment."""

    moment = ""

    def begin(self) -> None:
        """Copies the cluster."""
        source = self.server.url(SUPERUSER, "postgres")
        data = f"--pgdata={self.folder / 'data'}"
        options = ("--checkpoint=fast", "--no-sync", "--wal-method=none", "--no-manifest")
        self.server.run_program("pg_basebackup", f"--dbname={source}", data, *options)

    def at_moment(self) -> None:
        """Notes the time."""
        self.moment = datetime.now(UTC).isoformat()

    def restore(self, place: Path) -> Server:
        """Starts the copy, which recovers up to the moment and is promoted."""
        home = place / "postgres"
        home.mkdir(parents=True)
        (self.folder / "data").rename(home / "data")
        settings = (
            f"restore_command = 'cp {self.server.archive}/%f %p'\n"
            f"recovery_target_time = '{self.moment}'\nrecovery_target_action = 'promote'\n"
        )
        with (home / "data" / "postgresql.auto.conf").open("a") as file:
            file.write(settings)
        (home / "data" / "recovery.signal").touch()
        place.chmod(0o755)
        give(home, self.server.cluster.run_as)
        server = Server(place, free_port())
        server.start()
        while server.rows("select pg_is_in_recovery()") == [(True,)]:
            time.sleep(0.1)
        return server


class Drill:
    """One restore under load."""

    def __init__(self, kind: str, folder: Path, template: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.server = ArchivingServer(folder / "first", template, folder / "archive")
        backup = Dump if kind == "dump" else PointInTime
        self.backup = backup(self.server, folder / "backup")
        self.now: Server = self.server  # the one that is in use
        self.printed = ""

    async def run(self) -> Outcome:
        """Runs it, and checks what there is at the end."""
        async with AsyncExitStack() as stack:
            stack.callback(self.server.end)
            await asyncio.to_thread(self.server.start)
            await asyncio.to_thread(self.backup.begin)
            dsn = self.server.url(OWNER)
            around = serving(self.folder, dsn, workers=WORKERS, serves=SERVES, delay=DELAY)
            running = await stack.enter_async_context(around)
            load = Load(lambda: self.now.url(APP), running.ports, await populate(dsn))
            streams = load.streams()
            calling = asyncio.create_task(load.run(_actions()))
            later = await self._schedule()
            await asyncio.sleep(BEFORE)
            began = time.time()
            await asyncio.to_thread(self.backup.at_moment)
            await asyncio.sleep(AFTER)
            ended = await self._lose(running)
            await self._restore(stack, running)
            await calling
            quiet = await become_quiet(self.now.url(OWNER), time.time())
            violations = await check_badges(load, self.now.url(OWNER))
            scheduled = await self._state_of(later)
            for task in streams:
                task.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            ledger = await asyncio.to_thread(read_ledger, self.now.url(OWNER))
        if quiet < 0:
            violations.append(Violation("I1/I7", "it does not become quiet"))
        violations += check_ends(running.services)
        return self._outcome(load, ledger, violations, Window("failover", began, ended), scheduled)

    async def _schedule(self) -> int:
        """Schedules an event that is due after the restore."""
        async with await psycopg.AsyncConnection.connect(self.now.url(APP)) as app:
            row = await (await app.execute(SCHEDULE, (LATER,))).fetchone()
        assert row is not None
        return int(row[0])

    async def _state_of(self, event_id: int) -> str:
        """Returns the states of the deliveries of the scheduled event, once it was due."""
        statement = "select state::text from tocsin.delivery where event_id = %s"
        async with await psycopg.AsyncConnection.connect(
            self.now.url(OWNER), autocommit=True
        ) as owner:

            async def found() -> list[tuple[str]]:
                return await (await owner.execute(statement, (event_id,))).fetchall()

            await until(found, LATER + 60)
            await become_quiet(self.now.url(OWNER), time.time())
            return ", ".join(state for (state,) in await found())

    async def _lose(self, running: Running) -> float:
        """Kills the server, after its WAL was archived; the operator then stops the services."""
        ((segment,),) = self.server.rows("select pg_walfile_name(pg_switch_wal() - 1)")
        archived = "select last_archived_wal >= %s from pg_stat_archiver"
        await until(lambda: self.server.rows(archived, segment) == [(True,)], 60)
        await asyncio.to_thread(self.server.stop)
        ended = time.time()
        running.supervisor.held |= set(running.services)
        for service in running.services:
            service.terminate()
        await until(lambda: not any(service.pid for service in running.services), 60)
        return ended

    async def _restore(self, stack: AsyncExitStack, running: Running) -> None:
        self.now = await asyncio.to_thread(self.backup.restore, self.folder / "second")
        stack.callback(self.now.end)
        dsn = self.now.url(OWNER)
        await asyncio.to_thread(_tocsin, dsn, "migrate")
        logs = [f"--log={service.log}" for service in running.services if service.kind == "worker"]
        # the backup may have the last reports of the services, which were killed seconds ago
        await until(lambda: _is_silent(dsn), START_SECONDS)
        self.printed = await asyncio.to_thread(_tocsin, dsn, "restored", *logs)
        for service in running.services:
            service.settings["database_url"] = dsn
        running.supervisor.held.clear()
        await until(lambda: all_ready(running.ports), START_SECONDS)
        await until(lambda: offered(dsn, WORKERS), START_SECONDS)

    def _outcome(
        self,
        load: Load,
        ledger: Ledger,
        violations: list[Violation],
        window: Window,
        scheduled: str,
    ) -> Outcome:
        passages = read_passages(self.folder / "far-ends.jsonl")
        events = list(load.app_events.values())
        found = Check(ledger, passages, events, load.revocations, [window]).all()
        stored = {event.marker for event in ledger.events}
        lost = [
            each
            for each in events
            if each.outcome == COMMITTED and each.action.marker not in stored
        ]
        meanwhile, twice = _count(passages, window)
        violations += found.violations
        violations += [Violation("runner", text) for text in load.refused[:5]]
        return Outcome(self.kind, self.printed, len(lost), meanwhile, twice, scheduled, violations)


def _actions() -> tuple[Action, ...]:
    """Returns calls of all kinds but of those that another one follows, until the end."""
    made = make_plan(3, only=("kill_worker",))
    seconds = BEFORE + AFTER + MORE
    actions = [
        structs.replace(each, at=each.at + n * made.seconds, target=-1)
        for n in range(int(seconds // made.seconds) + 1)
        for each in made.actions
        if each.kind not in {"cancel", "opt_out", "scheduled"}
    ]
    return tuple(structs.replace(each, number=n) for n, each in enumerate(actions))


def _count(passages: Passages, window: Window) -> tuple[int, Counter[str]]:
    """Returns how many messages were accepted in the window, and which were accepted twice, by channel."""
    meanwhile, twice = 0, Counter[str]()
    for key, found in passages.by_key.items():
        accepted = [each for each in found if each.accepted]
        meanwhile += sum(window.began <= each.at <= window.ended for each in accepted)
        twice[key[0]] += len(accepted) - 1 if accepted else 0
    return meanwhile, twice


def _tocsin(dsn: str, *command: str) -> str:
    """Runs a command on a database; returns its output."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
    done = subprocess.run(
        [sys.executable, "-m", "tocsin", *command],
        env=ours | {"TOCSIN_DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _show(found: Outcome) -> str:
    twice = ", ".join(f"{n} {channel}" for channel, n in sorted(found.twice.items()) if n)
    lines = [
        f"{found.kind}:",
        "$ tocsin restored --log worker-0.log --log worker-1.log",
        *(f"  {line}" for line in found.printed.splitlines()),
        f"events that apps had committed after the backup, and are lost: {found.lost}",
        f"messages accepted between the backup and the end of the server: {found.meanwhile}",
        f"messages accepted twice: {twice or 'none'}",
        f"an event that was scheduled before and due after the restore: {found.scheduled}",
    ]
    lines += [f"VIOLATED {each.invariant}: {each.text}" for each in found.violations[:20]]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Runs the drill, and prints its results."""
    parser = argparse.ArgumentParser(prog="python -m drills.restore", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args(arguments)
    failed = False
    with drill_folder() as folder:
        for kind in options.kinds:
            place = folder / kind
            place.mkdir()
            place.chmod(0o755)
            found = asyncio.run(Drill(kind, place, folder / "template").run())
            print(_show(found), flush=True)
            failed = failed or bool(found.violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
