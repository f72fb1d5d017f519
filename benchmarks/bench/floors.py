"""The floors of `notify()` in SQL, and what is beside all columns alike: a leader that is awake."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

INSERT_ONLY = Path(__file__).parent / "insert_only.sql"
WAKE_EVERY = 0.02  # seconds
_SIGNAL = "tocsin.leader_is_idle()"
_FUNCTIONS = """
    select proname, prosrc, pg_get_functiondef(oid)
    from pg_proc
    where pronamespace = 'tocsin'::regnamespace
        and prokind = 'f'
"""


def create(owner: psycopg.Connection) -> None:
    """Creates the schema bench with the rows alone, and with a notify() that sends no wake-up signal."""
    owner.execute(INSERT_ONLY.read_text(encoding="utf-8"))
    owner.execute("set check_function_bodies = off")
    for definition in without_signal(owner):
        owner.execute(definition)
    owner.execute("reset check_function_bodies")


def without_signal(owner: psycopg.Connection) -> list[str]:
    """Returns copies in the schema bench of notify() and of what it calls on its way to the signal, without that."""
    found = owner.execute(_FUNCTIONS).fetchall()
    calls = {name: set(re.findall(r"\btocsin\.(\w+)\(", source)) for name, source, _ in found}
    copied = {name for name, source, _ in found if _SIGNAL in source and name != "wake"}
    while more := {name for name in calls if calls[name] & copied} - copied:
        copied |= more
    copied &= reachable("notify", calls)
    assert "notify" in copied, "the wake-up signal has moved"
    return [bench_copy(text, copied) for name, _, text in found if name in copied]


def reachable(start: str, calls: dict[str, set[str]]) -> set[str]:
    """Returns the function and all that it calls."""
    found, new = set[str](), {start}
    while new:
        found |= new
        new = {other for name in new for other in calls.get(name, ())} - found
    return found


def bench_copy(definition: str, copied: set[str]) -> str:
    names = "|".join(sorted(copied))
    moved = re.sub(rf"\btocsin\.({names})\(", r"bench.\1(", definition)
    return moved.replace(_SIGNAL, "false")


@contextmanager
def awake(dsn: str) -> Iterator[None]:
    """Wakes the leader again and again while the block runs, so that it has the same work beside each column."""
    done = threading.Event()

    def wake() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.wait(WAKE_EVERY):
                connection.execute("select tocsin.wake()", prepare=True)

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
