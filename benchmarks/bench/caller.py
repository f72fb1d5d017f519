"""A person's calls over one HTTP connection that stays open; a minimal client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from bench.service import token

HOST = "127.0.0.1"


class Caller:
    """One connection; reconnects if it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._tokens: dict[str, str] = {}

    async def ask(
        self, person: str, method: str, path: str, body: object = None
    ) -> tuple[int, Any]:
        """Returns status and JSON; raises OSError or EOFError if the connection breaks."""
        reader, writer = self._streams = self._streams or await asyncio.open_connection(
            HOST, self._port
        )
        text = b"" if body is None else json.dumps(body).encode()
        writer.write(self._head(person, method, path, len(text)) + text)
        try:
            status, length = await _read_head(reader)
            content = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        return status, json.loads(content) if content else None

    async def follow(self, person: str, last: bytes = b"") -> AsyncIterator[bytes]:
        """Yields the lines of a person's stream."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            path = "/api/notifications/stream/"
            writer.write(
                self._head(person, "GET", path, 0, b"Last-Event-ID: %b\r\n" % last if last else b"")
            )
            while (await reader.readline()).strip():
                pass
            while line := await reader.readline():
                yield line.strip()
        finally:
            writer.close()

    def close(self) -> None:
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].close()
        self._streams = None

    def _head(self, person: str, method: str, path: str, length: int, more: bytes = b"") -> bytes:
        if person not in self._tokens:
            self._tokens[person] = token(person)
        return (
            (
                f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n"
                f"Authorization: Bearer {self._tokens[person]}\r\nContent-Length: {length}\r\n"
            ).encode()
            + more
            + b"\r\n"
        )


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and length of the body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return int(head[9:12]), length
