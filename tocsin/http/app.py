"""The HTTP app: which route is whose; and how it is served until it is stopped, also /metrics on its own listener."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import structlog
import uvicorn
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, ControllerRouterHandler

from tocsin.background import in_background
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.ops.overview import Overviews, keep_counting
from tocsin.engine.store.connection import serve_pools
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
from tocsin.engine.store.installation import (
    ProcessReport,
    ServingProcesses,
    get_secret,
    keep_reporting,
    new_identity,
)
from tocsin.engine.store.replica import Reads, StandbyReads
from tocsin.http import observability, openapi
from tocsin.http.apps import events, mail_events, recipients, targets
from tocsin.http.auth import ACCESS, SCOPE, Authenticator
from tocsin.http.errors import HANDLERS, AnyRequest
from tocsin.http.middleware import (
    COUNT_PATH,
    CrossOrigin,
    LoopbackHosts,
    OptionsMethod,
    QuickCount,
    RateLimiting,
    SecurityHeaders,
    StoppedRequests,
)
from tocsin.http.observability import AccessLog, Metrics, RequestSummary, metrics_without_token
from tocsin.http.offload import Offload
from tocsin.http.ops import ops_api, ops_page
from tocsin.http.pages import assets, html, mail_links
from tocsin.http.people import devices, inbox, notification, preferences, stream
from tocsin.http.people.stream import StreamMiddleware
from tocsin.http.positions import WritePositions
from tocsin.http.protocol import Connections, Limits, protocol_class
from tocsin.http.requests import ApiRequest, PathReader, Services, check_query
from tocsin.settings import Settings, SettingsError

_PEOPLE = frozenset({"person", "reader", "known"})
_BY_KEY = frozenset({"app", "operator"})
_ROUTERS = [
    router
    for module in (
        *(inbox, notification, mail_links, preferences, stream, devices),
        *(events, recipients, mail_events, targets),
        *(observability, assets, html, ops_page, ops_api),
    )
    for router in module.ROUTERS
]
_LARGEST_BODY = 64_000  # bytes; a route that takes more states it


def create_app(
    settings: Settings,
    database: Database,
    hub: BadgeHub,
    *,
    link_key: bytes,
    extra_routes: Sequence[ControllerRouterHandler] = (),
    metrics: Metrics | None = None,
    development_key: str | None = None,
    processes: ServingProcesses | None = None,
    reads: Reads | None = None,
) -> Litestar:
    """Returns the app over an open database and a started hub, which stay their maker's to stop.

    With a `development_key` it also accepts tokens signed with that, and only calls to names of this machine.
    `processes` share the rate limits; this one alone, where there is none.
    """
    metrics = metrics or Metrics()
    reads = reads or Reads(database)
    if reads.uses_standby:
        metrics.replica_reads = reads.served
    links = Links(settings.public_url or "", link_key)
    shared: dict[str, Any] = {
        "services": Services(settings, database, hub, links, ReadinessCheck(database), reads),
        "authenticator": Authenticator(settings, database, development_key),
        "offload": _offload(settings, database),
    }
    provided = shared | {"metrics": metrics, "overviews": Overviews(database, reads)}
    development = development_key is not None
    rate_limiting = RateLimiting(settings, processes or ServingProcesses(), development=development)
    summary = RequestSummary(metrics, "GET", COUNT_PATH.rstrip("/"), 200)
    app = Litestar(
        [*_ROUTERS, Router("/", route_handlers=extra_routes, include_in_schema=False)],
        dependencies={name: _always(value) for name, value in provided.items()},
        exception_handlers=HANDLERS,
        state=State({**shared, "rate_limiting": rate_limiting}, deep_copy=False),
        request_max_body_size=_LARGEST_BODY,
        request_class=ApiRequest,
        before_request=_before_handler,
        openapi_config=openapi.openapi_config(settings.public_url),
        plugins=[openapi.StructSchemas()],
        logging_config=None,
        on_shutdown=[summary.log, shared["offload"].stop],
        debug=False,
    )
    _check_scopes(app)
    for wrapped in _around(app, settings, metrics, summary, development=development):
        app.asgi_handler = wrapped(app.asgi_handler)
    return app


def _offload(settings: Settings, database: Database) -> Offload:
    return Offload(
        settings,
        database.dsn,
        pooler=database.pooler,
        hanging=lambda: database.availability.hanging(),  # noqa: PLW0108 - tests replace the database
    )


async def _before_handler(request: AnyRequest) -> None:
    """Counts a request, whose caller is known by now, and checks its query."""
    request.app.state.rate_limiting.count(request, request.route_handler.opt)
    await check_query(request)


def _around(
    app: Litestar,
    settings: Settings,
    metrics: Metrics,
    summary: RequestSummary,
    *,
    development: bool,
) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """Yields the middleware around Litestar, the innermost first.

    Litestar's own middleware runs after its router. These have to see requests that no route takes, change the path
    before it is routed, or be done before Litestar begins.
    """
    url, services, tokens = settings.public_url, app.state.services, app.state.authenticator.tokens
    if services.reads.uses_standby:
        yield lambda inner: WritePositions(inner, services.reads, url)
    yield OptionsMethod  # OPTIONS of any path, without its guards
    if settings.allowed_origins:
        paths = frozenset(_paths_of_people(app))
        yield lambda inner: CrossOrigin(inner, settings.allowed_origins, paths)  # preflights
    # counts what is not found too, and sets the path that is routed
    yield lambda inner: AccessLog(inner, metrics, PathReader(url))
    yield lambda inner: SecurityHeaders(inner, url)  # also of what is not found
    yield StreamMiddleware  # a stream, after all the above have let go of it
    # the badge, in a fifth of the time that Litestar takes
    yield lambda inner: QuickCount(
        inner,
        services.hub,
        tokens,
        app.state.rate_limiting,
        summary,
        public_url=url,
        origins=settings.allowed_origins,
    )
    yield StoppedRequests
    if development:
        yield LoopbackHosts  # nothing at all for other names


def _paths_of_people(app: Litestar) -> Iterator[str]:
    """Yields the paths of every route that is for people: of no app's, and of no page."""
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else (route.route_handler,)
        if any(each.opt.get(ACCESS) in _PEOPLE for each in handlers):
            yield route.path


