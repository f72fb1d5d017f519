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
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
from tocsin.http import openapi, quick_count
from tocsin.http.access_log import AccessLog, RequestSummary
from tocsin.http.apps import events, recipients
from tocsin.http.auth import ACCESS, SCOPE_OF, Authenticator, anyone_known, apps_only, people_only
from tocsin.http.errors import HANDLERS
from tocsin.http.metrics import Metrics
from tocsin.http.middleware import CrossOrigin, LoopbackHosts, Options, SecurityHeaders
from tocsin.http.offload import Offload
from tocsin.http.ops import ops_routers, probes
from tocsin.http.pages import assets, click_through, settings_page, unsubscribe
from tocsin.http.people import devices, inbox, preferences, stream, subscriptions
from tocsin.http.people.stream import StreamMiddleware
from tocsin.http.quick_count import QuickCount
from tocsin.http.requests import ApiRequest, PathReader, Services, check_query
from tocsin.settings import Settings

_PEOPLE = frozenset({"person", "reader", "known"})
_BY_KEY = frozenset({"app", "operator"})
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
    """The app over an open database and a started hub, which stay their maker's to stop.

    With a `development_key` it also accepts tokens signed with that, and only calls to names of this machine.
    """
    links = Links(settings.public_url or "", link_key)
    services = Services(settings, database, hub, links, ReadinessCheck(database))
    authenticator = Authenticator(settings, database, development_key)
    metrics = metrics or Metrics()
    offload = Offload(settings, database.dsn)
    summary = RequestSummary(metrics, "GET", quick_count.PATH.rstrip("/"), 200)
    app = Litestar(
        [*_routers(), *ops_routers(database), _undescribed(extra_routes)],
        dependencies={
            "services": _always(services),
            "authenticator": _always(authenticator),
            "metrics": _always(metrics),
            "offload": _always(offload),
        },
        exception_handlers=HANDLERS,
        state=State(
            {"services": services, "authenticator": authenticator, "offload": offload},
            deep_copy=False,
        ),
        request_max_body_size=_LARGEST_BODY,
        request_class=ApiRequest,
        before_request=check_query,
        openapi_config=openapi.openapi_config(settings.public_url),
        plugins=[openapi.StructSchemas()],
        logging_config=None,
        on_shutdown=[summary.log, offload.stop],
        debug=False,
    )
    _check_scopes(app)
    around = _around(
        app,
        settings,
        metrics,
        lambda inner: QuickCount(
            inner, hub, authenticator.tokens, summary, public_url=settings.public_url
        ),
        on_loopback_only=development_key is not None,
    )
    for wrapped in around:
        app.asgi_handler = wrapped(app.asgi_handler)
    return app


def _around(
    app: Litestar,
    settings: Settings,
    metrics: Metrics,
    quick_count: Callable[[ASGIApp], ASGIApp],
    *,
    on_loopback_only: bool,
) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """What is around Litestar, the innermost first.

    Litestar's own middleware runs after its router. These have to see requests that no route takes, change the path
    before it is routed, or be done before Litestar begins.
    """
    yield Options  # OPTIONS of any path, without its guards
    if settings.allowed_origins:
        paths = frozenset(_paths_of_people(app))
        yield lambda inner: CrossOrigin(inner, settings.allowed_origins, paths)  # preflights
    # counts what is not found too, and sets the path that is routed
    yield lambda inner: AccessLog(inner, metrics, PathReader(settings.public_url))
    yield lambda inner: SecurityHeaders(inner, settings.public_url)  # also of what is not found
    yield StreamMiddleware  # a stream, after all the above have let go of it
    yield quick_count  # the badge, in a fifth of the time that Litestar takes
    if on_loopback_only:
        yield LoopbackHosts  # nothing at all for other names


def _routers() -> list[Router]:
    return [
        _router(
            "person",
            [people_only],
            [
                inbox.list_notifications,
                inbox.get_notification,
                inbox.mark_read,
                inbox.archive,
                inbox.mark_all_read,
                inbox.undo_mark_all_read,
                inbox.unread_count,
                inbox.unread_by_category,
                inbox.why,
                inbox.me,
                click_through.open_notification,
                preferences.get_preferences,
                preferences.change_preferences,
                preferences.get_digest_preferences,
                preferences.change_digest_preferences,
                preferences.get_quiet_hours,
                preferences.set_quiet_hours,
                stream.stream_ticket,
                devices.list_push_tokens,
                devices.register_push_token,
                devices.remove_push_token,
                devices.unregister_push_token,
                subscriptions.list_subscriptions,
                subscriptions.subscribe,
                subscriptions.unsubscribe,
            ],
        ),
        _router("reader", [stream.readers_only], [stream.stream]),
        _router(
            "app",
            [apps_only],
            [
                events.post_event,
                events.list_events,
                events.get_event,
                events.cancel_event,
                recipients.put_recipient,
                recipients.get_recipient,
                recipients.erase_recipient,
                recipients.erase_address,
                recipients.export_recipient,
                recipients.claim_email,
            ],
        ),
        _router("known", [anyone_known], [preferences.event_types]),
        _router(
            "everyone",
            [],
            [
                unsubscribe.unsubscribe_page,
                unsubscribe.turn_emails_off,
                click_through.click_through,
                probes.healthz,
                probes.readyz,
                probes.metrics,
                assets.list_assets,
                assets.asset,
                assets.versioned_asset,
                settings_page.settings_page,
                openapi.schema_page,
                openapi.schema_json,
            ],
        ),
    ]


def _paths_of_people(app: Litestar) -> Iterator[str]:
    """The paths of every route that is for people: of no app's, and of no page."""
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else (route.route_handler,)
        if any(each.opt.get(ACCESS) in _PEOPLE for each in handlers):
            yield route.path


def _check_scopes(app: Litestar) -> None:
    """Raises LookupError for a call by a key that no scope is named for, and for a scope of no call."""
    calls = {
        (str(method), route.path_format.rstrip("/"))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if handler.opt.get(ACCESS) in _BY_KEY and method not in ("HEAD", "OPTIONS")
    }
    if different := calls ^ SCOPE_OF.keys():
        raise LookupError(f"routes and SCOPE_OF in tocsin/http/auth.py differ: {sorted(different)}")


def _router(access: str, guards: list[Any], handlers: list[ControllerRouterHandler]) -> Router:
    return Router("/", guards=guards, route_handlers=handlers, opt={ACCESS: access})


def _undescribed(handlers: Sequence[ControllerRouterHandler]) -> Router:
    return Router("/", route_handlers=handlers, include_in_schema=False)


def _always(value: object) -> Provide:
    async def provide() -> Any:
        return value

    return Provide(provide)
