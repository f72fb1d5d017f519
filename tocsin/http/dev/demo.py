"""/dev/: the bell with its live badge, the list, a form that sends an event, and the person's phones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store.demo import list_people
from tocsin.engine.store.event import NewEvent, tell
from tocsin.engine.store.event_type import list_event_types
from tocsin.http.dev.page import ASSETS, html
from tocsin.http.dev.phones import phones_of
from tocsin.http.errors import AnyRequest
from tocsin.http.parse import read_body, reply
from tocsin.http.services import Services

_KINDS = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "phones.js": "text/javascript",
    "phones.css": "text/css",
    "preview.js": "text/javascript",
    "preview.css": "text/css",
}
_PEOPLE = 20


class DemoEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """What the form sends."""

    event_type: str
    recipients: Annotated[list[str], Meta(min_length=1, max_length=100)]
    title: str
    body: str = ""
    action_url: str | None = None


@get("/")
async def demo_page(
    services: NamedDependency[Services],
    person: Annotated[str, QueryParameter(max_length=200, pattern="^[^\\0]*$(?!\n)")] = "alice",
) -> Response[str]:
    """The page, signed in as a demo person."""
    response = html(
        "demo.html",
        person=person,
        people=await list_people(services.database, _PEOPLE),
        event_types=await list_event_types(services.database),
        mailbox=services.settings.smtp is not None,
        phones=await phones_of(services, person),
        signs=services.settings.jwt_secret is not None,
    )
    if services.settings.jwt_secret is not None:
        response.cookies.append(
            Cookie(
                key="tocsin_token",
                value=_token(services, person),
                path="/",
                httponly=True,
                samesite="strict",
            )
        )
    return response


@get("/assets/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str]) -> Response[bytes]:
    """The page's scripts and style sheets."""
    if name not in _KINDS:
        raise NotFound("There is no such file.")
    return Response(
        (ASSETS / name).read_bytes(),
        media_type=_KINDS[name],
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )


@post("/events")
async def emit(request: AnyRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Sends the form's event, as an app would."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Invalid("This form is for the page of this service only.")
    sent = await read_body(request, DemoEvent)
    event = NewEvent(
        event_type=sent.event_type,
        recipients=sent.recipients,
        title=sent.title,
        body=sent.body,
        action_url=sent.action_url or None,
    )
    emitted = await tell(services.database, "demo", event)
    return reply({"event_id": emitted.event_id, "notifications": emitted.notifications}, 202)


def _token(services: Services, person: str) -> str:
    settings = services.settings
    claims: dict[str, Any] = {"sub": person, "exp": datetime.now(UTC) + timedelta(days=1)}
    claims |= {"aud": settings.jwt_audience} if settings.jwt_audience else {}
    claims |= {"iss": settings.jwt_issuer} if settings.jwt_issuer else {}
    return jwt.encode(claims, settings.jwt_secret or "", settings.jwt_algorithms[0])
