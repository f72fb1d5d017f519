"""A few connections to APNs that many senders share; each sender reserves a stream before its presend check."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from msgspec import Struct

from tocsin.engine.actors.apns.connection import ApnsConnection
from tocsin.engine.actors.machinery.envelope import network_failure

_CLOSE_TIMEOUT = 1.0  # seconds for an orderly close


class ConnectError(Exception):
    """There is no connection; the first argument is the reason, a stable word."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """The URL of APNs, and timeouts: `connect` seconds until its settings came, `quiet` until a ping is sent."""

    url: str
    tls: ssl.SSLContext
    connect: float = 10.0
    quiet: float = 15.0


class StreamSlot:
    """One stream on a connection, reserved until it is released."""

    def __init__(self, connection: ApnsConnection) -> None:
        connection.reserved += 1
        self.connection = connection
        self._reserved = True

    @property
    def usable(self) -> bool:
        """Whether a request may still be sent on it."""
        return self._reserved and self.connection.usable

    def release(self) -> None:
        """Releases the stream; may be called several times."""
        if self._reserved:
            self._reserved = False
            self.connection.reserved -= 1
            self.connection.changed()


class ApnsPool:
    """Opens connections when they are needed, one at a time and at most `most`."""

    def __init__(self, endpoint: Endpoint, *, most: int = 2) -> None:
        self._endpoint = endpoint
        self._most = most
        self._connections: list[ApnsConnection] = []
        self._opening: asyncio.Task[None] | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> StreamSlot:
        """Waits for a stream; raises ConnectError if there is no connection and none can be opened."""
        while True:
            for connection in self._connections:
                if connection.free_streams > 0:
                    return StreamSlot(connection)
            if self._may_open:
                self._opening = asyncio.create_task(self._open())
            await self._wait()

    async def close(self) -> None:
        """Closes all connections; requests in flight are lost."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([each.closed for each in connections], timeout=_CLOSE_TIMEOUT)
        for connection in connections:
            connection.abort("shutdown")

    @property
    def _may_open(self) -> bool:
        open_ones = sum(not each.closing for each in self._connections)
        return self._opening is None and open_ones < self._most

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self._changed()  # it was woken and cancelled at once: wakes the next one
            raise

    async def _open(self) -> None:
        """Opens a connection, in its own task: the sender that asked for it may be cancelled meanwhile."""
        error: ConnectError | None = None
        try:
            connection = await connect(self._endpoint, self._changed)
            self._connections.append(connection)
        except ConnectError as failure:
            error = failure
        finally:
            self._opening = None
        if error is None:
            self._changed()
        elif not any(not each.closing for each in self._connections):
            self._fail(error)

    def _fail(self, error: ConnectError) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ConnectError(*error.args))

    def _changed(self) -> None:
        """Wakes as many senders as there are free streams, or one that may open a connection."""
        self._connections = [each for each in self._connections if not each.closed.done()]
        free = sum(each.free_streams for each in self._connections if each.free_streams > 0)
        wake = max(free, 1 if self._may_open else 0)
        while wake > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wake -= 1


async def connect(endpoint: Endpoint, changed: Callable[[], None]) -> ApnsConnection:
    """Connects and waits for the server's settings; raises ConnectError."""
    address = urlsplit(endpoint.url)
    host, port = address.hostname or "", address.port or 443
    made: list[ApnsConnection] = []

    def make() -> ApnsConnection:
        made.append(ApnsConnection(address.netloc, changed=changed, quiet=endpoint.quiet))
        return made[0]

    established = False
    try:
        async with asyncio.timeout(endpoint.connect):
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(make, host, port, ssl=endpoint.tls)
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise ConnectError("apns_no_http2")
            await connection.ready
            if connection.closing:
                raise ConnectionResetError("closed before its settings came")
        established = True
    except OSError as error:  # a TimeoutError too
        raise ConnectError(f"apns_{network_failure(error)}") from error
    finally:
        if made and not established:
            made[0].abort("not_greeted")
    return connection
