"""Click-throughs: from a signed-in client, and from a mail by a signed link."""

from __future__ import annotations

from datetime import UTC, datetime

from litestar import Request, Response
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath

from tocsin.engine.model import Conflict, NotFound, Notification
from tocsin.engine.store import notification as store
from tocsin.http.auth import Authenticator
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import RowId
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.pages.html import PAGE_HEADERS, html, reader
from tocsin.http.people import inbox
from tocsin.http.people.inbox import PATH, PersonRequest
from tocsin.http.requests import Services

_REDIRECT: dict[int, ResponseSpec] = {
    303: OtherResponse("To the action URL.", headers={"Location": "The action URL."})
}


@get(
    PATH + "{notification_id:int}/open/",
    summary="Click through",
    description="Marks it read and redirects. With the cookie and from another site's page it only redirects, so that "
    "no foreign page can mark anything.",
    tags=[inbox.TAG],
    status_code=303,
    responses=_REDIRECT | {204: OtherResponse("It leads nowhere.")},
)
async def open_notification(
    request: PersonRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
    notification_id: RowId,
) -> Response[str]:
    """Marks one read and redirects to its action URL."""
    person = request.auth
    only_looks = request.method == "HEAD" or (
        person.by_cookie and _is_foreign(request, authenticator)
    )
    if only_looks:
        found = await store.get_notification(
            services.database, person.recipient_id, notification_id
        )
    else:
        found = await _read(services, person.recipient_id, notification_id)
    return _redirect(found.action_url) if found.action_url else Response("", status_code=204)


@get(
    "/c/{token:str}/",
    summary="Click through from a mail",
    description="The token is signed and names one notification. It is marked read only when a person follows the link "
    "(`Sec-Fetch-User: ?1`): scanners of mail follow links too.",
    tags=["Links in mails"],
    response_description="It leads nowhere: a page with it.",
    media_type="text/html",
    responses=_REDIRECT
    | {
        404: OtherResponse(
            "A page: the link is not one of this service, too old, or of a notification that is gone.",
            media_type="text/html",
        )
    },
    opt=noted(fails=(503,)),
)
async def click_through(
    request: Request[None, None, State], services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Redirects the reader of a mail to a notification's action URL."""
    try:
        link = services.links.read_open(token, datetime.now(UTC))
        found = await store.get_notification(
            services.database, link.recipient_id, link.notification_id
        )
    except NotFound:
        return html("gone.html", 404, reader(services, request))
    if _is_a_person(request):
        await _read(services, link.recipient_id, found.id)
    target = found.action_url and services.links.absolute(found.action_url)
    return _redirect(target) if target else html("notification.html", notification=found)


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
    """The address as a header can hold it (RFC 3986): what is not ASCII percent-encoded, all else as it was."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
    )


def _is_a_person(request: AnyRequest) -> bool:
    """Whether a browser states that a person clicked (W3C Fetch Metadata)."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-user") == "?1"
    )


def _is_foreign(request: AnyRequest, authenticator: Authenticator) -> bool:
    """Whether the browser names another site as the caller; a browser that names none is believed."""
    origins = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    return origins[0] != "none" and any(origins) and not authenticator.is_own_origin(request)
