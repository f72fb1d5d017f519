"""The operations page: signing in with a key of the scope `ops`, its guard, the page and its data."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, cast
from urllib.parse import parse_qs, quote, urlsplit

from litestar import Response, Router, delete, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from tocsin.engine.model import Unavailable
from tocsin.engine.ops.overview import Overview, Overviews
from tocsin.engine.store import credential
from tocsin.engine.store.credential import Operator
from tocsin.http.auth import (
    ACCESS,
    RATE,
    SCOPE,
    Authenticator,
    HttpConnection,
    check_scope,
    read_cookie,
    router,
)
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.observability import QUIET
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.pages.assets import asset_path
from tocsin.http.pages.html import SCRIPTS, Pages
from tocsin.http.requests import Services, decode

COOKIE = "tocsin_ops"
PATH = "/ops/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SIGN_IN = (
    "Sign in at /ops/, or send a key of the scope ops as Authorization: Bearer tocsin_…; "
    "`tocsin api-key create NAME --scope ops` makes one."
)
_PAGES = Pages(
    "tocsin.http.ops",
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    f"frame-ancestors 'none'{SCRIPTS}",
)


def ops_router(*handlers: ControllerRouterHandler) -> Router:
    """Calls for operators."""
    return router(
        "Operations", "operator", *handlers, guards=[operators_only], scope=credential.OPS
    )


async def operators_only(connection: HttpConnection, handler: BaseRouteHandler) -> None:
    """Guard: a key with the scope, or a session of one, left as the connection's `auth`."""
    header = connection.headers.get("authorization")
    if header is not None:
        connection.scope["auth"] = await _by_key(connection, handler, header)
        return
    operator = await signed_in(connection)
    if operator is None:
        raise Unauthorized(f"Nobody is signed in. {_SIGN_IN}")
    if connection.scope.get("method") not in _SAFE and not _authenticator(connection).is_own_origin(
        connection
    ):
        raise Forbidden("A call that changes something must come from this service's own page.")
    connection.scope["auth"] = operator


async def signed_in(connection: HttpConnection) -> Operator | None:
    """Returns the operator of the session cookie, if it is valid."""
    token = read_cookie(connection.scope, COOKIE)
    return await credential.find_session(_services(connection).database, token) if token else None


