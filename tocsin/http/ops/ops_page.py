"""The operations page: one document, one module and one style sheet, all of this service."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import HttpMethod, Response, route
from litestar.di import NamedDependency

from tocsin.engine.model import Unavailable
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.ops.access import PATH, signed_in
from tocsin.http.pages.assets import asset_path
from tocsin.http.services import Services

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
