"""An actor for each endpoint: one that hangs or fails occupies its own senders and its own mailbox, and nothing else.

An actor is made when its endpoint is first needed, and stopped once it is idle. Endpoints on one host share a limit, so
that many of them together do not open many connections to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Any

from msgspec import Struct
from yarl import URL

from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import ActorReport

PER_HOST = 16
"""Requests to one host at a time."""

_IDLE = 60.0  # seconds after which an unused actor is stopped, unless its breaker is open
_STOP_WITHIN = 1.0

MakeActor = Callable[[asyncio.Semaphore], Actor[Any]]


class _Endpoint(Struct, eq=False):
    actor: Actor[Any]
    host: str
    used_at: float


class EndpointActors:
    """The actors of one provider's endpoints; `make` gets the limit of the endpoint's host.

    It starts, stops and reports like one actor.
    """

    def __init__(self, name: str, make: MakeActor, *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._make = make
        self._clock = clock
        self._endpoints: dict[Hashable, _Endpoint] = {}
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._swept_at = clock()

    async def start(self) -> None:
        """Starts nothing: each actor starts when its endpoint is needed."""

    async def of(self, key: Hashable, url: str) -> Actor[Any]:
        """Returns the running actor of an endpoint; a new address is a new endpoint."""
        self._stop_idle()
        endpoint = self._endpoints.get((key, url))
        if endpoint is None:
            host = _host(url)
            limit = self._limits.setdefault(host, asyncio.Semaphore(PER_HOST))
            endpoint = _Endpoint(self._make(limit), host, self._clock())
            self._endpoints[key, url] = endpoint
            await endpoint.actor.start()
        endpoint.used_at = self._clock()
        return endpoint.actor

    async def stop(self, grace: float = 5.0) -> None:
        """Stops all of them, as an actor does."""
        actors = [each.actor for each in self._endpoints.values()]
        await asyncio.gather(*(actor.stop(grace) for actor in actors), *self._stopping)
        self._endpoints.clear()

    def reports(self) -> list[ActorReport]:
        return [self.report()]

    def report(self) -> ActorReport:
        """Returns the sums; no breaker, since endpoints are independent of one another."""
        reports = [each.actor.report() for each in self._endpoints.values()]
        return ActorReport(
            name=self.name,
            waiting=sum(each.waiting for each in reports),
            size=sum(each.size for each in reports),
            in_flight=sum(each.in_flight for each in reports),
            senders=sum(each.senders for each in reports),
            rate=None,
            breaker="closed",
            breaker_reason=None,
            failing_for=0.0,
            retry_in=0.0,
            crashes=sum(each.crashes for each in reports),
            advice=None,
        )

    def _stop_idle(self) -> None:
        now = self._clock()
        if now - self._swept_at < _IDLE:
            return
        self._swept_at = now
        for key, each in list(self._endpoints.items()):
            report = each.actor.report()
            busy = report.waiting or report.in_flight or report.breaker != "closed"
            if not busy and now - each.used_at > _IDLE:
                del self._endpoints[key]
                task = asyncio.create_task(each.actor.stop(_STOP_WITHIN))
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)
        used = {each.host for each in self._endpoints.values()}
        self._limits = {host: limit for host, limit in self._limits.items() if host in used}


def _host(url: str) -> str:
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
