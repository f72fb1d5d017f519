"""A relay in front of PostgreSQL, which can be shut, frozen and left."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.services import until

# The row that a new session reads of itself, up to whether the server is a standby.
OWN_SESSION = re.compile(rb"(\0\0\0\x10\d{16}\0\0\0\x01)f")


WAITING = """
    select exists (
        select
        from pg_stat_activity a
        where a.datname = current_database()
            and a.wait_event_type = 'Lock'
            and strpos(a.query, %s) > 0
    )
"""
"""Whether a statement that contains a text waits for a lock."""


class Proxy:
    """A relay in front of the server: shut, it refuses or drops connections; frozen, it passes nothing on."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._target = str(parts["host"]), int(str(parts["port"]))
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self.is_standby = False
        """Whether the server names itself a standby, to new connections."""
        self._abandoned: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._dsn = dsn
        self.accepted = 0
        self.refusal = ""
        """The message with which it refuses connections, as PostgreSQL does; none where empty."""
        self.shuts_after = 0
        """Once it has accepted so many connections, it is shut for a second; never where 0."""

    @property
    def dsn(self) -> str:
        return make_conninfo(self._dsn, host="127.0.0.1", port=self.port)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def is_quiet(self) -> bool:
        """Whether all connections through it have ended."""
        return not self._open

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """As `pg_terminate_backend` of all."""
        for writer in list(self._open):
            writer.transport.abort()

    def freeze(self) -> None:
        self._moving.clear()

    def resume(self) -> None:
        self._moving.set()

    def abandon(self) -> None:
        """Passes nothing on of what is open, and does not close it: as some proxies after a failover."""
        self._abandoned |= self._open

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.accepted == self.shuts_after:
            await self.shut()
            asyncio.get_running_loop().call_later(1.0, lambda: asyncio.ensure_future(self.open()))
            writer.transport.abort()
            return
        if self.refusal:
            await self._refuse(reader, writer)
            return
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._open |= {writer, far_writer}
            try:
                await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
            finally:
                for each in (writer, far_writer):
                    self._open.discard(each)
                    each.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An ErrorResponse to the startup message, after "no" to requests for encryption."""
        while len(request := await reader.read(1024)) == 8:
            writer.write(b"N")
        if request:
            fields = f"SFATAL\0VFATAL\0C58030\0M{self.refusal}\0\0".encode()
            writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            await writer.drain()
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._moving.wait()
                if writer not in self._abandoned:
                    writer.write(OWN_SESSION.sub(rb"\1t", data) if self.is_standby else data)
                    await writer.drain()
            while writer in self._abandoned and not writer.is_closing():
                await asyncio.sleep(0.05)  # the end is not passed on either
        finally:
            writer.transport.abort()


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(dsn)
    await proxy.open()
    yield proxy
    proxy.resume()
    await proxy.shut()
    await until(lambda: proxy.is_quiet)