def _check_scopes(app: Litestar) -> None:
    """Raises LookupError for a call by a key that no scope is named for."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if handler.opt.get(ACCESS) in _BY_KEY and SCOPE not in handler.opt:
                raise LookupError(
                    f"{route.path} has no scope: use apps_router in tocsin/http/auth.py"
                )


def _always(value: object) -> Provide:
    async def provide() -> Any:
        return value

    return Provide(provide)


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
    processes = ServingProcesses()
    async with _services(settings, processes) as (database, hub, reads):
        metrics = Metrics()
        app = create_app(
            settings,
            database,
            hub,
            link_key=await get_secret(database, LINK_KEY),
            extra_routes=extra_routes,
            metrics=metrics,
            development_key=development_key,
            processes=processes,
            reads=reads,
        )
        server = Server(uvicorn_config(settings, app, metrics.connections, limits), hub, started)
        _collect_less()
        async with metrics_listener(settings.metrics_port, app):
            await server.serve()


@asynccontextmanager
async def _services(
    settings: Settings, processes: ServingProcesses
) -> AsyncIterator[tuple[Database, BadgeHub, Reads]]:
    """Yields an open database, a started hub and where to read; meanwhile this process dispatches and reports."""
    # so that badges move while no worker runs
    from tocsin.engine.dispatch.dispatcher import Dispatcher

    if settings.database_url is None:
        raise ValueError("there is no TOCSIN_DATABASE_URL")
    standby = settings.replica_url
    most, most_to_standby = serve_pools(settings.max_connections, standby=standby is not None)
    database = Database(
        settings.database_url, pooler=settings.pooler_url, max_size=most, primary=True
    )
    await database.open()
    reads = (
        StandbyReads(database, standby, max_size=most_to_standby) if standby else Reads(database)
    )
    await reads.start()
    hub = BadgeHub(
        database,
        avatar_hosts=settings.avatar_hosts,
        on_changed=reads.changed if reads.uses_standby else None,
    )
    await hub.start()
    dispatcher = Dispatcher(
        settings.database_url,
        badge_pushes=settings.badge_pushes,
        on_announced=hub.announced,
        availability=database.availability,
    )

    def report() -> ProcessReport:
        return ProcessReport(leading=dispatcher.leading, streams=hub.open_streams)

    report_and_learn = keep_reporting(database, new_identity("serve"), report, processes.learn)
    try:
        async with in_background(dispatcher.run(), keep_counting(database), report_and_learn):
            yield database, hub, reads
    finally:
        await hub.stop()
        await reads.stop()
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
