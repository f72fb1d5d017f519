"""A listener of its own for /metrics, on loopback: no proxy in front of the service passes anything on to it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from litestar import Litestar

from tocsin.http.errors import HANDLERS
from tocsin.http.loopback_hosts import LoopbackHosts
from tocsin.http.ops.probes import metrics_without_token
from tocsin.http.protocol import Connections, protocol_class
from tocsin.settings import SettingsError

HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """Leaves signals to the service's own server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def metrics_listener(port: int | None, service: Litestar) -> AsyncIterator[None]:
    """Serves the service's /metrics there meanwhile; raises SettingsError where the port can't be had."""
    if port is None:
        yield
        return
    app = Litestar(
        [metrics_without_token],
        dependencies=dict(service.dependencies),
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
    config = uvicorn.Config(
        LoopbackHosts(app),
        http=protocol_class(Connections()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[_bind(port)]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _bind(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be had ({error.strerror})"
        raise SettingsError(
            f"TOCSIN_METRICS_PORT {port} {why}: set it to a port of this process alone, or leave it out"
        ) from None
