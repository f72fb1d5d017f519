"""`tocsin top`: the numbers of the operations page in a terminal, refreshed until `q` or Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from tocsin.cli.services import with_database

if TYPE_CHECKING:
    import asyncio

    from tocsin.cli.doctor.database_checks import FreeConnections
    from tocsin.engine.ops.overview import ActorView, ChannelView, Overview, Overviews, ProcessView
    from tocsin.engine.store.database import Database

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MOST_PROBLEMS = 5


class _State(NamedTuple):
    overview: Overview
    connections: FreeConnections


class _Line(NamedTuple):
    text: str
    colour: str | None = None


@click.command()
@click.option(
    "--once", is_flag=True, help="Print the numbers once, as where the output is no terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, once.")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.5, 60.0),
    help="Seconds between two readings.",
)
def top(once: bool, as_json: bool, interval: float) -> None:
    """Show queues, rates, providers and processes, refreshed until q or Ctrl-C."""
    if as_json:
        click.echo(_to_json(with_database(_read_once)))
    elif once or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        for line in _lines(with_database(_read_once)):
            click.echo(line.text)
    else:
        with_database(lambda database: _watch(database, interval))


async def _read_once(database: Database) -> _State:
    from tocsin.engine.ops.overview import Overviews

    return await _read(database, Overviews(database))


async def _read(database: Database, overviews: Overviews) -> _State:
    from tocsin.cli.doctor.database_checks import free_connections

    return _State(await overviews.get("hour"), await free_connections(database))


def _to_json(state: _State) -> str:
    import msgspec

    found = state.connections
    connections = {"used": found.used, "possible": found.possible, "free": found.free}
    return msgspec.json.encode(
        {**msgspec.structs.asdict(state.overview), "connections": connections}
    ).decode()


# The terminal.


async def _watch(database: Database, interval: float) -> None:
    """Draws until a key or a signal ends it."""
    import asyncio

    drawing = asyncio.create_task(_keep_drawing(database, interval))
    with _full_screen(drawing.cancel), suppress(asyncio.CancelledError):
        await drawing


async def _keep_drawing(database: Database, interval: float) -> None:
    import asyncio

    from tocsin.engine.model import Unavailable
    from tocsin.engine.ops.overview import Overviews

    overviews = Overviews(database)
    shown = [_Line("reading …")]
    while True:
        try:
            shown = _lines(await _read(database, overviews))
            _draw(shown)
        except Unavailable as error:
            # the numbers stay on the screen, with their time
            _draw([_Line(f"The database is not available: {error}", "red"), *shown])
        await asyncio.sleep(interval)


def _draw(lines: list[_Line]) -> None:
    width, height = shutil.get_terminal_size()
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], _Line(f"… {hidden} more lines in a taller window")]
    drawn = [click.style(each.text[:width], fg=each.colour) + _END_OF_LINE for each in lines]
    click.echo(_HOME + "\n".join(drawn) + _END_OF_SCREEN, nl=False)


@contextmanager
def _full_screen(stop: Callable[[], object]) -> Iterator[None]:
    """Uses the whole terminal, and restores it; `q`, Ctrl-C and SIGTERM call `stop`."""
    import asyncio

    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: Ctrl-C alone
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(each, stop)
    with _single_keys(loop, stop):
        click.echo(_ENTER, nl=False)
        try:
            yield
        finally:
            click.echo(_LEAVE, nl=False)


@contextmanager
def _single_keys(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> Iterator[None]:
    """Reads each key at once and without an echo, if standard input is a terminal."""
    try:
        import termios
        import tty
    except ImportError:
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def read_key() -> None:
        if os.read(keyboard, 1) in (b"q", b"Q", b""):  # the latter: the terminal is gone
            stop()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read_key)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


# What it shows: each table fits into 80 columns.


def _lines(state: _State) -> list[_Line]:
    view = state.overview
    lines = [
        *_header(view, state.connections),
        *_problems(view),
        _Line(""),
        *_channels(view),
        _Line(""),
        *_providers(view),
        _Line(""),
        *_fan_outs(view),
        *_processes(view),
    ]
    # what others reported must not control the terminal
    return [each._replace(text=_NOT_PRINTABLE.sub("?", each.text)) for each in lines]


def _header(view: Overview, connections: FreeConnections) -> Iterable[_Line]:
    living = [each for each in view.processes if not each.silent]
    workers = sum(each.kind == "worker" for each in living)
    leader = next((f"{each.host}:{each.pid}" for each in living if each.leading), "none")
    yield _Line(
        f"tocsin top  {view.at:%Y-%m-%d %H:%M:%S} UTC  workers {workers}  serve {len(living) - workers}"
        f"  streams {view.streams}"
    )
    slowest = max(
        (each for each in view.channels if each.latency is not None),
        key=lambda each: each.latency.p99 if each.latency else 0.0,
        default=None,
    )
    slow = f"  slowest {slowest.channel}" if slowest else ""
    yield _Line(f"connections {connections.used} of {connections.possible}  leader {leader}{slow}")


def _problems(view: Overview) -> Iterable[_Line]:
    for each in view.problems[:_MOST_PROBLEMS]:
        colour = "red" if each.severity == "critical" else "yellow"
        yield _Line(f"{each.severity}: {each.what}: {each.detail}", colour)
    if (more := len(view.problems) - _MOST_PROBLEMS) > 0:
        yield _Line(f"… {more} more problems; /ops/ has all of them with their cures", "yellow")


def _channels(view: Overview) -> Iterable[_Line]:
    """Rates are those of the last 60 s, a second; `retry` waits for another attempt, `held` for the person."""
    from tocsin.engine.explain.reasons import WAITING_REASONS

    held: defaultdict[str, int] = defaultdict(int)
    retrying: defaultdict[str, int] = defaultdict(int)
    for each in view.waiting:
        if each.reason in WAITING_REASONS:
            held[each.channel] += each.n
        elif each.state == "deferred":
            retrying[each.channel] += each.n
    yield _Line(
        "CHANNEL    WAITING   RETRY    HELD OLDEST  LATE  SENT/S  FAIL/S OTHER/S   P50   P99"
    )
    for channel in view.channels:
        name = channel.channel
        yield _channel(view.at, channel, retrying[name], held[name])


def _channel(at: datetime, channel: ChannelView, retrying: int, held: int) -> _Line:
    ended = channel.last_minute
    others = sum(ended.values()) - ended.get("sent", 0) - ended.get("failed", 0)
    waiting = f"{sum(channel.waiting.values())}{'+' * channel.waiting_more}"
    oldest = _age((at - channel.oldest_at).total_seconds()) if channel.oldest_at else "-"
    p50, p99 = (
        (_age(channel.latency.p50), _age(channel.latency.p99)) if channel.latency else ("-", "-")
    )
    return _Line(
        f"{channel.channel:<10}{waiting:>8}{retrying:>8}{held:>8}{oldest:>7}{_age(channel.late):>6}"
        f"{_rate(ended.get('sent', 0))}{_rate(ended.get('failed', 0))}{_rate(others)}{p50:>6}{p99:>6}",
        None if channel.available or not channel.waiting else "yellow",
    )


def _providers(view: Overview) -> Iterable[_Line]:
    """Yields a line for each provider, over all workers: the one whose mailboxes are fullest first."""
    found: defaultdict[str, list[ActorView]] = defaultdict(list)
    for process in view.processes:
        for actor in () if process.silent else process.actors:
            found[actor.name].append(actor)

    def fullness(item: tuple[str, list[ActorView]]) -> float:
        # an actor that has just started reports a mailbox of no size
        return -sum(each.waiting for each in item[1]) / max(1, sum(each.size for each in item[1]))

    yield _Line("PROVIDER                  WORKERS     MAILBOX     SENDING  BREAKER")
    for name, actors in sorted(found.items(), key=fullness):
        opened = [each for each in actors if each.breaker != "closed"]
        mailbox = f"{sum(each.waiting for each in actors)}/{sum(each.size for each in actors)}"
        sending = f"{sum(each.in_flight for each in actors)}/{sum(each.senders for each in actors)}"
        breaker = (
            f"open in {len(opened)}: {opened[0].reason or opened[0].breaker}"
            if opened
            else "closed"
        )
        yield _Line(
            f"{name[:25]:<25}{len(actors):>8}{mailbox:>12}{sending:>12}  {breaker}",
            "red" if opened else None,
        )


def _fan_outs(view: Overview) -> Iterable[_Line]:
    """Yields a line for each event with very many followers that is being fanned out; none where there is none."""
    if not view.fan_outs:
        return
    yield _Line("FAN-OUT              EVENT  FANNED OUT       TOTAL  SINCE  TITLE")
    for each in view.fan_outs:
        since = _age(max(0.0, (view.at - each.since).total_seconds()))
        yield _Line(
            f"{each.event_type[:17]:<17}{each.event_id:>9}{each.fanned_out:>12}{each.total:>12}"
            f"{since:>7}  {each.title[:21]}"
        )
    yield _Line("")


def _processes(view: Overview) -> Iterable[_Line]:
    yield _Line("PROCESS  HOST                          PID  REPORTED  STREAMS  STATE")
    for each in sorted(view.processes, key=lambda process: process.silent):
        yield _Line(
            f"{each.kind:<8} {each.host[:25]:<25} {each.pid:>7} {_seconds_ago(view, each):>9}"
            f" {each.streams if each.kind == 'serve' else '-':>8}  {_state(each)}",
            "red" if each.silent else None,
        )


def _seconds_ago(view: Overview, process: ProcessView) -> str:
    return _age(max(0.0, (view.at - process.reported_at).total_seconds()))


def _state(process: ProcessView) -> str:
    if process.silent:
        return "silent"
    return "leader" if process.leading else "running"


def _rate(in_a_minute: int) -> str:
    return f"{in_a_minute / 60:>8.1f}"


def _age(seconds: float) -> str:
    """Returns a duration in at most five characters."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f}s"
