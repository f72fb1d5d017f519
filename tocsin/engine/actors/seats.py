"""The seats that bound a mailbox: who is about to claim takes them first, so back-pressure reaches the claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from tocsin.engine.model import Priority


class _Waiter(Struct, eq=False):
    """Somebody who waits for seats."""

    wanted: int
    least: int  # fewer aren't worth a claim
    most: int  # that may be taken by all
    priority: Priority
    granted: asyncio.Future[int]


class Seats:
    """Bounds a mailbox: who is about to claim takes seats first, and waits where there are none.

    `reserve` more are for high priority alone, so that it never waits behind a full mailbox.
    `gate` says how many may be taken at this moment, whatever is free: an open breaker gives none, and then nobody
    waits here.
    """

    def __init__(self, size: int, reserve: int, gate: Callable[[], int]) -> None:
        self._size = size
        self._reserve = reserve
        self._gate = gate
        self._waiters: list[_Waiter] = []
        self._closed = False
        self.taken = 0

    async def take(self, wanted: int, priority: Priority) -> int:
        """Waits for seats, takes between 1 and `wanted` of them; 0 once closed, or where the gate is.

        A normal claim waits for half of the mailbox, so that a busy one isn't filled one by one.
        """
        if self._closed:
            return 0
        most = self._size + self._reserve if priority is Priority.HIGH else self._size
        wanted = min(wanted, most)
        least = 1 if priority is Priority.HIGH else max(1, min(wanted, self._size // 2))
        waiter = _Waiter(wanted, least, most, priority, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._waiters.sort(key=lambda other: -other.priority)
        self.offer()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.granted.cancelled():
                self.give_back(waiter.granted.result())
            raise

    def give_back(self, seats: int) -> None:
        """Frees seats for those who wait."""
        self.taken -= seats
        if self._waiters:
            self.offer()

    def offer(self) -> None:
        """Serves who waits, in order, as far as there is room; sends them home where the gate is closed."""
        while self._waiters:
            gate = self._gate()
            if not gate:
                self._send_home()
                return
            first = self._waiters[0]
            seats = min(first.most - self.taken, first.wanted, gate)
            if seats < min(first.least, gate):
                return
            self._waiters.pop(0)
            if not first.granted.done():
                self.taken += seats
                first.granted.set_result(seats)

    def close(self) -> None:
        """Sends everybody home with no seat, from now on."""
        self._closed = True
        self._send_home()

    def _send_home(self) -> None:
        for waiter in self._waiters:
            if not waiter.granted.done():
                waiter.granted.set_result(0)
        self._waiters.clear()
