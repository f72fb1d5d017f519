"""The subprocess that `offload.py` starts: it runs the operations of large requests, and sends their responses."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from litestar import Response

from tocsin.engine.store.database import Database
from tocsin.http.apps.events import create_encoded_event
from tocsin.http.apps.recipients import export
from tocsin.http.errors import response_to
from tocsin.http.offload import CONCURRENT, Call, Result, Setup, read_frame, write_frame
from tocsin.logs import configure_logs
from tocsin.settings import Settings

Operation = Callable[[Database, Mapping[str, Any], bytes], Awaitable[Response[Any]]]

_LESS_URGENT = 5  # than the process that serves all the other requests
_OPERATIONS: Mapping[str, Operation] = {
    "create_event": create_encoded_event,
    "export_recipient": export,
}


def serve(descriptor: int) -> None:
    """Runs calls from this socket until its other side closes."""
    os.nice(_LESS_URGENT)
    try:
        asyncio.run(_serve(descriptor))
    except (asyncio.IncompleteReadError, ConnectionError, KeyboardInterrupt):
        os._exit(0)  # the calls under way have no receiver any more


async def _serve(descriptor: int) -> None:
    """Runs calls at the same time, as many as come; ends with the other side."""
    connection = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=connection)
    _, encoded, _ = await read_frame(reader)
    setup = msgspec.msgpack.decode(encoded, type=Setup)
    configure_logs(Settings(log_format=setup.log_format, log_level=setup.log_level))  # type: ignore[arg-type]
    database = _LazyDatabase(setup.database_url, setup.pooler_url)
    calls = set()
    while True:
        number, encoded, body = await read_frame(reader)
        call = msgspec.msgpack.decode(encoded, type=Call)
        running = asyncio.create_task(_run(database, call, body, number, writer))
        calls.add(running)
        running.add_done_callback(calls.discard)


class _LazyDatabase:
    """The database, opened with the first call."""

    def __init__(self, dsn: str, pooler: str | None) -> None:
        self._database = Database(dsn, pooler=pooler, max_size=CONCURRENT)
        self._opening = asyncio.Lock()
        self._is_open = False

    async def opened(self) -> Database:
        """Raises Unavailable."""
        async with self._opening:
            if not self._is_open:
                await self._database.open()
                self._is_open = True
        return self._database


async def _run(
    pool: _LazyDatabase, call: Call, body: bytes, number: int, writer: asyncio.StreamWriter
) -> None:
    """Runs one call, and sends its response."""
    try:
        response = await _OPERATIONS[call.operation](await pool.opened(), call.arguments, body)
    except Exception as error:  # noqa: BLE001 - each has its response, as in the other process
        response = response_to(error, call.operation)
    kind = str(response.media_type or "application/json")
    result = Result(response.status_code or 200, kind, dict(response.headers))
    write_frame(writer, number, result, [response.render(response.content, kind)])
    await writer.drain()
