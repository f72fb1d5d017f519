"""Scripted responses and faults of an HTTP far end: any response, none, a reset, a slow one, or garbage."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import Enum

from aiohttp import web
from msgspec import Struct

_DRIBBLE = 0.01  # seconds between two bytes


class Fault(Enum):
    """A fault in place of a response."""

    HANG = "hang"  # reads the request and sends no response
    RESET = "reset"  # reads the request and resets the connection
    DRIBBLE = "dribble"  # sends a byte at a time, without an end
    GARBAGE = "garbage"  # sends bytes that are not HTTP


class Reply(Struct, frozen=True):
    """A response as it is sent."""

    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Turn = Reply | Fault


class Script:
    """What to do with the next requests of each key, in place of the usual response."""

    EVERY = ""

    def __init__(self) -> None:
        self._once: dict[str, deque[Turn]] = {}
        self._always: dict[str, Turn] = {}

    def then(self, key: str, turns: Iterable[Turn]) -> None:
        """Adds one turn for each of the key's next requests."""
        self._once.setdefault(key, deque()).extend(turns)

    def always(self, key: str, turn: Turn | None) -> None:
        """Sets the turn of all requests of the key that have none of their own; None removes it."""
        if turn is None:
            self._always.pop(key, None)
        else:
            self._always[key] = turn

    def next(self, key: str) -> Turn | None:
        """Returns what to do with this request of the key; None: the usual response."""
        for each in (key, self.EVERY):
            if queue := self._once.get(each):
                return queue.popleft()
        return self._always.get(key) or self._always.get(self.EVERY)


async def play(turn: Turn, request: web.Request) -> web.StreamResponse:
    """Sends the response, or commits the fault, of a turn."""
    if isinstance(turn, Reply):
        body = turn.body.encode()
        return web.Response(status=turn.status, body=body, headers=dict(turn.headers))
    transport = request.transport
    assert transport is not None
    if turn is Fault.RESET:
        transport.abort()
    elif turn is Fault.GARBAGE:
        transport.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        transport.close()
    elif turn is Fault.DRIBBLE:
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not transport.is_closing():
        await asyncio.sleep(_DRIBBLE)
        if turn is Fault.DRIBBLE:
            transport.write(b" ")
    return web.Response()  # never sent
