"""What a person wants to be told, how and when: channels, digests, quiet hours; and the event types there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import time
from itertools import groupby
from typing import Annotated

from litestar import Response, patch, put
from litestar.di import NamedDependency
from msgspec import UNSET, Meta, Struct, UnsetType

from tocsin.engine.store import digest, preference
from tocsin.engine.store.digest import ALL, DigestChange, DigestPreferences, Frequency, Weekday
from tocsin.engine.store.event import list_event_types
from tocsin.engine.store.preference import Preferences, QuietHours
from tocsin.http import examples
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import Listing
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.pages.html import reader
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services, read_body, read_query, reply

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
    return reply(await preference.get_preferences(services.database, request.auth.recipient_id))


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
        await preference.set_overrides(
            services.database, request.auth.recipient_id, changed.overrides
        )
    )


DIGEST_PATH = "/api/digest-preferences/"

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
    DIGEST_PATH,
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
    return reply(await digest.get_digest_preferences(services.database, request.auth.recipient_id))


@patch(
    DIGEST_PATH,
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
        await digest.set_digest_preferences(
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


QUIET_HOURS_PATH = "/api/quiet-hours/"


class ChosenQuietHours(Struct, frozen=True, forbid_unknown_fields=True):
    """Null for both: none."""

    starts: TimeOfDay | None
    ends: TimeOfDay | None
    timezone: (
        Annotated[str, Meta(description="An IANA name; without it, the person's own zone.")] | None
    ) = None


@get(
    QUIET_HOURS_PATH,
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
    return reply(await preference.get_quiet_hours(services.database, request.auth.recipient_id))


@put(
    QUIET_HOURS_PATH,
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
        await preference.set_quiet_hours(
            services.database,
            request.auth.recipient_id,
            starts=time.fromisoformat(chosen.starts) if chosen.starts else None,
            ends=time.fromisoformat(chosen.ends) if chosen.ends else None,
            timezone=chosen.timezone,
        )
    )


class CatalogueType(Struct, frozen=True):
    """One event type."""

    event_type: str
    label: str
    default_channels: list[str]
    mandatory_channels: list[str]
    priority: str
    digest: bool  # digests may hold it


class CatalogueCategory(Struct, frozen=True):
    """A category with its event types."""

    category: str
    label: str
    event_types: list[CatalogueType]


class CatalogueQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """In which language."""

    locale: Annotated[
        str,
        Meta(
            max_length=35,
            pattern="^[A-Za-z0-9_-]*$(?!\n)",
            description="Labels in this language, where there are words of them; else as the catalogue has them.",
        ),
    ] = ""


@get(
    "/api/event-types/",
    opt=documented(
        Operation(
            summary="List the event types",
            description="By category, in the catalogue's order.",
            tag=TAG,
            query=CatalogueQuery,
            answers={200: Answer("All of them.", Listing[CatalogueCategory], examples.EVENT_TYPES)},
        )
    ),
)
async def event_types(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """All event types by category."""
    query = read_query(request, CatalogueQuery)
    label: Callable[[str], str] = str
    if query.locale:  # by the same words as in the mails
        label = reader(services, request, query.locale).language.label
    rows = await list_event_types(services.database)
    categories = [
        CatalogueCategory(
            category,
            label(category_label),
            [
                CatalogueType(
                    row.event_type,
                    label(row.label),
                    row.default_channels,
                    row.mandatory_channels,
                    row.priority,
                    row.digest,
                )
                for row in group
            ],
        )
        for (category, category_label), group in groupby(
            rows, lambda row: (row.category, row.category_label)
        )
    ]
    return reply({"results": categories})
