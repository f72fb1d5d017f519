"""Turning emails off from a mail, without signing in: a page by GET, one click by POST (RFC 8058)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qs

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.model import Invalid, NotFound
from tocsin.http.errors import AnyRequest
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.pages.html import html, reader
from tocsin.http.pages.opt_outs import OptOut, opt_out
from tocsin.http.requests import Services

PATH = "/unsubscribe/{token:str}/"
TAG = "Links in mails"
_LARGEST_BODY = 8_000  # bytes, from anybody who has a link
_GONE = OtherResponse(
    "A page: the link is not one of this service, or too old.", media_type="text/html"
)


class UnsubscribeForm(Struct, frozen=True):
    """The form; a bare POST, or RFC 8058's `List-Unsubscribe=One-Click`, is `scope=type`."""

    scope: Literal["type", "category", "all", "topic"] = "type"
    undo: Literal["1"] | None = None


@get(
    PATH,
    summary="Ask which emails to turn off",
    description="Changes nothing: scanners of mail follow links.",
    tags=[TAG],
    response_description="A page.",
    media_type="text/html",
    responses={404: _GONE},
    opt=noted(fails=(503,)),
)
async def unsubscribe_page(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Returns the page with the choices."""
    try:
        found = await _read(services, request, token)
    except NotFound:
        return html("gone.html", 404, reader(services, request))
    scopes = [each.scope for each in found.choices]
    scope = request.query_params.get("scope")
    chosen = scope if scope in scopes else scopes[0]
    return html("unsubscribe.html", 200, found.reader, asked=found, chosen=chosen, done=None)


@post(
    PATH,
    dependencies=body_read_by_handler(UnsubscribeForm | None),
    summary="Turn emails off",
    description="Without a body, that mail's event types, digest, or all mail to an address without an account. "
    "`undo=1` takes it back. Doing it twice does no harm. `topic` mutes the thread that the mail is about.",
    tags=[TAG],
    response_description="A page.",
    media_type="text/html",
    responses={404: _GONE},
    request_max_body_size=_LARGEST_BODY,
    status_code=200,
    opt=noted(
        body={"scope": "category"},
        body_media_types=("application/x-www-form-urlencoded",),
        fails=(413, 422, 503),
    ),
)
async def turn_emails_off(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Turns emails off, or takes it back."""
    try:
        found = await _read(services, request, token)
    except NotFound:
        return html("gone.html", 404, reader(services, request))
    fields = await _form(request)
    scope, undone = _scope(found, fields), _undone(fields)
    done = await (found.undo(scope) if undone else found.turn_off(scope))
    return html(
        "unsubscribe.html", 200, found.reader, asked=found, scope=scope, done=done, undone=undone
    )


async def _read(services: Services, request: AnyRequest, token: str) -> OptOut:
    link = services.links.read_unsubscribe(token, datetime.now(UTC))
    return await opt_out(services.database, link, lambda locale: reader(services, request, locale))


async def _form(request: AnyRequest) -> dict[str, str]:
    """The form's fields; read by hand, since one-click clients may send any form encoding or none."""
    kind, _ = request.content_type
    if kind == "multipart/form-data":
        form = await request.form()
        return {name: value for name, value in form.items() if isinstance(value, str)}
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}


def _scope(found: OptOut, fields: Mapping[str, str]) -> str:
    scopes = [each.scope for each in found.choices]
    scope = fields.get("scope", scopes[0])
    scope = found.same.get(scope, scope)
    if scope not in scopes:
        raise Invalid("scope is not known", ("scope", f"Use one of {', '.join(scopes)}."))
    return scope


def _undone(fields: Mapping[str, str]) -> bool:
    if (undo := fields.get("undo", "")) not in ("", "1"):
        raise Invalid("undo is not known", ("undo", "Pass 1, or leave it out."))
    return undo == "1"
