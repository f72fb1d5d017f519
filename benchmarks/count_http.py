"""Unread counts a second over HTTP: JWT verified, exact and fresh. `make bench-count-http`.

`tocsin serve` with a million notifications; wrk sends requests over 64 open connections, with the tokens of two
thousand people in turn. Peer: Django REST framework with stateless JWT on the same rows, under gunicorn's threads, once
with a cache of 30 s, once counting each time. Floors: an empty handler of Litestar's and an ASGI app that does nothing,
under uvicorn with the same settings as `tocsin serve`.

Each is one process, alone under load; all get the same requests, first until every token was used (which fills the
peer's cache, and lets ours remember the tokens), then for the measurement. Ours is also measured with tokens that were
never seen, so that each is verified; with the token in a cookie; and with an Origin header. The CPU time of the process
and of PostgreSQL are recorded too: on a busy machine they are more precise.

Then both sides with as many processes as one would run on this machine: a `tocsin serve` for each CPU, and gunicorn
with two workers for each CPU and one more, as its documentation advises.

At the end another process commits while wrk continues: the next request must see it.
"""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from bench import cpu_limit, stage, wrk
from bench.freshness import Freshness, check_counts
from bench.gunicorn import gunicorn, versions
from bench.peer import peer
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from bench.service import Service, serve, token, wait_until_ready

from tocsin.http import tokens as ours

PEOPLE = 2000
NEW = 2 * ours._REMEMBERED  # noqa: SLF001 - so many that each was forgotten when its turn comes again
PATH = "/api/notifications/unread-count/"
OURS = "tocsin serve"
FIRST_SEEN, COOKIE, ORIGIN = f"{OURS}, first-seen tokens", f"{OURS}, cookie", f"{OURS}, Origin"
CACHED = "Django REST framework, 30 s cache"
COUNTING = "Django REST framework, count()"
LITESTAR = "floor: Litestar, empty handler"
RAW = "floor: raw ASGI, empty"
NULL = Path(__file__).parent / "bench" / "null_http.py"
LONGEST_WARM_UP = 10  # seconds
CPUS = os.cpu_count() or 1
WORKERS = 2 * CPUS + 1
ALL, ALL_CACHED = f"{OURS}, {CPUS} processes", f"{CACHED}, {WORKERS} workers"


@dataclass(frozen=True)
class Contender:
    urls: Sequence[str]
    pids: Sequence[int]
    tokens: Path
    kind: str = "bearer"
    warm: bool = (
        True  # every token is used before the measurement; otherwise none is used twice in a row
    )

    def cpu(self) -> float:
        return sum(map(stage.cpu, self.pids))


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "count_http"))
        people = some_people(dsn)
        with peer("django_count_table.py", dsn):
            pass
        spent: Measured = defaultdict(list)
        measure = Measure(running.pid, options.seconds, spent)
        with ExitStack() as single:
            contenders = started(single, dsn, write_tokens(folder, people))
            for name in (OURS, CACHED, COUNTING):
                check_counts(contenders[name].urls[0], dsn, people)
            measured = in_turns(measure.all_of(contenders), options.rounds)
            fresh = Freshness(dsn, contenders[OURS].urls[0])
            with fresh:
                one = contenders[OURS]
                wrk.requests_per_second(one.urls, one.tokens, seconds=options.seconds)
        with ExitStack() as several:
            together = started_together(several, dsn, folder / "tokens")
            machine = in_turns(measure.all_of(together), options.rounds)
    found = versions()
    keep(
        rates(measured, fresh, found),
        processor_time({name: spent[name] for name in rows_of(measured)}, found),
        whole_machine(machine, found),
    )


def write_tokens(folder: Path, people: Sequence[str]) -> tuple[Path, Path]:
    """Returns files with a token for each person, and with so many that none is remembered."""
    known, new = folder / "tokens", folder / "new-tokens"
    known.write_text("".join(f"{token(person)}\n" for person in people))
    names = (people[number % len(people)] for number in range(NEW))
    new.write_text(
        "".join(f"{token(person, jti=str(number))}\n" for number, person in enumerate(names))
    )
    return known, new


def started(stack: ExitStack, dsn: str, tokens: tuple[Path, Path]) -> dict[str, Contender]:
    """Starts the process of each contender, until the stack is closed."""
    known, new = tokens
    tocsin = stack.enter_context(serve(dsn, allowed_origins=wrk.ORIGIN))
    django = stack.enter_context(gunicorn("django_count", {"COUNT_DSN": dsn}))
    plain = contender(tocsin, PATH, known)
    return {
        OURS: plain,
        FIRST_SEEN: replace(plain, tokens=new, warm=False),
        COOKIE: replace(plain, kind="cookie"),
        ORIGIN: replace(plain, kind="origin"),
        CACHED: contender(django, "/cached/", known),
        COUNTING: contender(django, "/count/", known),
        LITESTAR: contender(stack.enter_context(floor("litestar")), "/", known),
        RAW: contender(stack.enter_context(floor("raw")), "/", known),
    }


