"""/settings/: <tocsin-preferences> for whoever the cookie names, on a page of Tocsin's own."""

from __future__ import annotations

import re
from contextlib import suppress

from litestar import Response, get
from litestar.di import NamedDependency

from tocsin.engine.language import language_of
from tocsin.engine.model import NotFound
from tocsin.engine.store.recipient import get_recipient
from tocsin.http.assets import asset_path
from tocsin.http.auth import Authenticator, Person
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.page import html
from tocsin.http.paths import beside
from tocsin.http.services import Services

MODULE = "tocsin-preferences.js"
# The heading, and what it is for; the rest is the component's to say.
_WORDS = {
    "en": ("Notifications", "What reaches you, and how. Every change is saved at once."),
    "de": (
        "Benachrichtigungen",
        "Was dich erreicht, und wie. Jede Änderung wird sofort gespeichert.",
    ),
    "ar": ("الإشعارات", "ما يصلك وكيف يصلك. يُحفظ كل تغيير فورًا."),
}
_CHOICE = re.compile(r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?")


@get(
    "/settings/",
    opt=documented(
        Operation(
            summary="The settings page",
            description=(
                "`<tocsin-preferences>` for the person whom the cookie `tocsin_token` names, in their language; "
                "401 and a page that says so where it names nobody."
            ),
            tag="Pages",
            answers={200: Answer("The page.", media_type="text/html")},
        )
    ),
)
async def settings_page(
    request: AnyRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
) -> Response[str]:
    """The same for everybody; what is a person's own is the component's to ask for."""
    person = await _who(request, authenticator)
    told = await _locale(services, person) if person else None
    locale = told or _accepted(request.headers.get("accept-language", ""))
    language = language_of(locale).words_tag
    speaks = language if language in _WORDS else "en"
    title, intro = _WORDS[speaks]
    return html(
        "settings.html",
        200 if person else 401,
        scripts=True,
        module=beside(request.scope) + asset_path(MODULE),
        language=speaks,
        direction=language_of(speaks).words_direction,
        locale=locale or "en",
        title=title,
        intro=intro,
    )


async def _who(request: AnyRequest, authenticator: Authenticator) -> Person | None:
    with suppress(Unauthorized, Forbidden):
        who = await authenticator.identify(request, "")
        return who if isinstance(who, Person) else None
    return None


async def _locale(services: Services, person: Person) -> str | None:
    with suppress(NotFound):  # they have not written anything yet
        return (await get_recipient(services.database, person.recipient_id)).locale
    return None


def _accepted(header: str) -> str | None:
    """The language of ours that a browser likes best (RFC 9110, section 12.5.4)."""
    liked = [
        (float(found[2] or 1), -place, found[1])
        for place, part in enumerate(header[:500].split(","))
        if (found := _CHOICE.fullmatch(part.strip()))
    ]
    ours = [each for each in liked if each[0] > 0 and each[2].partition("-")[0].lower() in _WORDS]
    return max(ours)[2] if ours else None
