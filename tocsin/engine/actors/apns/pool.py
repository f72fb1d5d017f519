"""A few connections to APNs that many senders share; a sender has a stream promised before its presend check."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from msgspec import Struct

from tocsin.engine.actors.apns.connection import ApnsConnection

_GOODBYE = 1.0  # seconds for a polite end


class ConnectError(Exception):
    """No connection can be had; the first argument is the reason, a stable word."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where APNs is, and how patient we are: `connect` seconds until it greets, `quiet` until it is asked."""

    url: str
    tls: ssl.SSLContext
    connect: float = 10.0
    quiet: float = 15.0


class Lease:
    """One stream on a connection, promised until it is released."""

    def __init__(self, connection: ApnsConnection) -> None:
        connection.held += 1
        self.connection = connection
        self._held = True

    @property
    def good(self) -> bool:
        """Whether a request may still be sent on it."""
        return self._held and self.connection.usable

    def release(self) -> None:
        """Gives the stream back; any number of times."""
        if self._held:
            self._held = False
            self.connection.held -= 1
            self.connection.changed()


class ApnsPool:
    """Opens connections as they are needed, one after the other and at most `most`."""

    def __init__(self, endpoint: Endpoint, *, most: int = 2) -> None:
        self._endpoint = endpoint
        self._most = most
        self._connections: list[ApnsConnection] = []
        self._opening: asyncio.Task[None] | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def lease(self) -> Lease:
        """Waits for a stream; raises ConnectError where there is no connection and none can be made."""
        while True:
            for connection in self._connections:
                if connection.room > 0:
                    return Lease(connection)
            if self._may_open:
                self._opening = asyncio.create_task(self._open())
            await self._turn()

    async def close(self) -> None:
        """Closes all connections; what is in flight is lost."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([each.gone for each in connections], timeout=_GOODBYE)
        for connection in connections:
            connection.abort("shutdown")

    @property
    def _may_open(self) -> bool:
        living = sum(not each.closing for each in self._connections)
        return self._opening is None and living < self._most

    async def _turn(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self._changed()  # its turn came with its end: the next one's
            raise

    async def _open(self) -> None:
        """Opens one in a task of its own, so that who asked first may give up without harm."""
        error: ConnectError | None = None
        try:
            connection = await connect(self._endpoint, self._changed)
            self._connections.append(connection)
        except ConnectError as refused:
            error = refused
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
        """Wakes as many as may find a stream, or one that may open a connection."""
        self._connections = [each for each in self._connections if not each.gone.done()]
        room = sum(each.room for each in self._connections if each.room > 0)
        wake = max(room, 1 if self._may_open else 0)
        while wake > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wake -= 1


async def connect(endpoint: Endpoint, changed: Callable[[], None]) -> ApnsConnection:
    """Connects and waits for the server's greeting; raises ConnectError."""
    address = urlsplit(endpoint.url)
    host, port = address.hostname or "", address.port or 443
    made: list[ApnsConnection] = []

    def make() -> ApnsConnection:
        made.append(ApnsConnection(address.netloc, changed=changed, quiet=endpoint.quiet))
        return made[0]

    greeted = False
    try:
        async with asyncio.timeout(endpoint.connect):
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(make, host, port, ssl=endpoint.tls)
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise ConnectError("apns_no_http2")
            await connection.ready
            if connection.closing:
                raise ConnectionResetError("closed before it greeted")
        greeted = True
    except OSError as error:  # a TimeoutError too
        raise ConnectError(f"apns_{_why(error)}") from error
    finally:
        if made and not greeted:
            made[0].abort("not_greeted")
    return connection


def _why(error: OSError) -> str:
    """A stable word for a failure to connect."""
    words: tuple[tuple[type[OSError], str], ...] = (
        (ssl.SSLError, "tls_failed"),
        (socket.gaierror, "host_unknown"),
        (TimeoutError, "timeout_connect"),
        (ConnectionRefusedError, "connect_refused"),
        (ConnectionError, "disconnected_connect"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "connect_failed")
