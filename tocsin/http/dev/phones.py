"""/dev/phones/: what arrived at the far ends of `make up`, as a page or as JSON."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from litestar import Response, delete
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct, structs

from tocsin.beside import who_is_up
from tocsin.engine.store.demo import list_phones, whose_phones
from tocsin.http.access_log import QUIET
from tocsin.http.dev.page import html
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import get
from tocsin.http.requests import no_content, reply
from tocsin.http.services import Services
from tocsin.phones import FILE, Arrival, clear, read_arrivals

_PHONES = 6  # of one person; what is more would not fit a page
_SHOWN = 6  # the last characters of a token

_MAKES = {"ios": "iPhone", "android": "Android phone"}
_SETTINGS = {"apns": "TOCSIN_APNS_KEY", "fcm": "TOCSIN_FCM_SERVICE_ACCOUNT"}


class Phone(Struct, frozen=True):
    """One frame on the page."""

    make: str
    provider: str
    token: str  # its last characters
    elsewhere: str | None  # the setting by which its pushes go to the provider itself


@get("/phones", opt={QUIET: True})
async def list_arrivals(
    request: AnyRequest,
    services: NamedDependency[Services],
    person: Annotated[str | None, QueryParameter(max_length=200)] = None,
) -> Response[Any]:
    """The newest pushes first, of everybody or of one person."""
    arrivals = await asyncio.to_thread(read_arrivals, _file(services))
    owners = await whose_phones(services.database, list({each.token for each in arrivals}))
    named = {(phone.provider, phone.token): phone.recipient_id for phone in owners}
    found = [_told(each, named.get((each.provider, each.token))) for each in arrivals]
    if person is not None:
        found = [each for each in found if each["recipient"] == person]
    if "application/json" in request.headers.get("accept", ""):
        return reply(found)
    return html("phones.html", arrivals=found)


@delete("/phones", status_code=204, sync_to_thread=True)
def clear_phones(services: NamedDependency[Services]) -> Response[None]:
    """Forgets them all."""
    clear(_file(services))
    return no_content()


async def phones_of(services: Services, person: str) -> list[Phone]:
    """The frames that the demo page draws for a person."""
    up = who_is_up(services.settings.data_dir)
    here = {"apns": bool(up and up.apns), "fcm": bool(up and up.fcm)}
    return [
        Phone(
            make=_MAKES[phone.platform],
            provider=phone.provider,
            token=phone.token[-_SHOWN:],
            elsewhere=None if here[phone.provider] else _SETTINGS[phone.provider],
        )
        for phone in await list_phones(services.database, person, _PHONES)
    ]


def _told(arrival: Arrival, recipient: str | None) -> dict[str, Any]:
    """A push, and whose phone it came to: nobody's where its token is no longer registered."""
    return structs.asdict(arrival) | {"token": arrival.token[-_SHOWN:], "recipient": recipient}


def _file(services: Services) -> Path:
    return services.settings.data_dir / FILE
