"""Pages behind signed links in mails: how they are declared, how a form is read, and what a link that is gone shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from tocsin.engine.model import NotFound
from tocsin.http.errors import AnyRequest
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.pages.html import html, reader

Declare = Callable[[Callable[..., Any]], HTTPRouteHandler]

_GONE = OtherResponse(
    "A page: the link is not one of this service, too old, or of something that is gone.",
    media_type="text/html",
)
_LARGEST_FORM = 8_000  # bytes, from anybody who has a link


def _gone(request: AnyRequest, _: NotFound) -> Response[str]:
    return html("gone.html", 404, reader(request.app.state.services, request))


_page: dict[str, Any] = {"media_type": "text/html", "exception_handlers": {NotFound: _gone}}


def get_page(path: str, responses: Mapping[int, ResponseSpec] | None = None) -> Declare:
    """Declares a page, which changes nothing, since scanners of mail follow links. NotFound: the link is gone."""
    return get(path, **_page, responses={404: _GONE, **(responses or {})}, opt=noted(fails=(503,)))


def post_form(path: str, form: Any, responses: Mapping[int, ResponseSpec] | None = None) -> Declare:
    """Declares what receives the page's form, whose fields the handler reads by `form_fields`."""
    return post(
        path,
        **_page,
        dependencies=body_read_by_handler(form),
        responses={404: _GONE, **(responses or {})},
        request_max_body_size=_LARGEST_FORM,
        status_code=200,
        opt=noted(body_media_types=("application/x-www-form-urlencoded",), fails=(413, 422, 503)),
    )


async def form_fields(request: AnyRequest) -> dict[str, str]:
    """Returns the fields of a form; read by hand, since one-click clients may send any encoding or none."""
    kind, _ = request.content_type
    if kind == "multipart/form-data":
        form = await request.form()
        return {name: value for name, value in form.items() if isinstance(value, str)}
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}
