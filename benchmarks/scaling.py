"""What each part of a load costs, and how well the sum of these costs predicts a mixed load. `make bench-scaling`.

Measured are the CPU time of PostgreSQL, of its standby, and of `tocsin serve` and `tocsin worker`, the WAL without its
full-page images, and the growth of the tables. Operations are made 5, 40 and 250 times a second: what is noticed
together shares a part of the cost. Autovacuum is off; its work is measured as one `vacuum` at the end. The check is
another load, of all operations at once, by two `serve` and three `worker`.

As root each process has a network namespace of its own (bench/hosts.py), and is reached over a network; otherwise all
of them are on loopback. The far ends of all channels are on the host of the load and always accept. `--add`
keeps the rounds of earlier runs, `--check` makes no round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import cpu_limit, stage
from bench.hosts import hosts
from bench.installation import (
    HOSTS,
    IDLE_SECONDS,
    PRIMARY,
    WARM_SECONDS,
    Installation,
    installed,
)
from bench.paced_load import AT_ONCE, finish
from bench.record import RESULTS, machine
from bench.scaling_model import (
    ALONE,
    MIX,
    MIXES,
    PACED,
    RATES,
    STREAM,
    Costs,
    Load,
    fit,
    plus,
    predict,
    times,
)

SECONDS = dict(zip(RATES, (8.0, 4.0, 3.0), strict=True))
MIX_SECONDS = (12.0, 8.0, 6.0)
STREAMS = 200  # whose people are notified
IDLE_STREAMS = 1_000
FURTHER = 2  # processes of a kind, beside the first
PAIRS = 2  # measurements with and without them, in turn
CHECK_SECONDS = 40.0
# calls a second of the check
CHECK = {
    "notify": 40.0,
    "mail": 15.0,
    "push": 35.0,
    "stream": 15.0,
    "fan-out": 0.3,
    "fan-out with mail": 0.5,
    "count": 100.0,
    "list": 10.0,
    "mark read": 15.0,
}
GROWING = ("event", "notification", "delivery", "attempt")
SIZED = {"notify": "billing.bench", "mail": "billing.bench_mail", "push": "billing.bench_push"}
BULK = 2_000
SIZES = f"""
    select sum(pg_total_relation_size('tocsin.' || name))
    from unnest(array{list(GROWING)}) name
"""
EACH_ITS_OWN = """
    select tocsin.notify(%s, array[%s || (1 + i %% 2000)], 'New reply', 'Bob: the mill it is.', '/f/7')
    from generate_series(1, %s::integer) i
