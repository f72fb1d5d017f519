"""When and for what a person gets one mail in place of many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from typing import Annotated

from litestar import Response, patch
from litestar.di import NamedDependency
from msgspec import UNSET, Meta, Struct, UnsetType

from tocsin.engine.store import digest as store
from tocsin.engine.store.digest import ALL, DigestChange, DigestPreferences, Frequency, Weekday
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import read_body, reply
from tocsin.http.services import Services

PATH = "/api/digest-preferences/"
TAG = "Preferences"

TimeOfDay = Annotated[
    str,
    Meta(
        pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$(?!\n)", description="`HH:MM`, from 00:00 to 23:59."
    ),
]


class ChangedDigestPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is; `categories` null are all, later ones too."""

    frequency: Frequency | None = None
    categories: Annotated[list[str], Meta(max_length=1000)] | UnsetType | None = UNSET
    send_at: TimeOfDay | None = None
    timezone: Annotated[str, Meta(description="An IANA name such as `Europe/Rome`.")] | None = None
    weekday: Weekday | None = None


@get(
    PATH,
    opt=documented(
        Operation(
            summary="Read the digest's preferences",
            description="`next_at` is when the next one is due; null while it is off.",
            tag=TAG,
            answers={200: Answer("As they are.", DigestPreferences, examples.DIGEST_PREFERENCES)},
        )
    ),
)
async def get_digest_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A person's digest."""
    return reply(await store.get_digest_preferences(services.database, request.auth.recipient_id))


@patch(
    PATH,
    opt=documented(
        Operation(
            summary="Change the digest's preferences",
            description=(
                "Merges. While it is on, what happens in its categories comes in one mail a day or a week and not in "
                "mails of its own; what a digest may not hold still does. Turned off, what waits comes in one last one."
            ),
            tag=TAG,
            body=ChangedDigestPreferences,
            body_example={"frequency": "weekly", "weekday": "friday", "categories": ["forum"]},
            answers={
                200: Answer("As they are now.", DigestPreferences, examples.DIGEST_PREFERENCES)
            },
        )
    ),
)
async def change_digest_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Merges them."""
    changed = await read_body(request, ChangedDigestPreferences)
    return reply(
        await store.set_digest_preferences(
            services.database,
            request.auth.recipient_id,
            DigestChange(
                changed.frequency,
                _categories(changed.categories),
                time.fromisoformat(changed.send_at) if changed.send_at else None,
                changed.timezone,
                changed.weekday,
            ),
        )
    )


def _categories(chosen: list[str] | UnsetType | None) -> Sequence[str] | None:
    if chosen is UNSET:
        return None
    return ALL if chosen is None else chosen
