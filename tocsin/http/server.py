"""Runs the HTTP app until it is stopped, and /metrics on a listener of its own."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import structlog
import uvicorn
from litestar import Litestar
from litestar.types import ControllerRouterHandler

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.ops.overview import keep_counting
from tocsin.engine.store.database import Database
from tocsin.engine.store.installation import ProcessReport, get_secret, keep_reporting, new_identity
from tocsin.http.app import create_app
from tocsin.http.errors import HANDLERS
from tocsin.http.middleware import LoopbackHosts
from tocsin.http.observability import Metrics, metrics_without_token
from tocsin.http.protocol import Connections, Limits, protocol_class
from tocsin.settings import Settings, SettingsError

log = structlog.get_logger("tocsin.http")

_GRACE = 3  # seconds for requests under way
_QUIET: dict[str, Any] = {
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
}
LINK_KEY = "link_key"


class Server(uvicorn.Server):
    """uvicorn, but the streams end before it waits for them: it would wait for as long as they are read."""

    def __init__(
        self, config: uvicorn.Config, hub: BadgeHub, started: asyncio.Event | None = None
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does, and then sets the event that uvicorn lacks."""
        await super().startup(sockets)
        log.info("listening", host=self.config.host, port=self.config.port)
        if self._started is not None:
            self._started.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stops at a signal, and at once at a second Ctrl-C. uvicorn's own would raise it again after a clean stop."""
        self._hub.close_streams()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def serve(
    settings: Settings,
    *,
    extra_routes: Sequence[ControllerRouterHandler] = (),
    development_key: str | None = None,
    started: asyncio.Event | None = None,
    limits: Limits | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; raises Unavailable without a database, SystemExit without the port."""
    async with _services(settings) as (database, hub):
        metrics = Metrics()
        app = create_app(
            settings,
            database,
            hub,
            link_key=await get_secret(database, LINK_KEY),
            extra_routes=extra_routes,
            metrics=metrics,
            development_key=development_key,
        )
        server = Server(uvicorn_config(settings, app, metrics.connections, limits), hub, started)
        _collect_less()
        async with metrics_listener(settings.metrics_port, app):
            await server.serve()


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[tuple[Database, BadgeHub]]:
    """Yields an open database and a started hub; meanwhile the dispatcher and the reports of this process run."""
    # so that badges move while no worker runs
    from tocsin.engine.dispatch.dispatcher import Dispatcher

    if settings.database_url is None:
        raise ValueError("there is no TOCSIN_DATABASE_URL")
    database = Database(settings.database_url)
    await database.open()
    hub = BadgeHub(database, avatar_hosts=settings.avatar_hosts)
    await hub.start()
    dispatcher = Dispatcher(
        settings.database_url,
        badge_pushes=settings.badge_pushes,
        on_announced=hub.announced,
        availability=database.availability,
    )

    def report() -> ProcessReport:
        return ProcessReport(leading=dispatcher.leading, streams=hub.open_streams)

    tasks = [
        asyncio.create_task(dispatcher.run(), name="dispatcher"),
        asyncio.create_task(keep_counting(database), name="minutes"),
        asyncio.create_task(keep_reporting(database, new_identity("serve"), report), name="report"),
    ]
    try:
        yield database, hub
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hub.stop()
        await database.close()


def _collect_less() -> None:
    """Leaves what there is by now out of garbage collections: a full one would hold the event loop for 50 ms."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()  # `tocsin serve` starts without


def uvicorn_config(
    settings: Settings,
    app: object,
    connections: Connections | None = None,
    limits: Limits | None = None,
) -> uvicorn.Config:
    """Returns how this app is served; benchmarks serve their floors the same way."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=protocol_class(connections or Connections(), limits),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        date_header=True,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=75,
        **_QUIET,
    )


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
        lifespan="off",
        timeout_graceful_shutdown=1,
        **_QUIET,
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