def session_cookie(services: Services, token: str | None) -> Cookie:
    """Returns the cookie of a session; None ends it."""
    url = urlsplit(services.settings.public_url or "")
    return Cookie(
        key=COOKIE,
        value=token or "",
        path=f"{url.path.rstrip('/')}{PATH.rstrip('/')}",
        max_age=int(credential.LIFE.total_seconds()) if token else 0,
        secure=url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def _by_key(connection: HttpConnection, handler: BaseRouteHandler, header: str) -> Operator:
    scheme, _, key = header.partition(" ")
    found = await credential.find_api_key(_services(connection).database, key.strip())
    if scheme.lower() != "bearer" or found is None or found.revoked_at is not None:
        raise Unauthorized(
            f"That is no good key of the scope ops. {_SIGN_IN}", error="invalid_token"
        )
    check_scope(handler, found)
    return Operator(found.id, found.name)


def _authenticator(connection: HttpConnection) -> Authenticator:
    return cast("Authenticator", connection.scope["litestar_app"].state.authenticator)


def _services(connection: HttpConnection) -> Services:
    return cast("Services", connection.scope["litestar_app"].state.services)


@get(
    PATH,
    media_type="text/html",
    responses={
        308: OtherResponse(
            "To the address with its last slash.", headers={"Location": "That address."}
        ),
        503: OtherResponse(
            "The database does not respond: a page that explains it.", media_type="text/html"
        ),
    },
)
async def ops_page(request: AnyRequest, services: NamedDependency[Services]) -> Response[str]:
    """The operations page.

    Without a session, it asks for a key.
    """
    if not request.scope["raw_path"].split(b"?")[0].endswith(b"/"):
        # all its addresses are relative, so that it works behind any prefix
        return Response("", status_code=308, media_type="text/plain", headers={"Location": "ops/"})
    try:
        operator = await signed_in(request)
    except Unavailable:
        # this is the page that is opened during an outage
        return _page("away.html", 503)
    if operator is None:
        # a link on another site's page comes without the cookie: the next click has it
        elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return sign_in_page(asked=request.query_params.get("q", ""), elsewhere=elsewhere)
    return _page(
        "ops.html",
        operator=operator,
        module=".." + asset_path("tocsin-ops.js"),
        # several installations in several tabs
        place=(services.settings.public_url or "").partition("://")[2],
    )


@get(PATH + "page.css/", media_type="text/css")
async def ops_style() -> Response[bytes]:
    """The page's style sheet."""
    style, _ = _style()
    headers = {"Cache-Control": "max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(style, media_type="text/css", headers=headers)


def sign_in_page(
    *, asked: str = "", elsewhere: bool = False, wrong: str | None = None
) -> Response[str]:
    """Returns the page that asks for a key and explains how to make one; `asked` is what to search for after that."""
    return _page(
        "sign_in.html",
        200 if wrong is None else 401,
        asked=asked,
        elsewhere=elsewhere,
        wrong=wrong,
        base="" if wrong is None else "../",
    )


def _page(template: str, status: int = 200, **values: Any) -> Response[str]:
    _, version = _style()
    return _PAGES.render(template, status, **{"base": "", "style": f"page.css?{version}"} | values)


@cache
def _style() -> tuple[bytes, str]:
    style = (files("tocsin.http.ops") / "ops.css").read_bytes()
    return style, hashlib.sha256(style).hexdigest()[:16]


_SESSION = PATH + "session/"
_FORM = "application/x-www-form-urlencoded"
_LARGEST_BODY = 4_000  # bytes, from anybody
_WRONG = "That is no good key of the scope ops."
_CURE = "`tocsin api-key create NAME --scope ops` makes one, `tocsin api-key list` shows those that are live."


class SignIn(Struct, frozen=True):
    """The key, and what to search for after that."""

    key: str
    q: str = ""


@post(
    _SESSION,
    status_code=303,
    responses={
        303: OtherResponse("To the page, from its form.", headers={"Set-Cookie": "The session."}),
        204: OtherResponse("Signed in.", headers={"Set-Cookie": "The session."}),
        401: OtherResponse("To the form: the page that asks for a key.", media_type="text/html"),
    },
    dependencies=body_read_by_handler(SignIn),
    request_max_body_size=_LARGEST_BODY,
    opt={
        RATE: "sign-in",
        **noted(
            body_media_types=("application/json", _FORM), fails=(400, 401, 403, 413, 422, 429, 503)
        ),
    },
)
async def sign_in(request: AnyRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Sign in.

    Exchanges an API key of the scope `ops` for a cookie that lasts twelve hours, and no longer than the key. As JSON,
    or as the page's form, to which the response is a redirect to the page.
    """
    if _authenticator(request).is_foreign(request):
        raise Forbidden("Nobody is signed in by another site's page.")
    form = request.headers.get("content-type", "").startswith(_FORM)
    form_or_body = await _form(request) if form else decode(await request.body(), SignIn)
    operator = await credential.operator_by_key(services.database, form_or_body.key.strip())
    if operator is None and form:
        return sign_in_page(asked=form_or_body.q, wrong=_WRONG)
    if operator is None:
        raise Unauthorized(f"{_WRONG} {_CURE}", error="invalid_token")
    cookie = session_cookie(services, await credential.open_session(services.database, operator))
    if form:
        # relative, so that it leads to the same host and prefix
        return Response(
            "",
            status_code=303,
            media_type="text/plain",
            headers={"Location": "../" + _search(form_or_body.q)},
            cookies=[cookie],
        )
    return Response(None, status_code=204, cookies=[cookie])


@delete(_SESSION, guards=[operators_only], opt={ACCESS: "operator", SCOPE: credential.OPS})
async def sign_out(request: AnyRequest, services: NamedDependency[Services]) -> Response[None]:
    """Sign out."""
    await credential.close_session(services.database, read_cookie(request.scope, COOKIE))
    return Response(None, status_code=204, cookies=[session_cookie(services, None)])


async def _form(request: AnyRequest) -> SignIn:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return SignIn(fields.get("key", [""])[0], fields.get("q", [""])[0])


def _search(asked: str) -> str:
    return f"?q={quote(asked[:320], safe='')}#search" if asked else ""


@get("/ops/api/overview/", opt={QUIET: True})
async def overview(
    overviews: NamedDependency[Overviews],
    window: Annotated[
        Literal["hour", "day"], QueryParameter(description="How far back the charts go.")
    ] = "hour",
) -> Overview:
    """Read the state.

    What is wrong; channels, and what waits or ended otherwise than sent; processes with their actors; series by the
    minute or by ten. Read from the database at most once a second.
    """
    return await overviews.get(window)


ROUTERS = (
    router("Operations", "everyone", ops_page, ops_style, sign_in, sign_out),
    ops_router(overview),
)
