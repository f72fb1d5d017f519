"""Authentication and authorisation: people by the host app's JWT, apps by an API key and its scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.types import ControllerRouterHandler, Guard, Scope
from msgspec import Struct

from tocsin.engine.store.credential import (
    APP_SCOPES,
    EVENTS_WRITE,
    MAIL_EVENTS,
    PREFIX,
    ApiKey,
    covers,
    find_api_key,
)
from tocsin.engine.store.database import Database
from tocsin.http.errors import Forbidden, Unauthorized
from tocsin.http.tokens import Token, TokenVerifier
from tocsin.settings import Settings
from tocsin.settings.addresses import origin_of

COOKIE = "tocsin_token"
ACCESS = "access"  # in the opt of a router or handler: for whom the call is, a key of `security` in openapi.toml
RATE = "rate"  # in a handler's opt: the limit that counts its calls, None for one that has no limit
SCOPE = "scope"  # in the same opt: what a key needs for the call
_CATALOGUE = frozenset({*APP_SCOPES, MAIL_EVENTS})  # each of them reads the event types
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PEOPLE = "Send the app's JWT as Authorization: Bearer <token>"
_APPS = "Send an API key as Authorization: Bearer tocsin_…; `tocsin api-key create NAME` makes one"

HttpConnection = ASGIConnection[Any, Any, Any, Any]


class Person(Struct, frozen=True):
    """A person that is signed in."""

    recipient_id: str
    expires_at: float
    by_cookie: bool = False


class App(Struct, frozen=True):
    """A program with a key."""

    api_key_id: int
    event_types: Sequence[str] | None = (
        None  # patterns of those that it may write and read; None: all
    )

    @property
    def caller(self) -> str:
        """As events keep it."""
        return f"key:{self.api_key_id}"

    def check_event_type(self, event_type: str) -> None:
        """Raises Forbidden for a type that the key is not for."""
        if not covers(self.event_types, event_type):
            allowed = ", ".join(self.event_types or ())
            raise Forbidden(f"The key is for event types like {allowed} only.")


PersonRequest = Request[Any, Person, State]
AppRequest = Request[Any, App, State]


async def people_only(connection: HttpConnection, _handler: BaseRouteHandler) -> None:
    """Guard: a person with a token, left as the connection's `auth`."""
    caller = await _authenticator(connection).identify(connection, _PEOPLE)
    if isinstance(caller, ApiKey):
        raise Forbidden("This call is for people: an API key has no inbox. " + _PEOPLE + ".")
    connection.scope["auth"] = caller


async def apps_only(connection: HttpConnection, handler: BaseRouteHandler) -> None:
    """Guard: an app with a key of the scope that the call needs."""
    caller = await _authenticator(connection).identify(connection, _APPS)
    if isinstance(caller, Person):
        raise Forbidden("This call is for apps. " + _APPS + ".")
    check_scope(handler, caller)
    connection.scope["auth"] = App(caller.id, caller.event_types)


async def anyone_known(connection: HttpConnection, _handler: BaseRouteHandler) -> None:
    """Guard: a person, or an app with any key but an operator's."""
    caller = await _authenticator(connection).identify(connection, _PEOPLE)
    if isinstance(caller, ApiKey):
        if _CATALOGUE.isdisjoint(caller.scopes):
            raise Forbidden(_missing("of an app, such as " + EVENTS_WRITE, EVENTS_WRITE))
        connection.scope["auth"] = App(caller.id, caller.event_types)
    else:
        connection.scope["auth"] = caller


def check_scope(handler: BaseRouteHandler, key: ApiKey) -> None:
    """Raises Forbidden with the scope that the call needs and the key lacks."""
    needed: str = handler.opt[SCOPE]
    if needed not in key.scopes:
        raise Forbidden(_missing(needed, needed))


def _missing(what: str, scope: str) -> str:
    return (
        f"This call needs a key with the scope {what}, which this key lacks: "
        f"`tocsin api-key create NAME --scope {scope}` makes one."
    )


