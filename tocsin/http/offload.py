"""Runs what is too large for the event loop in a subprocess: to decode, check, store and encode it takes seconds.

msgspec and psycopg hold the interpreter's lock meanwhile, so a thread would not do. The process starts with the first
large request and ends a minute after the last one. It has its own connections to the database. Both processes
communicate over a pair of sockets: once this end is closed, also by a kill, the subprocess ends.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from litestar import Response
from msgspec import Struct

from tocsin.background import cancel_tasks
from tocsin.engine.model import Unavailable
from tocsin.settings import Settings

CONCURRENT = 4  # requests at a time, so that their bodies take no more than so much memory
_MOST_WAITING = 20  # more are refused
_WITHIN = 600.0  # seconds for one request; a process that takes longer hangs, and is killed
_IDLE = 60.0  # seconds
_STOP_WITHIN = 2.0  # seconds
_CHUNK = 1 << 16
_SERVE = "import sys; from tocsin.http.offload_process import serve; serve(int(sys.argv[1]))"
# of a frame: the number of the request, the sizes of its head and of its body
_LENGTHS = struct.Struct("!QII")

log = structlog.get_logger("tocsin.http")


class Setup(Struct, frozen=True):
    """The first frame: what the process needs to know."""

    database_url: str
    pooler_url: str | None
    log_format: str
    log_level: str


class Call(Struct, frozen=True):
    """What to run, with which arguments; the frame's body is the request's."""

    operation: str
    arguments: dict[str, Any]


class Result(Struct, frozen=True):
    """The response; the frame's body is its body."""

    status: int
    media_type: str
    headers: dict[str, str]


class Offload:
    """The subprocess of one HTTP process, started when it is first needed."""

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        *,
        pooler: str | None = None,
        hanging: Callable[[], Coroutine[Any, Any, None]],
        idle: float = _IDLE,
    ) -> None:
        """`hanging` waits until the database hangs: what the subprocess waits for then does not come."""
        self._hanging = hanging
        self._idle_after = idle
        self._setup = Setup(database_url, pooler, settings.log_format, str(settings.log_level))
        self._turns = asyncio.Semaphore(CONCURRENT)
        self._waiting = 0
        self._starting = asyncio.Lock()
        self._running: _Running | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()  # of processes that were idle

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._running.process.pid if self._running else None

    async def respond(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        body: Sequence[bytes] = (),
        rest: AsyncIterable[bytes] | None = None,
    ) -> Response[Any]:
        """Returns the response of an operation to a body, of which `rest` is yet to be read; raises Unavailable."""
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("too many large requests are waiting")
        self._waiting += 1
        try:
            async with self._turns:
                chunks = [*body, *([chunk async for chunk in rest] if rest is not None else ())]
                running = await self._start()
                return await self._within(running.respond(Call(operation, {**arguments}), chunks))
        finally:
            self._waiting -= 1
            self._stop_when_idle()

    async def _within(self, work: Coroutine[Any, Any, Response[Any]]) -> Response[Any]:
        """Returns the response; ends the process where it takes too long or the database hangs meanwhile."""
        responding, hanging = asyncio.create_task(work), asyncio.create_task(self._hanging())
        try:
            await asyncio.wait(
                {responding, hanging}, timeout=_WITHIN, return_when=asyncio.FIRST_COMPLETED
            )
            if not responding.done():
                await self.stop()
                raise Unavailable("the subprocess took too long")
            return responding.result()
        finally:
            await cancel_tasks(responding, hanging)

    async def stop(self) -> None:
        """Ends the process; what it is doing is Unavailable."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        running, self._running = self._running, None
        if running is not None:
            await running.stop()
        await asyncio.gather(*self._ending)

    async def _start(self) -> _Running:
        async with self._starting:
            if self._running is None or self._running.ended:
                await self.stop()
                self._running = await _Running.start(self._setup)
            return self._running

    def _stop_when_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(self._idle_after, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._waiting:
            return
        running, self._running = self._running, None
        if running is not None:
            ending = asyncio.create_task(running.stop(), name="offload ends")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


class _Running:
    """A process that runs, and the requests that it has."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.ended = False
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Response[Any]]] = {}
        self._receiving = asyncio.create_task(self._receive(), name="offload")

    @classmethod
    async def start(cls, setup: Setup) -> _Running:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _SERVE, str(theirs.fileno())),
                stdin=DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        try:
            running = cls(process, *await asyncio.open_connection(sock=ours))
            await running._send(0, setup, [])
        except BaseException:  # such as a request that was cancelled
            process.kill()
            await process.wait()
            raise
        log.info("subprocess for large requests started", pid=process.pid)
        return running

    async def respond(self, call: Call, body: Sequence[bytes]) -> Response[Any]:
        number = next(self._numbers)
        waiting: asyncio.Future[Response[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            await self._send(number, call, body)
            return await waiting
        except ConnectionError:
            raise Unavailable("the subprocess ended") from None
        finally:
            del self._waiting[number]

    def end(self) -> None:
        """Closes our end, which ends the process."""
        self.ended = True
        self._writer.close()

    async def stop(self) -> None:
        """Returns when the process has ended."""
        self.end()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_WITHIN)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await self._receiving

    async def _send(self, number: int, head: Struct, body: Sequence[bytes]) -> None:
        async with self._writing:
            write_frame(self._writer, number, head, body)
            await self._writer.drain()

    async def _receive(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, head, body = await read_frame(self._reader)
                result = msgspec.msgpack.decode(head, type=Result)
                response = Response(
                    body,
                    status_code=result.status,
                    media_type=result.media_type,
                    headers=result.headers,
                )
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(response)
        if not self.ended:
            log.warning("subprocess for large requests ended", pid=self.process.pid)
        self.end()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the subprocess ended"))


def write_frame(
    writer: asyncio.StreamWriter, number: int, head: Struct, body: Sequence[bytes]
) -> None:
    """Writes one frame; the caller drains."""
    encoded = msgspec.msgpack.encode(head)
    writer.write(_LENGTHS.pack(number, len(encoded), sum(map(len, body))) + encoded)
    for chunk in body:
        writer.write(chunk)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Returns the number, head and body of the next frame; raises IncompleteReadError at the end."""
    number, head_size, left = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    head = await reader.readexactly(head_size)
    chunks = []
    while left:
        chunks.append(await reader.readexactly(min(left, _CHUNK)))
        left -= len(chunks[-1])
    return number, head, b"".join(chunks)
