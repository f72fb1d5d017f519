"""A person's preferences."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, patch
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from tocsin.engine.store import preference as store
from tocsin.engine.store.preference import Preferences
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import read_body, reply
from tocsin.http.services import Services

PATH = "/api/notification-preferences/"
TAG = "Preferences"

Overrides = Annotated[
    dict[str, dict[str, bool | None]],
    Meta(
        max_length=1000,
        description="By `*`, `category.*` or event type: each channel on, off, or null to inherit again.",
    ),
]


class ChangedPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides to merge into those that there are."""

    overrides: Overrides


@get(
    PATH,
    opt=documented(
        Operation(
            summary="Read the preferences",
            description="What is on for each event type, and where each answer comes from.",
            tag=TAG,
            answers={200: Answer("All of them.", Preferences, examples.PREFERENCES)},
        )
    ),
)
async def get_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """All preferences."""
    return reply(await store.get_preferences(services.database, request.auth.recipient_id))


@patch(
    PATH,
    opt=documented(
        Operation(
            summary="Change preferences",
            description=(
                "Merges; null inherits again. An event type's own override is stronger than its category's, that than "
                "`*`. A mandatory channel stays on whatever is chosen."
            ),
            tag=TAG,
            body=ChangedPreferences,
            body_example={"overrides": {"forum.*": {"email": False}}},
            answers={
                200: Answer("All of them, as they are now.", Preferences, examples.PREFERENCES)
            },
        )
    ),
)
async def change_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Merges overrides."""
    changed = await read_body(request, ChangedPreferences)
    return reply(
        await store.set_overrides(services.database, request.auth.recipient_id, changed.overrides)
    )
