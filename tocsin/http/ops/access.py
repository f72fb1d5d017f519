"""Authentication of operators: an API key of the scope `ops`, by itself or exchanged for a session cookie."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler

from tocsin.engine.store.credential import LIFE, Operator, find_api_key, find_session
from tocsin.http.auth import Authenticator, check_scope, read_cookie
from tocsin.http.errors import Forbidden, Unauthorized
from tocsin.http.requests import Services

COOKIE = "tocsin_ops"
PATH = "/ops/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CURE = (
    "Sign in at /ops/, or send a key of the scope ops as Authorization: Bearer tocsin_…; "
    "`tocsin api-key create NAME --scope ops` makes one."
)

Connection = ASGIConnection[Any, Any, Any, Any]


async def operators_only(connection: Connection, _handler: BaseRouteHandler) -> None:
    """Guard: a key with the scope, or a session of one, left as the connection's `auth`."""
    header = connection.headers.get("authorization")
    if header is not None:
        connection.scope["auth"] = await _by_key(connection, header)
        return
    operator = await signed_in(connection)
    if operator is None:
        raise Unauthorized(f"Nobody is signed in. {_CURE}")
    if connection.scope.get("method") not in _SAFE and not _is_own_origin(connection):
        raise Forbidden("A call that changes something must come from this service's own page.")
    connection.scope["auth"] = operator


async def signed_in(connection: Connection) -> Operator | None:
    """Returns the operator of the session cookie, if it is valid."""
    token = read_cookie(connection, COOKIE)
    return await find_session(_services(connection).database, token) if token else None


def is_foreign(connection: Connection) -> bool:
    """Whether the browser names another site as the caller; other clients name none."""
    origins = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    return any(origins) and not _is_own_origin(connection)


def session_cookie(services: Services, token: str | None) -> Cookie:
    """The cookie of a session; None ends it."""
    url = urlsplit(services.settings.public_url or "")
    return Cookie(
        key=COOKIE,
        value=token or "",
        path=f"{url.path.rstrip('/')}{PATH.rstrip('/')}",
        max_age=int(LIFE.total_seconds()) if token else 0,
        secure=url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def _by_key(connection: Connection, header: str) -> Operator:
    scheme, _, key = header.partition(" ")
    found = await find_api_key(_services(connection).database, key.strip())
    if scheme.lower() != "bearer" or found is None or found.revoked_at is not None:
        raise Unauthorized(f"That is no good key of the scope ops. {_CURE}", error="invalid_token")
    check_scope(connection, found)
    return Operator(found.id, found.name)


def _is_own_origin(connection: Connection) -> bool:
    authenticator = cast("Authenticator", _state(connection).authenticator)
    return authenticator.is_own_origin(connection)


def _services(connection: Connection) -> Services:
    return cast("Services", _state(connection).services)


def _state(connection: Connection) -> Any:
    return connection.scope["litestar_app"].state
