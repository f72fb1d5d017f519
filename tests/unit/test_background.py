"""Tasks that run meanwhile end, also one that misses its first cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tocsin.background import cancel_tasks, in_background


async def _misses_the_first_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    await asyncio.sleep(3600)


async def test_a_task_that_misses_a_cancellation_is_cancelled_again() -> None:
    async with asyncio.timeout(30):
        async with in_background(_misses_the_first_cancellation()):
            await asyncio.sleep(0)


async def test_tasks_that_were_cancelled_keep_their_results_and_errors() -> None:
    async def fails() -> None:
        raise ValueError("no")

    done, failed = asyncio.create_task(asyncio.sleep(0, "done")), asyncio.create_task(fails())
    running = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0.01)
    result, error, cancelled = await cancel_tasks(done, failed, running)
    assert result == "done"
    assert isinstance(error, ValueError)
    assert isinstance(cancelled, asyncio.CancelledError)
