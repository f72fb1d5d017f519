"""The HTTP app: which route is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, ControllerRouterHandler

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.ops.overview import Overviews
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
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
    SecurityHeaders,
)
from tocsin.http.observability import AccessLog, Metrics, RequestSummary
from tocsin.http.offload import Offload
from tocsin.http.ops import ops_api, ops_page
from tocsin.http.pages import assets, html, mail_links
from tocsin.http.people import devices, inbox, preferences, stream
from tocsin.http.people.stream import StreamMiddleware
from tocsin.http.rate_limits import RateLimiting
from tocsin.http.requests import ApiRequest, PathReader, Services, check_query
from tocsin.settings import Settings

_PEOPLE = frozenset({"person", "reader", "known"})
_BY_KEY = frozenset({"app", "operator"})
_ROUTERS = [
    router
    for module in (
        *(inbox, mail_links, preferences, stream, devices),
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
) -> Litestar:
    """Returns the app over an open database and a started hub, which stay their maker's to stop.

    With a `development_key` it also accepts tokens signed with that, and only calls to names of this machine.
    """
    metrics = metrics or Metrics()
    offload = Offload(settings, database.dsn)
    links = Links(settings.public_url or "", link_key)
    shared = {
        "services": Services(settings, database, hub, links, ReadinessCheck(database)),
        "authenticator": Authenticator(settings, database, development_key),
        "offload": offload,
    }
    provided = shared | {"metrics": metrics, "overviews": Overviews(database)}
    rate_limiting = RateLimiting(settings, development=development_key is not None)
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
        on_shutdown=[summary.log, offload.stop],
        debug=False,
    )
    _check_scopes(app)
    for wrapped in _around(app, settings, metrics, summary):
        app.asgi_handler = wrapped(app.asgi_handler)
    if development_key is not None:
        app.asgi_handler = LoopbackHosts(app.asgi_handler)  # nothing at all for other names
    return app


async def _before_handler(request: AnyRequest) -> None:
    """Counts a request, whose caller is known by now, and checks its query."""
    request.app.state.rate_limiting.count(request, request.route_handler.opt)
    await check_query(request)


def _around(
    app: Litestar, settings: Settings, metrics: Metrics, summary: RequestSummary
) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """Yields the middleware around Litestar, the innermost first.

    Litestar's own middleware runs after its router. These have to see requests that no route takes, change the path
    before it is routed, or be done before Litestar begins.
    """
    url, services, tokens = settings.public_url, app.state.services, app.state.authenticator.tokens
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