"""


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="keep the rounds of earlier runs")
    parser.add_argument("--checks", type=int, default=1, help="how often the check is made")
    parser.add_argument("--check", action="store_true", help="no new rounds")
    options = parser.parse_args()
    file = RESULTS / cpu_limit.folder() / "scaling.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    rounds = kept.get("rounds", []) if options.add or options.check else []
    with hosts(*HOSTS) as places, places.at(PRIMARY), stage.server() as running:
        for _ in range(0 if options.check else options.rounds):
            parts: dict[str, Costs] = {}
            for section in SECTIONS:
                with installed(running, places) as installation:
                    parts |= section(installation)
            rounds.append(parts)
        checks = []
        for _ in range(options.checks):
            with installed(running, places) as installation:
                checks.append(check_of(installation))
    keep(file, rounds, checks, over=places.network)


def keep(
    file: Path, rounds: list[dict[str, Costs]], checks: list[dict[str, Any]], *, over: str
) -> None:
    model = fit(rounds)
    written = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "network": over,
        "goals": [],
        "disk": disk(rounds),
        "checks": checks,
        "rounds": rounds,
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    for each in checks:
        for name, value in predict(model, Load(**each["load"])).items():
            measured = each["measured"][name]
            print(f"{name:<12} measured {measured:>14,.0f}  predicted {value:>14,.0f}", end="")
            print(f"  {value / measured - 1:+.0%}" if measured else "")


def disk(rounds: list[dict[str, Costs]]) -> dict[str, float]:
    """Returns the bytes of each thing that is kept until the clean-up."""
    sizes = {name: sorted(each["sizes"][name] for each in rounds) for name in SIZED}
    middle = {name: values[len(values) // 2] for name, values in sizes.items()}
    return {
        "notify": round(middle["notify"]),
        "mail": round(middle["mail"] - middle["notify"]),
        "push": round(middle["push"] - middle["notify"]),
    }


def of_operations(on: Installation) -> dict[str, Costs]:
    """Measures each operation, with one `serve` and one `worker`; then vacuum and clean-up."""
    parts: dict[str, Costs] = {"people of a fan-out": {"count": AT_ONCE}}
    with on.started(serves=1, workers=1):
        parts["idle"] = on.rest()
        for name in (name for name in PACED if name != STREAM):
            parts |= at_all_rates(on, name)
        parts["fan-out"] = on.cost({"fan-out": 2.0}, 5.0) | {"rate": 2.0}
        parts["fan-out with mail"] = on.cost({"fan-out with mail": 2.0}, 5.0)
        parts["count"] = on.cost({"count": 100.0}, 4.0)
        parts["list"] = on.cost({"list": 40.0}, 4.0)
        parts["sizes"] = sizes(on)
        parts["vacuum"] = vacuum(on)
        parts["clean-up"] = clean_up(on)
    return parts


def of_streams(on: Installation) -> dict[str, Costs]:
    """Measures open streams, and changes for people with one."""
    parts: dict[str, Costs] = {}
    with on.started(serves=1, workers=1):
        parts["idle, no streams"] = on.rest(3 * IDLE_SECONDS)
        with on.streams(STREAMS):
            on.rest()
            parts |= at_all_rates(on, STREAM)
        with on.streams(IDLE_STREAMS):
            parts["idle, streams"] = on.rest(3 * IDLE_SECONDS)
            parts["streams"] = {"count": IDLE_STREAMS}
    return parts


def of_mixes(on: Installation) -> dict[str, Costs]:
    """Measures calls of several kinds at the same time."""
    with on.started(serves=1, workers=1):
        on.rest()
        return {
            f"mix, {rate:.0f}/s": on.cost(dict.fromkeys(MIX, rate / len(MIX)), seconds)
            for rate, seconds in zip(MIXES, MIX_SECONDS, strict=True)
        }


def of_further_serves(on: Installation) -> dict[str, Costs]:
    """Measures what further `serve` cost, in turn with the first one alone."""
    return further(on, "notify", "serves")


def of_further_workers(on: Installation) -> dict[str, Costs]:
    """Measures what further `worker` cost, in turn with the first one alone."""
    return further(on, "mail", "workers")


SECTIONS = (of_operations, of_mixes, of_streams, of_further_serves, of_further_workers)


def further(on: Installation, name: str, kind: str) -> dict[str, Costs]:
    found: dict[str, list[Costs]] = {}

    def measure(how: str) -> None:
        parts = {f"idle, {how} {kind}": on.rest()}
        parts |= at_all_rates(on, name, f", {how} {kind}", RATES[1:])
        for part, costs in parts.items():
            found.setdefault(part, []).append(costs)

    with on.started(serves=1, workers=1):
        for _ in range(PAIRS):
            measure(ALONE)
            with on.started(**{kind: FURTHER}):
                measure("more")
    return {part: times(plus(costs[0], costs[1]), 1 / PAIRS) for part, costs in found.items()}


def check_of(on: Installation) -> dict[str, Any]:
    """Measures the mixed load; returns it with its costs."""
    with on.started(serves=2, workers=3), on.streams(STREAMS):
        on.make(CHECK, WARM_SECONDS)
        on.rest(1.0)
        on.vacuum()
        before = on.notifications()
        made: dict[str, int] = {}

        def work() -> None:
            on.make(CHECK, CHECK_SECONDS)
            made.update(on.counts)
            on.vacuum()

        seconds, used = on.measured(work)
        operations = made | {"vacuum": on.notifications() - before}
        done = Load(seconds, {**operations}, serves=2, workers=3, streams=STREAMS)
        sent = on.owner.execute(
            "select channel, state, count(*) from tocsin.delivery group by 1, 2 order by 1, 2"
        ).fetchall()
    return {
        "load": {name: getattr(done, name) for name in done.__struct_fields__},
        "measured": used,
        "deliveries": {f"{channel} {state}": count for channel, state, count in sent},
    }


def at_all_rates(
    on: Installation, name: str, more: str = "", rates: Iterable[float] = RATES
) -> dict[str, Costs]:
    return {f"{name}, {rate:.0f}/s{more}": on.cost({name: rate}, SECONDS[rate]) for rate in rates}


def vacuum(on: Installation) -> Costs:
    """Returns the cost of a vacuum for each notification in the tables."""
    _, used = on.measured(on.vacuum)
    return times(used, 1 / on.notifications())


def clean_up(on: Installation) -> Costs:
    """Returns what PostgreSQL does to remove a notification with all that belongs to it."""
    settings = {"database_url": on.dsn, "unread_retention_days": "100"}
    later = (datetime.now(UTC) + timedelta(days=200)).isoformat()
    count = on.notifications()

    def work() -> None:
        command = stage.ours("cleanup", "--now", later)
        with stage.program(*command, settings=settings) as process:
            process.wait()

    _, used = on.measured(work)
    assert on.notifications() == 0
    return times(used, 1 / count)


def sizes(on: Installation) -> Costs:
    """Returns the bytes that a notification takes, with its event and its deliveries."""
    grown: Costs = {}
    for name, event_type in SIZED.items():
        before = on.owner.execute(SIZES).fetchone() or (0,)
        kind = "a" if name == "push" else "p"
        on.owner.execute(EACH_ITS_OWN, (event_type, kind, BULK))
        finish(on.owner)
        after = on.owner.execute(SIZES).fetchone() or (0,)
        grown[name] = (int(after[0]) - int(before[0])) / BULK
    return grown


if __name__ == "__main__":
    main()
