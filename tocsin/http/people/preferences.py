"""A person's preferences: channels, digests, quiet hours and topics; and the event types that there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, time
from itertools import groupby
from typing import Annotated

from litestar import Response, delete, patch, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType, convert, structs

from tocsin.engine.store import digest, preference
from tocsin.engine.store.digest import ALL, DigestChange, DigestPreferences, Frequency, Weekday
from tocsin.engine.store.event import list_event_types
from tocsin.engine.store.preference import Latest, Preferences, QuietHours, Subscription
from tocsin.http import fields
from tocsin.http.auth import PersonRequest, anyone_known, people_router, router
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import Described
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.pages.html import reader
from tocsin.http.requests import Services, rest

PATH = "/api/notification-preferences/"

NamedOverrides = Annotated[
    dict[str, dict[str, bool | None]],
    Meta(max_length=1000),
    Described(
        description="By `*`, `category.*` or event type: each channel on, off, or null to inherit again.",
        schema_extra={"maxProperties": 1000},
    ),
]


class ChangedPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides to merge into those that there are."""

    overrides: NamedOverrides


@get(PATH)
async def get_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> Preferences:
    """Read the preferences.

    What is on for each event type, and which preference or default decides it.
    """
    return await preference.get_preferences(services.database, request.auth.recipient_id)


@patch(PATH)
async def change_preferences(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[ChangedPreferences]
) -> Preferences:
    """Change preferences.

    The body is merged into what there is; null inherits again. An event type's own override is stronger than its
    category's, and that is stronger than `*`. A mandatory channel stays on whatever is chosen.
    """
    return await preference.set_overrides(
        services.database, request.auth.recipient_id, data.overrides
    )


DIGEST_PATH = "/api/digest-preferences/"

TimeOfDay = Annotated[
    str,
    Meta(
        pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$(?!\n)",
        description="`HH:MM`, from 00:00 to 23:59.",
        examples=["22:30"],
    ),
]


