"""The drill of upgrades: services of version N are replaced by N+1 under load, with a schema change of each kind.

`python -m drills.upgrade`, or `make drill-upgrade`. N+1 is a copy of the package with further migrations: an added
column, an index built concurrently, a changed function, and a function that takes the place of another one, which is
dropped when no process of N runs. Meanwhile a transaction of an app is open, so that the migration waits for locks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psycopg
from msgspec import Struct, structs

import tocsin
from drills.ground import drill_folder, show
from faults.inject import Injector, Window
from faults.ledger import read_ledger
from faults.load import Load
from faults.plan import Fault, Plan, make_plan
from faults.processes import Service
from faults.run import Result, Run, populate
from faults.server import APP
from faults.stage import START_SECONDS, all_ready, staged, until

WORKERS, SERVES = 2, 2
SECONDS = 75.0
OPEN_FOR = 20.0  # seconds of an app's transaction during which the migration begins
TOGETHER = 8.0  # seconds in which processes of both versions run
NEXT = "999.0.0"

COLUMN = """
alter table tocsin.notification add column drill text not null default 'n';
comment on column tocsin.notification.drill is 'Added by the drill.';
"""
INDEX = (
    "create index concurrently if not exists notification_drill on tocsin.notification (drill);\n"
)
CONTRACT = "drop function tocsin.report_process;\n"


OLD_REPORTS = """
select
from tocsin.process
where version <> %s
    and reported_at > clock_timestamp() - interval '60 seconds'
"""


class Step(Struct):
    """What an operator ran, and its output."""

    name: str
    seconds: float
    output: str

    def __str__(self) -> str:
        lines = [f"$ {self.name}   # {self.seconds:.1f} s"]
        return "\n".join([*lines, *(f"  {line}" for line in self.output.splitlines())])


def make_next_version(folder: Path) -> Path:
    """Makes N+1 in a folder, which goes before others on its processes' path; returns the folder."""
    package = folder / "tocsin"
    shutil.copytree(
        Path(tocsin.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    metadata = folder / f"tocsin-{NEXT}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tocsin\nVersion: {NEXT}\n")
    migrations = package / "sql" / "migrations"
    (migrations / "0002_column.sql").write_text(COLUMN)
    (migrations / "0003_index.concurrent.sql").write_text(INDEX)
    (migrations / "0004_report.after.sql").write_text(CONTRACT)
    edit(
        package / "sql" / "functions" / "leader.sql",
        r"function tocsin\.report_process\(",
        "function tocsin.report_process_2(",
    )
    edit(
        package / "sql" / "queries" / "installation.sql",
        r"from tocsin\.report_process\(",
        "from tocsin.report_process_2(",
    )
    edit(
        package / "sql" / "functions" / "unread.sql",
        r"\bas \$\$\n",
        "as $$\n    -- changed by the drill\n",
    )
    return folder


def edit(file: Path, pattern: str, text: str) -> None:
    """Replaces the first place that matches; fails where there is none."""
    new, count = re.subn(pattern, text, file.read_text(), count=1)
    assert count == 1, (file, pattern)
    file.write_text(new)


class UpgradeInjector(Injector):
    """One "fault": the whole upgrade."""

    dsn_of_app: str
    next_version: Path
    ports: list[int]

    async def _upgrade(self, fault: Fault, window: Window) -> None:
        worker, other_worker = self._slots("worker")
        serve, other_serve = self._slots("serve")
        early = {**worker.settings, "database_wait": "0"}
        await self._run("worker, version N+1, before the migration", ["worker"], early, self._new())
        blocking = asyncio.create_task(self._open_transaction())
        await asyncio.sleep(0.5)
        await self._migrate()
        await blocking
        await self._kill_one(worker)  # it starts again, as version N on the newer schema
        await self._replace(other_worker, other_serve)
        await asyncio.sleep(TOGETHER)
        await self._migrate()
        await self._replace(worker, serve)
        while await self._has_killed():  # the report of the killed one is a minute old by then
            await asyncio.sleep(1.0)
        await self._migrate()
        await self._run("worker, version N, after the migration", ["worker"], early, {})

    def _new(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.next_version), "PYTHONSAFEPATH": "1"}

    async def _migrate(self) -> None:
        settings = {"database_url": self.dsn()}
        await self._run("tocsin migrate, version N+1", ["migrate"], settings, self._new())

    async def _run(
        self, name: str, command: list[str], settings: dict[str, str], environ: dict[str, str]
    ) -> None:
        began = time.monotonic()
        ours = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        named = {f"TOCSIN_{key.upper()}": value for key, value in settings.items()}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tocsin", *command],
            env=ours | named | environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        output = f"{done.stdout}{done.stderr}" + (
            f"exit status {done.returncode}" if done.returncode else ""
        )
        print(Step(name, time.monotonic() - began, output.strip()), flush=True)

    async def _open_transaction(self) -> None:
        """A report or an import of an app, which has locked rows of Tocsin's tables."""
        async with await psycopg.AsyncConnection.connect(
            self.dsn_of_app, application_name="slow app"
        ) as app:
            await app.execute(
                "select tocsin.notify('bulletin.new_org', array['p0'], 'Rolled back')"
            )
            await asyncio.sleep(OPEN_FOR)
            await app.rollback()

    async def _kill_one(self, service: Service) -> None:
        window = Window("kill_worker", time.time())
        self.windows.append(window)
        await self._kill(service, Fault("kill_worker", 0.0, 0.3, 0), window)
        window.ended = time.time()

    async def _replace(self, *services: Service) -> None:
        for service in services:
            service.extra = self._new()
            before = len(service.lives)
            service.terminate()
            await until(lambda: len(service.lives) > before, START_SECONDS)  # noqa: B023
            await until(lambda: all_ready(self.ports), START_SECONDS)
        await until(self._all_report, START_SECONDS)

    async def _has_killed(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.dsn(), autocommit=True) as owner:
            found = await owner.execute(OLD_REPORTS, (NEXT,))
            return (await found.fetchone()) is not None

    async def _all_report(self) -> bool:
        """Returns whether each running process has reported."""
        running = {service.pid for service in self._supervisor.services}
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.dsn(), autocommit=True) as owner:
                rows = await (await owner.execute("select pid from tocsin.process")).fetchall()
                return running <= {row[0] for row in rows}
        return False