def started_together(stack: ExitStack, dsn: str, tokens: Path) -> dict[str, Contender]:
    """Starts as many processes of each side as one would run on this machine."""
    each = [stack.enter_context(serve(dsn)) for _ in range(CPUS)]
    django = stack.enter_context(
        gunicorn("django_count", {"COUNT_DSN": dsn}, workers=WORKERS, threads=4)
    )
    return {
        ALL: Contender([one.url + PATH for one in each], [one.process.pid for one in each], tokens),
        ALL_CACHED: contender(django, "/cached/", tokens, CPUS),
    }


def contender(service: Service, path: str, tokens: Path, callers: int = 1) -> Contender:
    return Contender([service.url + path] * callers, [service.process.pid], tokens)


@contextmanager
def floor(which: str) -> Iterator[Service]:
    port = stage.free_port()
    with stage.program(sys.executable, NULL, which, str(port)) as process:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield Service("127.0.0.1", port, process)


class Measure:
    """Requests a second of a contender; records the CPU time of its processes and of PostgreSQL for each request."""

    def __init__(self, postgres: int, seconds: int, spent: Measured) -> None:
        self._postgres, self._seconds, self._spent = postgres, seconds, spent
        self._used = 0  # of the tokens that were never seen

    def all_of(self, contenders: dict[str, Contender]) -> dict[str, Callable[[], float]]:
        return {
            name: lambda name=name, each=each: self.once(name, each)
            for name, each in contenders.items()
        }

    def once(self, name: str, each: Contender) -> float:
        def ask(seconds: int) -> float:
            used = 0 if each.warm else self._used
            rate = wrk.requests_per_second(
                each.urls, each.tokens, seconds=seconds, kind=each.kind, used=used
            )
            self._used += 0 if each.warm else math.ceil(rate * seconds) + 2 * wrk.CONNECTIONS
            return rate

        rate = ask(1)
        if each.warm and rate < PEOPLE:
            ask(min(math.ceil(PEOPLE / max(rate, 1)), LONGEST_WARM_UP))
        before, database = each.cpu(), stage.cpu(self._postgres)
        rate = ask(self._seconds)
        if not rate:
            raise SystemExit(f"{each.urls[0]} returned nothing within {self._seconds} s")
        requests = rate * self._seconds / 1e6
        self._spent[name].append((each.cpu() - before) / requests)
        self._spent[f"{name}: PostgreSQL"].append((stage.cpu(self._postgres) - database) / requests)
        return rate


def rows_of(measured: Measured) -> Iterator[str]:
    """Yields the rows of the table of CPU time; the floors have no database."""
    for name in measured:
        yield name
        if name not in (LITESTAR, RAW):
            yield f"{name}: PostgreSQL"


def rates(measured: Measured, fresh: Freshness, found: dict[str, str]) -> Record:
    return Record(
        "count-http",
        "Unread count over HTTP, one process, 64 connections",
        "requests/s",
        measured,
        goals=[
            Goal(OURS, CACHED, at_least=10),
            Goal(OURS, COUNTING, at_least=10),
            Goal(OURS, LITESTAR, at_least=1.2),
            Goal(OURS, RAW, at_least=0.6),
            *(Goal(name, OURS, at_least=0.6) for name in (FIRST_SEEN, COOKIE, ORIGIN)),
        ],
        facts={"people": PEOPLE, "commits checked under load": fresh.looks},
        kept={
            "every commit of another process was seen by the next request": fresh.looks > 0
            and fresh.late == 0
        },
        versions=found,
    )


def processor_time(cpu: Measured, found: dict[str, str]) -> Record:
    return Record(
        "count-http-cpu",
        "CPU of the responding process and of PostgreSQL, in the same rounds",
        "µs a request",
        cpu,
        goals=[
            Goal(OURS, CACHED, at_most=1 / 10),
            Goal(OURS, LITESTAR, at_most=1 / 1.2),
            Goal(OURS, RAW, at_most=1 / 0.6),
            *(Goal(name, OURS, at_most=1 / 0.6) for name in (FIRST_SEEN, COOKIE, ORIGIN)),
        ],
        versions=found,
    )


def whole_machine(measured: Measured, found: dict[str, str]) -> Record:
    return Record(
        "count-http-machine",
        "Unread count over HTTP, with as many processes as for this machine",
        "requests/s",
        measured,
        goals=[Goal(ALL, ALL_CACHED, at_least=10)],
        versions=found,
    )


def some_people(dsn: str) -> list[str]:
    """Returns all kinds: the three with 50,000 unread, and random others, with a few to a few hundred."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select recipient_id from tocsin.recipient"
            " order by recipient_id not in ('p1', 'p2', 'p3'), md5(recipient_id) limit %s",
            (PEOPLE,),
        )
        return [recipient for (recipient,) in rows]


if __name__ == "__main__":
    main()
