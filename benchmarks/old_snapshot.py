"""The engine and `notify()` beside a snapshot that is an hour old, against the same without one.

A report, a backup or a forgotten transaction keeps a snapshot open. Nothing that is updated or deleted meanwhile can be
cleaned, so tables with many changes to few rows fill with dead ones. Two databases of a million notifications get the
same writes, those of an hour at ten notifications a second, delivered by a worker; in one of them a repeatable-read
transaction is open since before. Then both are measured in turns, each with `tocsin serve` as the leader: deliveries a
second of a `tocsin worker` without a provider (engine.py), and `notify()` by eight clients (notify.py). There is no
peer. `make bench-old-snapshot`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from bench import cpu_limit, stage
from bench.listening import serving, settle
from bench.pgbench import Pgbench
from bench.record import Goal, Record, keep
from bench.rounds import in_turns
from engine import EVENT_TYPE, PEOPLE, engine
from notify import OURS, SCRIPTS

HOUR = 36_000  # deliveries
CLIENTS = 8
PLAIN, OLD = "without", "beside an hour-old snapshot"


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=6_000, help="of each measurement")
    parser.add_argument("--hour", type=int, default=HOUR, help="deliveries since the snapshot")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(stage.server())
        contenders: dict[str, Callable[[], float]] = {}
        for number, scene in enumerate((PLAIN, OLD)):
            dsn = stack.enter_context(stage.database(server, f"snapshot_{number}"))
            app = prepared(stack, dsn, scene, max(options.hour, options.deliveries))
            engine(dsn, app, options.hour, "bare")
            settle(app)
            contenders[f"tocsin, engine, {scene}"] = partial(
                engine, dsn, app, options.deliveries, "bare"
            )
            contenders[f"tocsin, notify(), {scene}"] = partial(notify, dsn, app, folder)
        measured = in_turns(contenders, options.rounds)
    keep(
        Record(
            "old-snapshot",
            "Beside a snapshot that is an hour old",
            "per second",
            measured,
            goals=[
                Goal(f"tocsin, {what}, {OLD}", f"tocsin, {what}, {PLAIN}", at_least=0.9)
                for what in ("engine", "notify()")
            ],
            facts={"deliveries since the snapshot": options.hour},
        )
    )


def prepared(stack: ExitStack, dsn: str, scene: str, people: int) -> psycopg.Connection:
    """Returns a connection to the database, which has a leader, and in one scene an open snapshot."""
    app = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    app.execute(EVENT_TYPE)
    app.execute(PEOPLE, (people,))
    app.execute("update tocsin.channel set available = true")
    if scene == OLD:
        report = stack.enter_context(psycopg.connect(dsn))
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("select count(*) from tocsin.event_type")
    stack.enter_context(serving(dsn, stage.free_port()))
    return app


def notify(dsn: str, app: psycopg.Connection, folder: Path) -> float:
    settle(app)
    rate = Pgbench(dsn, {OURS: SCRIPTS[OURS]}, folder).rate(OURS, clients=CLIENTS, seconds=1)
    settle(app)
    return rate


if __name__ == "__main__":
    main()
