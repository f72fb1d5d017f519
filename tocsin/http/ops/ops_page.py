"""The operations page: one document, one module and one style sheet, all of this service; signing in; its data."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from tocsin.engine.model import Unavailable
from tocsin.engine.ops.overview import Overview, Overviews
from tocsin.engine.store.credential import close_session, open_session, operator_by_key
from tocsin.http.access_log import QUIET
from tocsin.http.auth import ACCESS, read_cookie
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.ops.access import (
    COOKIE,
    PATH,
    is_foreign,
    operators_only,
    session_cookie,
    signed_in,
)
from tocsin.http.pages.assets import asset_path
from tocsin.http.requests import Services, decode

TAG = "Operations"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
_TEMPLATES = Environment(
    loader=PackageLoader("tocsin.http.ops"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@get(
    PATH,
    summary="The operations page",
    description="Without a session, it asks for a key.",
    tags=[TAG],
    response_description="The page.",
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
    """The page, or the one that asks for a key."""
    if not request.scope["raw_path"].split(b"?")[0].endswith(b"/"):
        # all its addresses are relative, so that it works behind any prefix
        return Response("", status_code=308, media_type="text/plain", headers={"Location": "ops/"})
    try:
        operator = await signed_in(request)
    except Unavailable:
        # this is the page that is opened during an outage
        return _html("away.html", 503)
    if operator is None:
        # a link on another site's page comes without the cookie: the next click has it
        elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return sign_in_page(asked=request.query_params.get("q", ""), elsewhere=elsewhere)
    return _html(
        "ops.html",
        operator=operator,
        module=".." + asset_path("tocsin-ops.js"),
        # several installations in several tabs
        place=(services.settings.public_url or "").partition("://")[2],
    )


@get(
    PATH + "page.css/",
    summary="The page's style sheet",
    tags=[TAG],
    response_description="The style sheet.",
    media_type="text/css",
)
async def ops_style() -> Response[bytes]:
    """The style sheet, which its address names by its content."""
    style, _ = _style()
    headers = {"Cache-Control": "max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(style, media_type="text/css", headers=headers)


def sign_in_page(
    *, asked: str = "", elsewhere: bool = False, wrong: str | None = None
) -> Response[str]:
    """Returns the page that asks for a key and explains how to make one; `asked` is what to search for after that."""
    return _html(
        "sign_in.html",
        200 if wrong is None else 401,
        asked=asked,
        elsewhere=elsewhere,
        wrong=wrong,
        base="" if wrong is None else "../",
    )


def _html(template: str, status: int = 200, **values: Any) -> Response[str]:
    _, version = _style()
    values = {"base": "", "style": f"page.css?{version}", **values}
    return Response(
        _TEMPLATES.get_template(template).render(values),
        status_code=status,
        media_type="text/html",
        headers=_HEADERS,
    )


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
    summary="Sign in",
    description="Exchanges an API key of the scope `ops` for a cookie that lasts twelve hours, and no longer than the "
    "key. As JSON, or as the page's form, to which the response is a redirect to the page.",
    tags=[TAG],
    status_code=303,
    responses={
        303: OtherResponse("To the page, from its form.", headers={"Set-Cookie": "The session."}),
        204: OtherResponse("Signed in.", headers={"Set-Cookie": "The session."}),
        401: OtherResponse("To the form: the page that asks for a key.", media_type="text/html"),
    },
    dependencies=body_read_by_handler(SignIn),
    request_max_body_size=_LARGEST_BODY,
    opt=noted(
        body={"key": "tocsin_…"},
        body_media_types=("application/json", _FORM),
        fails=(400, 401, 403, 413, 422, 503),
    ),
)
async def sign_in(request: AnyRequest, services: NamedDependency[Services]) -> Response[Any]:
    """A key for a session."""
    if is_foreign(request):
        raise Forbidden("Nobody is signed in by another site's page.")
    form = request.headers.get("content-type", "").startswith(_FORM)
    form_or_body = await _form(request) if form else decode(await request.body(), SignIn)
    operator = await operator_by_key(services.database, form_or_body.key.strip())
    if operator is None and form:
        return sign_in_page(asked=form_or_body.q, wrong=_WRONG)
    if operator is None:
        raise Unauthorized(f"{_WRONG} {_CURE}", error="invalid_token")
    cookie = session_cookie(services, await open_session(services.database, operator))
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


@delete(
    _SESSION,
    summary="Sign out",
    tags=[TAG],
    response_description="The session is over.",
    guards=[operators_only],
    opt={ACCESS: "operator"},
)
async def sign_out(request: AnyRequest, services: NamedDependency[Services]) -> Response[None]:
    """Ends the session."""
    await close_session(services.database, read_cookie(request, COOKIE))
    return Response(None, status_code=204, cookies=[session_cookie(services, None)])


async def _form(request: AnyRequest) -> SignIn:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return SignIn(fields.get("key", [""])[0], fields.get("q", [""])[0])


def _search(asked: str) -> str:
    return f"?q={quote(asked[:320], safe='')}#search" if asked else ""


@get(
    "/ops/api/overview/",
    summary="Read the state",
    description="What is wrong; channels, and what waits or ended otherwise than sent; processes with their "
    "actors; series by the minute or by ten. Read from the database at most once a second.",
    tags=[TAG],
    response_description="The state.",
    opt={QUIET: True},
)
async def overview(
    overviews: NamedDependency[Overviews],
    window: Annotated[
        Literal["hour", "day"], QueryParameter(description="How far back the charts go.")
    ] = "hour",
) -> Overview:
    """All that the page draws."""
    return await overviews.get(window)