async def keep_calling(dsn: str, took: list[float]) -> None:
    """Calls notify() again and again, in transactions that are rolled back, and notes the seconds of each call."""
    async with await psycopg.AsyncConnection.connect(dsn) as app:
        while True:
            began = time.monotonic()
            await app.execute(
                "select tocsin.notify('bulletin.new_org', array['p1'], 'Rolled back')"
            )
            await app.rollback()
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.05)


def drill_plan(seed: int) -> Plan:
    """Returns the calls of a seed, again and again until the end, and the upgrade."""
    made = make_plan(seed, only=("kill_worker",))
    repeats = int(SECONDS // made.seconds) + 1
    actions = [
        structs.replace(each, at=each.at + n * made.seconds, target=-1)
        for n in range(repeats)
        for each in made.actions
        if each.kind != "cancel"
    ]
    numbered = tuple(structs.replace(each, number=n) for n, each in enumerate(actions))
    return Plan(seed, WORKERS, SERVES, SECONDS, numbered, (Fault("upgrade", 3.0, 0.0, 0),))


async def run_drill(
    seed: int, folder: Path, report: Callable[[str], None]
) -> tuple[Result, list[float]]:
    """Runs the drill once; returns its result, and the seconds of the calls of an app."""
    plan, took = drill_plan(seed), list[float]()
    run = Run(plan, folder, report)
    next_version = make_next_version(folder / "next")
    around = staged(folder, folder / "template", workers=WORKERS, serves=SERVES, seed=seed)
    async with around as stage:
        api_key, app = await populate(stage.dsn()), stage.server.url(APP)
        load = Load(lambda: app, stage.ports, api_key)
        injector = UpgradeInjector(stage.server, stage.supervisor, stage.far_ends, None)
        injector.dsn_of_app = app
        injector.next_version, injector.ports = next_version, stage.ports
        calling = asyncio.create_task(keep_calling(app, took))
        await run.play(stage, load, injector)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        ledger = await asyncio.to_thread(read_ledger, stage.dsn())
    return run.result(stage, load, injector, ledger), took


def main(arguments: list[str]) -> int:
    """Runs the drill, and prints its result."""
    parser = argparse.ArgumentParser(prog="python -m drills.upgrade", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with drill_folder() as folder:
        result, took = asyncio.run(
            run_drill(options.seed, folder, lambda step: print(step, flush=True))
        )
    took.sort()
    print(f"N is {version('tocsin')}, N+1 is {NEXT}")
    print(
        f"{len(took)} further calls of notify(): p50 {took[len(took) // 2] * 1000:.0f} ms, most {took[-1]:.2f} s"
    )
    print(show(result))
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