def people_router(tag: str, *handlers: ControllerRouterHandler) -> Router:
    """Calls for a person with a token."""
    return router(tag, "person", *handlers, guards=[people_only])


def apps_router(tag: str, scope: str, *handlers: ControllerRouterHandler) -> Router:
    """Calls for an app with a key of that scope."""
    return router(tag, "app", *handlers, guards=[apps_only], scope=scope)


def router(
    tag: str,
    access: str,
    *handlers: ControllerRouterHandler,
    guards: Sequence[Guard] = (),
    scope: str | None = None,
) -> Router:
    """Calls of one kind of caller, below one heading of the description."""
    opt = {ACCESS: access} | ({SCOPE: scope} if scope else {})
    return Router("/", route_handlers=handlers, guards=guards, tags=[tag], opt=opt)


class Authenticator:
    """Identifies the caller; one per app, as `state.authenticator`."""

    def __init__(
        self, settings: Settings, database: Database, development_key: str | None = None
    ) -> None:
        self._database = database
        self.tokens = TokenVerifier(settings, development_key)
        self._origin = origin_of(settings.public_url) if settings.public_url else None

    async def identify(self, connection: HttpConnection, cure: str) -> Person | ApiKey:
        """Returns the caller that the credentials name; raises Unauthorized with the cure, or Forbidden."""
        credentials = _bearer(connection)
        if credentials is None:
            return await self._by_cookie(connection, cure)
        if credentials.startswith(PREFIX):
            return await self._by_key(credentials)
        return _person(await self.tokens.verify(credentials))

    async def _by_key(self, key: str) -> ApiKey:
        found = await find_api_key(self._database, key)
        if found is None or found.revoked_at is not None:
            raise Unauthorized(
                "The API key is not known, or was revoked: `tocsin api-key list` shows those that are live.",
                error="invalid_token",
            )
        return found

    async def _by_cookie(self, connection: HttpConnection, cure: str) -> Person:
        cookie = read_cookie(connection.scope, COOKIE)
        if not cookie:
            raise Unauthorized(f"There are no credentials. {cure}.")
        person = _person(await self.tokens.verify(cookie), by_cookie=True)
        if connection.scope.get("method") not in _SAFE and not self.is_own_origin(connection):
            raise Forbidden(
                "With the cookie, a call that changes something must come from this service's own pages. "
                + _PEOPLE
                + "."
            )
        return person

    def is_own_origin(self, connection: HttpConnection) -> bool:
        """Returns whether a page of this service made the call; False where the browser does not state it."""
        site = connection.headers.get("sec-fetch-site")
        if site is not None:  # a page can't set it
            return site == "same-origin"
        origin = connection.headers.get("origin")
        if origin is None:
            return False
        if self._origin is not None:
            return origin == self._origin
        return urlsplit(origin).netloc == connection.headers.get("host")

    def is_foreign(self, connection: HttpConnection) -> bool:
        """Returns whether the browser names another site as the caller; other clients name none."""
        site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
        return site != "none" and bool(site or origin) and not self.is_own_origin(connection)


def read_cookie(scope: Scope, name: str) -> str:
    """Returns the value of a cookie as it came, or an empty text.

    Litestar reads all of them by `http.cookies`, whose time grows with the square of a quoted value's length.
    """
    for header, value in scope["headers"]:
        if header == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, content = part.partition("=")
                if key.strip() == name:
                    return content.strip().strip('"')
    return ""


def _authenticator(connection: HttpConnection) -> Authenticator:
    # guards are plain functions: Litestar copies routers deeply, and a bound method's object with them
    found: Authenticator = connection.scope["litestar_app"].state.authenticator
    return found


def _bearer(connection: HttpConnection) -> str | None:
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise Unauthorized(
            "The Authorization header is not Bearer <token>.", error="invalid_request"
        )
    return credentials.strip()


def _person(token: Token, *, by_cookie: bool = False) -> Person:
    return Person(token.recipient_id, token.expires_at, by_cookie)