class ChangedDigestPreferences(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is; `categories` null are all, later ones too."""

    frequency: Frequency | None = None
    categories: Annotated[list[str], Meta(max_length=1000)] | UnsetType | None = UNSET
    send_at: TimeOfDay | None = None
    timezone: Annotated[str, Meta(description="An IANA name such as `Europe/Rome`.")] | None = None
    weekday: Weekday | None = None


@get(DIGEST_PATH)
async def get_digest_preferences(
    request: PersonRequest, services: NamedDependency[Services]
) -> DigestPreferences:
    """Read the digest's preferences.

    `next_at` is when the next one is due; null while it is off.
    """
    return await digest.get_digest_preferences(services.database, request.auth.recipient_id)


@patch(DIGEST_PATH)
async def change_digest_preferences(
    request: PersonRequest,
    services: NamedDependency[Services],
    data: JSONBody[ChangedDigestPreferences],
) -> DigestPreferences:
    """Change the digest's preferences.

    The body is merged into what there is. While the digest is on, what happens in its categories comes in one mail
    a day or a week and not in mails of its own; what a digest may not hold still does. When it is turned off, what
    waits comes in one last digest.
    """
    return await digest.set_digest_preferences(
        services.database,
        request.auth.recipient_id,
        DigestChange(
            data.frequency,
            _categories(data.categories),
            time.fromisoformat(data.send_at) if data.send_at else None,
            data.timezone,
            data.weekday,
        ),
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


@get(QUIET_HOURS_PATH)
async def get_quiet_hours(
    request: PersonRequest, services: NamedDependency[Services]
) -> QuietHours:
    """Read the quiet hours.

    Null where there are none.
    """
    return await preference.get_quiet_hours(services.database, request.auth.recipient_id)


@put(QUIET_HOURS_PATH)
async def set_quiet_hours(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[ChosenQuietHours]
) -> QuietHours:
    """Set the quiet hours.

    Within them no mail and no push is sent, except for event types of high priority and the digest, whose hour is
    chosen; the rest follows at their end. The inbox and its badge do not change.
    """
    return await preference.set_quiet_hours(
        services.database,
        request.auth.recipient_id,
        starts=time.fromisoformat(data.starts) if data.starts else None,
        ends=time.fromisoformat(data.ends) if data.ends else None,
        timezone=data.timezone,
    )


class CatalogueType(Struct, frozen=True):
    """One event type."""

    event_type: str
    label: str
    default_channels: list[str]
    mandatory_channels: list[str]
    priority: str
    digest: bool  # digests may hold it
    throttle: str | None = (
        None  # so many messages in a time, such as 10/1h; others are joined to one
    )


class CatalogueCategory(Struct, frozen=True):
    """A category with its event types."""

    category: str
    label: str
    event_types: list[CatalogueType]


class Catalogue(Struct, frozen=True):
    """All event types by category, in the catalogue's order."""

    results: list[CatalogueCategory]


@get("/api/event-types/")
async def event_types(
    request: AnyRequest,
    services: NamedDependency[Services],
    locale: Annotated[
        str,
        QueryParameter(
            max_length=35,
            pattern="^[A-Za-z0-9_-]*$(?!\n)",
            examples=[Example(value="de-AT")],
            description="Labels in this language, where there are words of them; else as the catalogue has them.",
        ),
    ] = "",
) -> Catalogue:
    """List the event types.

    By category, in the catalogue's order.
    """
    label: Callable[[str], str] = str
    if locale:  # by the same words as in the mails
        label = reader(services, request, locale).language.label
    types = [
        structs.replace(each, label=label(each.label), category_label=label(each.category_label))
        for each in await list_event_types(services.database)
    ]
    return Catalogue(
        [
            CatalogueCategory(
                category,
                category_label,
                convert([*group], list[CatalogueType], from_attributes=True),
            )
            for (category, category_label), group in groupby(
                types, lambda each: (each.category, each.category_label)
            )
        ]
    )


TOPICS_PATH = "/api/subscriptions/"

Level = Annotated[
    str,
    fields.Described(
        description="All that happens in it, mentions only, or nothing.",
        schema_extra={"enum": ["all", "mentions", "muted"]},
    ),
]


class Follow(Struct, frozen=True, forbid_unknown_fields=True):
    """A topic, and how closely to follow it."""

    topic: fields.Topic
    level: Level = "all"


class FollowedTopic(Struct, frozen=True):
    """A topic that somebody follows or has muted; `because` is `followed` or `replied`.

    A topic has no title of its own: `latest` is the newest notification of it in the person's inbox.
    """

    topic: str
    level: str
    because: str
    created_at: datetime
    latest: Latest | None


class SubscriptionListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[FollowedTopic]
    next: str | None
    previous: str | None


@get(TOPICS_PATH)
async def list_subscriptions(
    request: PersonRequest,
    services: NamedDependency[Services],
    topic: Annotated[
        fields.Topic | None, QueryParameter(description="Only this one, where it is there.")
    ] = None,
    limit: fields.Limit = 20,
    cursor: FromQuery[fields.CursorText | None] = None,
) -> SubscriptionListing:
    """List the topics that you follow.

    The list also has the topics that you have muted. Newest first.
    """
    page = await preference.list_subscriptions(
        services.database,
        request.auth.recipient_id,
        topic,
        cursor=fields.read_cursor(cursor),
        limit=limit,
    )
    older, newer = fields.page_links(services, TOPICS_PATH, page, fields.without_nulls(limit=limit))
    results = await _public(services, request.auth.recipient_id, page.results)
    return SubscriptionListing(results, older, newer)


@post(
    TOPICS_PATH,
    responses={200: OtherResponse("It was followed or muted already.", FollowedTopic)},
    status_code=201,
    opt=noted(fails=(409,)),
)
async def subscribe(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[Follow]
) -> Response[FollowedTopic]:
    """Follow a topic.

    A repeated call changes how closely it is followed; `muted` is stronger than any mention.
    """
    found, new = await preference.subscribe(
        services.database, request.auth.recipient_id, data.topic, data.level
    )
    (followed,) = await _public(services, request.auth.recipient_id, [found])
    return Response(followed, status_code=201 if new else 200)


@delete(TOPICS_PATH + "{topic:path}", status_code=204, opt=noted(fails=(409,)))
async def unsubscribe(request: PersonRequest, services: NamedDependency[Services]) -> None:
    """Stop following a topic.

    The topic in the path may be percent-encoded. A muted topic is no longer muted.
    """
    topic = rest(request.scope, TOPICS_PATH)
    await preference.unsubscribe(services.database, request.auth.recipient_id, topic)


async def _public(
    services: Services, recipient_id: str, found: Sequence[Subscription]
) -> list[FollowedTopic]:
    topics = [each.topic for each in found]
    latest = (
        await preference.latest_of_topics(services.database, recipient_id, topics) if topics else {}
    )
    return [
        FollowedTopic(each.topic, each.level, each.because, each.created_at, latest.get(each.topic))
        for each in found
    ]


ROUTERS = (
    people_router(
        "Preferences",
        get_preferences,
        change_preferences,
        get_digest_preferences,
        change_digest_preferences,
        get_quiet_hours,
        set_quiet_hours,
    ),
    router("Preferences", "known", event_types, guards=[anyone_known]),
    people_router("Topics", list_subscriptions, subscribe, unsubscribe),
)
