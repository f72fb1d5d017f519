"""Unread counts a second over HTTP, of one process: JWT verified, exact and fresh. `make bench-count-http`.

`tocsin serve` with a million notifications; wrk sends requests over 64 open connections, with the tokens of two
thousand people in turn. Peer: Django REST framework with stateless JWT on the same rows, under gunicorn's threads, once
with a cache of 30 s, once counting each time. Floors: an empty handler of Litestar's and an ASGI app that does nothing,
under uvicorn with the same settings as `tocsin serve`.

Each is one process, alone under load; all get the same requests, first until every token was used (which fills the
peer's cache), then for the measurement. The CPU time of the process is recorded too: on a busy machine it is more
precise. At the end another process commits while wrk continues: the next request must see it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import httpx
import psycopg
from bench import cpu_limit, stage, wrk
from bench.peer import PEERS, PYTHON, peer
from bench.record import Goal, Record, keep
from bench.rounds import Measured, in_turns
from bench.service import answering, bearer, serve, token

PEOPLE = 2000
THREADS = 8
PATH = "/api/notifications/unread-count/"
OURS = "tocsin serve"
CACHED = "Django REST framework, 30 s cache"
COUNTING = "Django REST framework, count()"
LITESTAR = "floor: Litestar, empty handler"
RAW = "floor: raw ASGI, empty"
NULL = Path(__file__).parent / "bench" / "null_http.py"


@dataclass(frozen=True)
class Contender:
    url: str
    pid: int


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        running = stack.enter_context(stage.server())
        dsn = stack.enter_context(stage.database(running, "count_http"))
        people = some_people(dsn)
        tokens = folder / "tokens"
        tokens.write_text("".join(f"{token(person)}\n" for person in people))
        contenders = started(stack, dsn)
        for name in (OURS, CACHED, COUNTING):
            answers_rightly(contenders[name].url, dsn, people)
        cpu: Measured = {name: [] for name in contenders}
        measured = in_turns(
            {
                name: asked(contender, tokens, options.seconds, cpu[name])
                for name, contender in contenders.items()
            },
            options.rounds,
        )
        fresh = Freshness(dsn, contenders[OURS].url)
        with fresh:
            wrk.requests_per_second(contenders[OURS].url, tokens, seconds=options.seconds)
        versions = gunicorn_versions()
    keep(rates(measured, fresh, versions), processor_time(cpu, versions))


def started(stack: ExitStack, dsn: str) -> dict[str, Contender]:
    """Starts the process of each contender, until the stack is closed."""
    fill_the_peer(dsn)
    ours, peer = stack.enter_context(serve(dsn)), stack.enter_context(django(dsn))
    return {
        OURS: Contender(ours.url + PATH, ours.process.pid),
        CACHED: Contender(peer.url + "/cached/", peer.pid),
        COUNTING: Contender(peer.url + "/count/", peer.pid),
        LITESTAR: stack.enter_context(floor("litestar")),
        RAW: stack.enter_context(floor("raw")),
    }


def rates(measured: Measured, fresh: Freshness, versions: dict[str, str]) -> Record:
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
        ],
        facts={"people": PEOPLE, "commits checked under load": fresh.looks},
        kept={
            "every commit of another process was seen by the next request": fresh.looks > 0
            and fresh.late == 0
        },
        versions=versions,
    )


def processor_time(cpu: Measured, versions: dict[str, str]) -> Record:
    return Record(
        "count-http-cpu",
        "CPU of the responding process, in the same rounds",
        "µs a request",
        cpu,
        goals=[
            Goal(OURS, CACHED, at_most=1 / 10),
            Goal(OURS, LITESTAR, at_most=1 / 1.2),
            Goal(OURS, RAW, at_most=1 / 0.6),
        ],
        versions=versions,
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


def fill_the_peer(dsn: str) -> None:
    with peer("django_count_table.py", dsn):
        pass


@contextmanager
def django(dsn: str) -> Iterator[Contender]:
    """Yields one worker of gunicorn's; threads, since its plain worker closes each connection."""
    port = stage.free_port()
    command = [
        *(PYTHON.parent / "gunicorn", "--workers", "1", "--worker-class", "gthread"),
        *("--threads", str(THREADS), "--keep-alive", "75", "--bind", f"127.0.0.1:{port}"),
        *("--chdir", PEERS, "django_count:application"),
    ]
    with stage.program(*command, environ={"COUNT_DSN": dsn}) as process:
        answering(f"http://127.0.0.1:{port}")
        yield Contender(f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def floor(which: str) -> Iterator[Contender]:
    port = stage.free_port()
    with stage.program(sys.executable, NULL, which, str(port)) as process:
        answering(f"http://127.0.0.1:{port}")
        yield Contender(f"http://127.0.0.1:{port}/", process.pid)


def asked(
    contender: Contender, tokens: Path, seconds: int, cpu: list[float]
) -> Callable[[], float]:
    def measure() -> float:
        url = contender.url
        rate = wrk.requests_per_second(url, tokens, seconds=1)
        wrk.requests_per_second(url, tokens, seconds=math.ceil(PEOPLE / rate))
        before = stage.cpu(contender.pid)
        rate = wrk.requests_per_second(url, tokens, seconds=seconds)
        cpu.append((stage.cpu(contender.pid) - before) / (rate * seconds) * 1e6)
        return rate

    return measure


def answers_rightly(url: str, dsn: str, people: Sequence[str]) -> None:
    """Ends the benchmark if a contender has another count."""
    with psycopg.connect(dsn) as connection, httpx.Client() as client:
        for person in people[:50]:
            response = client.get(url, headers=bearer(person))
            row = connection.execute("select tocsin.unread_count(%s)", (person,)).fetchone()
            if row is None or response.json()["count"] != row[0]:
                raise SystemExit(f"{url} returned {response.text} for {person}, not {row}")


class Freshness:
    """Commits from this process and requests the count at once, while the block runs."""

    def __init__(self, dsn: str, url: str) -> None:
        self.looks = self.late = 0
        self._dsn, self._url = dsn, url
        self._done = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        with (
            psycopg.connect(self._dsn, autocommit=True) as app,
            httpx.Client(headers=bearer("fresh")) as client,
        ):
            app.execute("select tocsin.upsert_recipient('fresh')")
            while not self._done.is_set():
                app.execute("select tocsin.notify('forum.new_thread', array['fresh'], 'x')")
                self.looks += 1
                self.late += client.get(self._url).json()["count"] != self.looks


def gunicorn_versions() -> dict[str, str]:
    ask = (
        "import json, importlib.metadata as m;"
        "print(json.dumps({n: m.version(n) for n in "
        "('django', 'djangorestframework', 'djangorestframework-simplejwt', 'gunicorn')}))"
    )
    output = subprocess.run([PYTHON, "-c", ask], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output))


if __name__ == "__main__":
    main()
