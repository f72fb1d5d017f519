"""When a person wants no mail and no push."""

from __future__ import annotations

from datetime import time
from typing import Annotated

from litestar import Response, put
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from tocsin.engine.store import preference as store
from tocsin.engine.store.preference import QuietHours
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.digest_preferences import TimeOfDay
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import read_body, reply
from tocsin.http.services import Services

PATH = "/api/quiet-hours/"
TAG = "Preferences"


class ChosenQuietHours(Struct, frozen=True, forbid_unknown_fields=True):
    """Null for both: none."""

    starts: TimeOfDay | None
    ends: TimeOfDay | None
    timezone: (
        Annotated[str, Meta(description="An IANA name; without it, the person's own zone.")] | None
    ) = None


@get(
    PATH,
    opt=documented(
        Operation(
            summary="Read the quiet hours",
            description="Null where there are none.",
            tag=TAG,
            answers={200: Answer("As they are.", QuietHours, examples.QUIET_HOURS)},
        )
    ),
)
async def get_quiet_hours(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A person's quiet hours."""
    return reply(await store.get_quiet_hours(services.database, request.auth.recipient_id))


@put(
    PATH,
    opt=documented(
        Operation(
            summary="Set the quiet hours",
            description=(
                "Within them no mail and no push leaves, but for event types of high priority and the digest, whose "
                "hour is chosen; the rest follows at their end. The inbox and its badge go on."
            ),
            tag=TAG,
            body=ChosenQuietHours,
            body_example={"starts": "22:00", "ends": "07:00"},
            answers={200: Answer("As they are now.", QuietHours, examples.QUIET_HOURS)},
        )
    ),
)
async def set_quiet_hours(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Sets them."""
    chosen = await read_body(request, ChosenQuietHours)
    return reply(
        await store.set_quiet_hours(
            services.database,
            request.auth.recipient_id,
            starts=time.fromisoformat(chosen.starts) if chosen.starts else None,
            ends=time.fromisoformat(chosen.ends) if chosen.ends else None,
            timezone=chosen.timezone,
        )
    )
