"""/settings/: <tocsin-preferences> for the person of the cookie, on a page of Tocsin's own."""

from __future__ import annotations

from contextlib import suppress

from litestar import Response
from litestar.di import NamedDependency

from tocsin.engine.model import NotFound
from tocsin.engine.store.recipient import get_recipient
from tocsin.http.auth import Authenticator, Person
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.pages.assets import asset_path
from tocsin.http.pages.html import html, reader
from tocsin.http.requests import Services, relative_root

MODULE = "tocsin-preferences.js"


@get(
    "/settings/",
    summary="The settings page",
    description="`<tocsin-preferences>` for the person whom the cookie `tocsin_token` names, in their language; "
    "401 and a page that explains it without a valid cookie.",
    tags=["Pages"],
    response_description="The page.",
    media_type="text/html",
    responses={401: OtherResponse("A page that explains how to sign in.", media_type="text/html")},
    opt=noted(fails=(503,)),
)
async def settings_page(
    request: AnyRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
) -> Response[str]:
    """The same for everybody; what is a person's own is the component's to ask for."""
    person = await _person(request, authenticator)
    locale = await _locale(services, person) if person else None
    language = reader(services, request, locale)
    module = relative_root(request.scope) + asset_path(MODULE)
    status = 200 if person else 401
    return html(
        "settings.html",
        status,
        language,
        scripts=True,
        module=module,
        locale=language.language.tag,
    )


async def _person(request: AnyRequest, authenticator: Authenticator) -> Person | None:
    with suppress(Unauthorized, Forbidden):
        caller = await authenticator.identify(request, "")
        return caller if isinstance(caller, Person) else None
    return None


async def _locale(services: Services, person: Person) -> str | None:
    with suppress(NotFound):  # they have not written anything yet
        return (await get_recipient(services.database, person.recipient_id)).locale
    return None
