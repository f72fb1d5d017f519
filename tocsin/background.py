"""Work beside a task: blocking calls in threads, and tasks that run meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Runs a call as asyncio.to_thread does; one that hangs does not keep the process from ending.

    Each call has a thread of its own, so this is for calls that are few.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return asyncio.wrap_future(future)


async def wait_for_any(*waiting: Awaitable[object]) -> None:
    """Waits for the first of these, and cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


_CANCEL_AGAIN = 1.0  # seconds


async def cancel_tasks(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancels tasks until each has ended, and returns their results and errors.

    One cancellation may have no effect: before Python 3.12 `asyncio.wait_for`, by which psycopg waits, ignores one that
    arrives together with its result.
    """
    waiting = set(tasks)
    try:
        while waiting:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_AGAIN)
    finally:
        for task in waiting:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs all this meanwhile, as tasks that are cancelled in the end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await cancel_tasks(*tasks)
