"""Interleaved measurements, A B C A B C …, so that other load on the machine affects all contenders."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

Measure = Callable[[], float] | Callable[[], Awaitable[float]]
Measured = dict[str, list[float]]


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Measured:
    """Returns one value per round of each contender; the order rotates, so that none is always first."""
    measured: Measured = {name: [] for name in contenders}
    for number in range(rounds):
        for name in _order(list(contenders), number):
            measured[name].append(contenders[name]())
            _print_progress(number, rounds, name, measured[name][-1])
    return measured


def in_turns_without(
    contenders: Mapping[str, Callable[[], float]], rounds: int, disturbed: Callable[[], bool]
) -> tuple[Measured, Measured]:
    """Measures until that many rounds were not disturbed, as asked after each; returns these, and all rounds."""
    kept: Measured = {name: [] for name in contenders}
    every: Measured = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(2 * rounds + 1):
        values = {name: contenders[name]() for name in _order(names, number)}
        for measured in (every,) if disturbed() else (every, kept):
            for name, value in values.items():
                measured[name].append(value)
        if len(kept[names[0]]) == rounds:
            return kept, every
    raise SystemExit(f"not {rounds} rounds of {2 * rounds + 1} were undisturbed")


async def in_turns_async(
    contenders: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> Measured:
    """Measures coroutines in the same way."""
    measured: Measured = {name: [] for name in contenders}
    for number in range(rounds):
        for name in _order(list(contenders), number):
            measured[name].append(await contenders[name]())
            _print_progress(number, rounds, name, measured[name][-1])
    return measured


def rate(work: Callable[[], int]) -> Callable[[], float]:
    """Returns the rate of `work`, which returns how many it did."""

    def measure() -> float:
        started = time.perf_counter()
        done = work()
        return done / (time.perf_counter() - started)

    return measure


def rate_async(work: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[float]]:
    """Measures a coroutine in the same way."""

    async def measure() -> float:
        started = time.perf_counter()
        done = await work()
        return done / (time.perf_counter() - started)

    return measure


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns when the condition is true; ends the benchmark if it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {condition}")
        time.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Repeats a coroutine in the same way."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {condition}")
        await asyncio.sleep(0.005)


def _order(names: list[str], number: int) -> list[str]:
    turn = number % len(names)
    return names[turn:] + names[:turn]


def _print_progress(number: int, rounds: int, name: str, value: float) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[Kround {number + 1}/{rounds}  {name}: {value:,.4g}", end="", file=sys.stderr)
        if number + 1 == rounds:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
