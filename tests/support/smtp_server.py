"""An SMTP server that misbehaves at the step that a test names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(talk: Talk, **options: Any) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, limit=2**20, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


REPLIES = {
    "CONNECT": "220 server.test",
    "EHLO": "250-server.test\r\n250 SIZE 1000000",
    "MAIL": "250 OK",
    "RCPT": "250 OK",
    "DATA": "354 go ahead",
    "BODY": "250 queued as Q1234",
    "RSET": "250 OK",
    "QUIT": "221 bye",
}


class Scripted:
    """Plays SMTP, but at some steps does something else: a reply, or None to hang up, or "hang"."""

    def __init__(self, **odd: str | None) -> None:
        self.odd = odd
        self.commands: list[str] = []
        self.connections = 0
        self.stuck = False  # it has come to a step at which it hangs or sends a byte at a time
        self.release = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not await self.play("CONNECT", writer):
            return
        while line := await reader.readline():
            verb = line.decode().split()[0].upper()
            self.commands.append(verb)
            if not await self.play(verb, writer):
                return
            if verb == "DATA" and not self.odd.get("DATA"):
                await reader.readuntil(b"\r\n.\r\n")
                self.commands.append("BODY")
                if not await self.play("BODY", writer):
                    return

    async def play(self, verb: str, writer: asyncio.StreamWriter) -> bool:
        reply = self.odd.get(verb, REPLIES.get(verb, "502 what"))
        self.stuck = reply in {"hang", "slow"}
        if reply == "hang":
            await self.release.wait()
        if reply == "slow":
            while not self.release.is_set():
                writer.write(b"2")
                await asyncio.sleep(0.01)
        if reply is None or reply in {"hang", "slow"}:
            return False
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return True


# Replies to EHLO: the server takes one command after the other, or pipelined ones.
ONE_BY_ONE, IN_ONE_FLIGHT = REPLIES["EHLO"], "250-server.test\r\n250-PIPELINING\r\n250 SIZE 1000000"


class Flights:
    """Takes pipelined commands, keeps how many came at once, and replies to all at once; None: hangs up."""

    def __init__(self, *replies: str | None) -> None:
        self.replies = list(replies)
        self.flights: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 server.test\r\n")
        while flight := await reader.read(65536):
            self.flights.append(flight)
            if flight.startswith(b"EHLO"):
                writer.write(f"{IN_ONE_FLIGHT}\r\n".encode())
            elif (reply := self.replies.pop(0)) is not None:
                writer.write(reply.encode())
            else:
                return


GO_AHEAD = "250 OK\r\n250 OK\r\n354 go ahead\r\n"
