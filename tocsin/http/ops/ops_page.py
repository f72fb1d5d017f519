"""The operations page: one document, one module and one style sheet, all of this service; signing in; its data."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import parse_qs, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import HttpMethod, Response, delete, post, route
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.model import Unavailable
from tocsin.engine.ops.overview import Overview, Overviews
from tocsin.engine.store.credential import close_session, open_session, operator_by_key
from tocsin.http import openapi
from tocsin.http.access_log import QUIET
from tocsin.http.auth import read_cookie
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.ops.access import (
    COOKIE,
    PATH,
    is_foreign,
    operators_only,
    session_cookie,
    signed_in,
)
from tocsin.http.pages.assets import asset_path
from tocsin.http.requests import Services, no_content, read_body, read_query, reply

TAG = "Operations"
_GET = [HttpMethod.GET, HttpMethod.HEAD]
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


@route(
    PATH,
    http_method=_GET,
    opt=documented(
        Operation(
            summary="The operations page",
            description="Without a session, it asks for a key.",
            tag=TAG,
            answers={
                200: Answer("The page.", media_type="text/html"),
                308: Answer(
                    "To the address with its last slash.", headers={"Location": "That address."}
                ),
                503: Answer(
                    "The database does not answer: a page that says so.", media_type="text/html"
                ),
            },
        )
    ),
)
async def ops_page(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[str] | Response[bytes]:
    """The page, or the one that asks for a key."""
    if not request.scope["raw_path"].split(b"?")[0].endswith(b"/"):
        # all its addresses are relative, so that it works behind any prefix
        return Response(b"", status_code=308, media_type="text/plain", headers={"Location": "ops/"})
    try:
        operator = await signed_in(request)
    except Unavailable:
        # of all pages the one that is opened just then
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


@route(
    PATH + "page.css/",
    http_method=_GET,
    opt=documented(
        Operation(
            summary="The page's style sheet",
            tag=TAG,
            answers={200: Answer("The style sheet.", media_type="text/css")},
        )
    ),
)
async def ops_style() -> Response[bytes]:
    """The style sheet, which its address names by its content."""
    style, _ = _style()
    headers = {"Cache-Control": "max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(style, media_type="text/css", headers=headers)


def sign_in_page(
    *, asked: str = "", elsewhere: bool = False, wrong: str | None = None
) -> Response[str]:
    """Asks for a key, and says how to make one; `asked` is what to search for after that."""
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
    opt=documented(
        Operation(
            summary="Sign in",
            description=(
                "Exchanges an API key of the scope `ops` for a cookie that lasts twelve hours, and no longer than the "
                "key. As JSON, or as the page's form, which is answered by a redirect to it."
            ),
            tag=TAG,
            body=SignIn,
            body_example={"key": "tocsin_…"},
            other_body_types=(_FORM,),
            answers={
                401: Answer("To the form: the page that asks for a key.", media_type="text/html"),
                204: Answer("Signed in.", headers={"Set-Cookie": "The session."}),
                303: Answer("To the page, from its form.", headers={"Set-Cookie": "The session."}),
            },
            fails=(400, 401, 403, 413, 422, 503),
        )
    ),
    request_max_body_size=_LARGEST_BODY,
)
async def sign_in(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[None] | Response[str] | Response[bytes]:
    """A key for a session."""
    if is_foreign(request):
        raise Forbidden("Nobody is signed in by another site's page.")
    form = request.headers.get("content-type", "").startswith(_FORM)
    asked = await _form(request) if form else await read_body(request, SignIn)
    operator = await operator_by_key(services.database, asked.key.strip())
    if operator is None and form:
        return sign_in_page(asked=asked.q, wrong=_WRONG)
    if operator is None:
        raise Unauthorized(f"{_WRONG} {_CURE}", error="invalid_token")
    cookie = session_cookie(services, await open_session(services.database, operator))
    answer: Response[None] | Response[bytes] = (
        # relative, so that it leads to the same host and prefix
        Response(
            b"",
            status_code=303,
            media_type="text/plain",
            headers={"Location": "../" + _search(asked.q)},
        )
        if form
        else no_content()
    )
    answer.set_cookie(cookie)
    return answer


@delete(
    _SESSION,
    # beside `sign_in`, since one path is one router's
    guards=[operators_only],
    opt={
        openapi.ACCESS: "operator",
        **documented(
            Operation(summary="Sign out", tag=TAG, answers={204: Answer("The session is over.")})
        ),
    },
)
async def sign_out(request: AnyRequest, services: NamedDependency[Services]) -> Response[None]:
    """Ends the session."""
    await close_session(services.database, read_cookie(request, COOKIE))
    answer = no_content()
    answer.set_cookie(session_cookie(services, None))
    return answer


async def _form(request: AnyRequest) -> SignIn:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return SignIn(fields.get("key", [""])[0], fields.get("q", [""])[0])


def _search(asked: str) -> str:
    return f"?q={quote(asked[:320], safe='')}#search" if asked else ""


class OverviewQuery(Struct, frozen=True):
    """How far back the charts go."""

    window: Literal["hour", "day"] = "hour"


@get(
    "/ops/api/overview/",
    opt={
        QUIET: True,
        **documented(
            Operation(
                summary="How is it?",
                description=(
                    "What is wrong; channels, and what waits or ended otherwise than sent; processes with their "
                    "actors; series by the minute or by ten. Read at most once a second, whoever asks."
                ),
                tag=TAG,
                query=OverviewQuery,
                answers={200: Answer("The state.", Overview)},
            )
        ),
    },
)
async def overview(request: AnyRequest, overviews: NamedDependency[Overviews]) -> Response[bytes]:
    """All that the page draws."""
    return reply(await overviews.get(read_query(request, OverviewQuery).window))
