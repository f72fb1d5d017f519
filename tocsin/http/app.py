"""The HTTP app: which route is whose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
from tocsin.http import openapi, quick_count
from tocsin.http.access_log import AccessLog, Tally
from tocsin.http.apps import events, recipients
from tocsin.http.auth import SCOPE_OF, Authenticator, anyone_known, apps_only, people_only
from tocsin.http.errors import HANDLERS
from tocsin.http.metrics import Metrics
from tocsin.http.middleware import CrossOrigin, LoopbackHosts, Options, SecurityHeaders
from tocsin.http.offload import Offload
from tocsin.http.ops import ops_routers, probes
from tocsin.http.pages import assets, click_through, settings_page, unsubscribe
from tocsin.http.people import devices, inbox, preferences, stream, subscriptions
from tocsin.http.quick_count import QuickCount
from tocsin.http.requests import PathReader, Services
from tocsin.settings import Settings

_PEOPLE = frozenset({"person", "reader", "known"})
_BY_KEY = frozenset({"app", "operator"})
_LARGEST_BODY = 64_000  # bytes; a route that takes more says so itself


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
    tally = Tally(metrics, "GET", quick_count.PATH.rstrip("/"), 200)
    app = Litestar(
        [*_routers(), *ops_routers(database), *extra_routes],
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
        openapi_config=None,
        logging_config=None,
        on_shutdown=[tally.tell, offload.stop],
        debug=False,
    )
    _check_scopes(app)
    app.state.openapi = openapi.describe(app, settings.public_url)
    # outermost last
    app.asgi_handler = Options(app.asgi_handler)
    if settings.allowed_origins:
        app.asgi_handler = CrossOrigin(
            app.asgi_handler, settings.allowed_origins, _paths_of_people(app)
        )
    app.asgi_handler = AccessLog(app.asgi_handler, metrics, PathReader(settings.public_url))
    app.asgi_handler = SecurityHeaders(app.asgi_handler, settings.public_url)
    app.asgi_handler = QuickCount(
        stream.Follow(app.asgi_handler),
        hub,
        authenticator.tokens,
        tally,
        public_url=settings.public_url,
    )
    if development_key is not None:
        app.asgi_handler = LoopbackHosts(app.asgi_handler)
    return app


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
                unsubscribe.unsubscribe,
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
        if any(each.opt.get(openapi.ACCESS) in _PEOPLE for each in handlers):
            yield route.path


def _check_scopes(app: Litestar) -> None:
    """Raises LookupError for a call by a key that no scope is named for, and for a scope of no call."""
    calls = {
        (str(method), route.path_format.rstrip("/"))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if handler.opt.get(openapi.ACCESS) in _BY_KEY and method not in ("HEAD", "OPTIONS")
    }
    if different := calls ^ SCOPE_OF.keys():
        raise LookupError(f"routes and SCOPE_OF in tocsin/http/auth.py differ: {sorted(different)}")


def _router(access: str, guards: list[Any], handlers: list[ControllerRouterHandler]) -> Router:
    return Router("/", guards=guards, route_handlers=handlers, opt={openapi.ACCESS: access})


def _always(value: object) -> Provide:
    async def provide() -> Any:
        return value

    return Provide(provide)
