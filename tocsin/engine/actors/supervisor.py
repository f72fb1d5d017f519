"""Supervision: what crashes is started again, later each time until it does some work."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import PurePath

import structlog

from tocsin.engine.actors.breaker import back_off

log = structlog.get_logger(__name__)

Well = Callable[[], None]


async def supervise(
    run: Callable[[Well], Awaitable[None]],
    *,
    name: str,
    resting: Callable[[float], None],
    rested: Callable[[], None],
    first: float = 0.05,
    most: float = 5.0,
) -> None:
    """Keeps `run` running until it returns; `run` says by its argument that it got some work done.

    The first crash is followed by a start at once: one poison message stops nothing. After that
    `resting(seconds)` is called before each pause, `rested()` when it is over.
    """
    crashes = 0

    def well() -> None:
        nonlocal crashes
        crashes = 0

    while True:
        try:
            await run(well)
        except Exception as error:  # noqa: BLE001 - a supervisor meets every bug
            crashes += 1
            log.error("actor crashed", actor=name, crashes=crashes, **describe(error))
        else:
            return
        if crashes == 1:
            continue
        delay = back_off(crashes - 1, first=first, most=most)
        resting(delay)
        await asyncio.sleep(delay)
        rested()


def describe(error: BaseException) -> dict[str, str]:
    """What may be logged of an exception: its type and place, never its text, which may hold an address."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return {"error": type(error).__name__, "at": at}
