"""Signed links in mails: to what a notification is about; and to turn emails off, by a page or one click (RFC 8058)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from litestar import Request, Response
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.model import Conflict, Invalid, Notification
from tocsin.engine.store import notification as store
from tocsin.http.auth import Authenticator, people_router, router
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import RowId
from tocsin.http.openapi import OtherResponse, get
from tocsin.http.pages.html import PAGE_HEADERS, html, reader
from tocsin.http.pages.link_page import form_fields, get_page, post_form
from tocsin.http.pages.opt_outs import OptOut, opt_out
from tocsin.http.people import inbox
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services

UNSUBSCRIBE = "/unsubscribe/{token:str}/"
_REDIRECT: dict[int, ResponseSpec] = {
    303: OtherResponse("To the action URL.", headers={"Location": "The action URL."})
}


@get(
    inbox.PATH + "{notification_id:int}/open/",
    status_code=303,
    responses=_REDIRECT | {204: OtherResponse("It leads nowhere.")},
)
async def open_notification(
    request: PersonRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
    notification_id: RowId,
) -> Response[str]:
    """Click through.

    Marks it read and redirects. With the cookie and from another site's page it only redirects, so that no foreign page
    can mark anything.
    """
    person = request.auth
    foreign = person.by_cookie and authenticator.is_foreign(request)
    if request.method == "HEAD" or foreign:
        found = await store.get_notification(
            services.database, person.recipient_id, notification_id
        )
    else:
        found = await _read(services, person.recipient_id, notification_id)
    return _redirect(found.action_url) if found.action_url else Response("", status_code=204)


@get_page("/c/{token:str}/", _REDIRECT)
async def click_through(
    request: Request[None, None, State], services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Click through from a mail or from a push.

    The token is signed and names one notification. By a link of a mail it is marked read only when a person follows it
    (`Sec-Fetch-User: ?1`): scanners of mail follow links too.
    """
    link = services.links.read_open(token, datetime.now(UTC))
    found = await store.get_notification(services.database, link.recipient_id, link.notification_id)
    if _is_a_person(request) or (link.in_push and request.method == "GET"):
        await _read(services, link.recipient_id, found.id)
    target = found.action_url and services.links.absolute(found.action_url)
    return (
        _redirect(target)
        if target
        else html("notification.html", reader=reader(services, request), notification=found)
    )


async def _read(services: Services, recipient_id: str, notification_id: int) -> Notification:
    """Marks it read, unless an app is just cancelling it: the redirect follows in any case."""
    try:
        return await store.mark_read(services.database, recipient_id, notification_id, read=True)
    except Conflict:
        return await store.get_notification(services.database, recipient_id, notification_id)


def _redirect(target: str) -> Response[str]:
    # Response, not Redirect: that one would quote a URL that is a valid one already
    headers = {**PAGE_HEADERS, "Location": _ascii(target)}
    return Response("", status_code=303, media_type="text/plain", headers=headers)


def _ascii(url: str) -> str:
    """Returns the address as a header can hold it (RFC 3986): what is not ASCII percent-encoded, all else as it was."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
    )


def _is_a_person(request: AnyRequest) -> bool:
    """Returns whether a browser states that a person clicked (W3C Fetch Metadata)."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-user") == "?1"
    )


class UnsubscribeForm(Struct, frozen=True):
    """The form; a bare POST, or RFC 8058's `List-Unsubscribe=One-Click`, is `scope=type`."""

    scope: Literal["type", "category", "all", "topic"] = "type"
    undo: Literal["1"] | None = None


@get_page(UNSUBSCRIBE)
async def unsubscribe_page(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Ask which emails to turn off.

    Changes nothing: scanners of mail follow links.
    """
    found = await _found(services, request, token)
    scopes = [each.scope for each in found.choices]
    scope = request.query_params.get("scope")
    chosen = scope if scope in scopes else scopes[0]
    return html("unsubscribe.html", 200, found.reader, asked=found, chosen=chosen, done=None)


@post_form(UNSUBSCRIBE, UnsubscribeForm | None)
async def turn_emails_off(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Turn emails off.

    Without a body, that mail's event types, digest, or all mail to an address without an account. `undo=1` takes it
    back. Doing it twice does no harm. `topic` mutes the thread that the mail is about.
    """
    found = await _found(services, request, token)
    fields = await form_fields(request)
    scope, undone = _scope(found, fields), _undone(fields)
    done = await (found.undo(scope) if undone else found.turn_off(scope))
    return html(
        "unsubscribe.html", 200, found.reader, asked=found, scope=scope, done=done, undone=undone
    )


async def _found(services: Services, request: AnyRequest, token: str) -> OptOut:
    link = services.links.read_unsubscribe(token, datetime.now(UTC))
    return await opt_out(services.database, link, lambda locale: reader(services, request, locale))


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


ROUTERS = (
    people_router("Inbox", open_notification),
    router("Links in mails", "everyone", click_through, unsubscribe_page, turn_emails_off),
)
