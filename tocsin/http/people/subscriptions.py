"""What a person follows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Struct

from tocsin.engine.store import preference as store
from tocsin.engine.store.preference import Latest, Subscription
from tocsin.http import fields
from tocsin.http.auth import people_router
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services, rest

PATH = "/api/subscriptions/"

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


@get(PATH)
async def list_subscriptions(
    request: PersonRequest,
    services: NamedDependency[Services],
    topic: Annotated[
        fields.Topic | None, QueryParameter(description="Only this one, where it is there.")
    ] = None,
    limit: fields.Limit = 20,
    cursor: FromQuery[fields.CursorText | None] = None,
) -> SubscriptionListing:
    """List what you follow.

    And what you have muted; newest first.
    """
    page = await store.list_subscriptions(
        services.database,
        request.auth.recipient_id,
        topic,
        cursor=fields.read_cursor(cursor),
        limit=limit,
    )
    older, newer = fields.page_links(services, PATH, page, fields.without_nulls(limit=limit))
    results = await _public(services, request.auth.recipient_id, page.results)
    return SubscriptionListing(results, older, newer)


@post(
    PATH,
    responses={200: OtherResponse("It was followed or muted already.", FollowedTopic)},
    status_code=201,
    opt=noted(fails=(409,)),
)
async def subscribe(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[Follow]
) -> Response[FollowedTopic]:
    """Follow a topic.

    Or change how closely it is followed; `muted` is stronger than any mention.
    """
    found, new = await store.subscribe(
        services.database, request.auth.recipient_id, data.topic, data.level
    )
    (followed,) = await _public(services, request.auth.recipient_id, [found])
    return Response(followed, status_code=201 if new else 200)


@delete(PATH + "{topic:path}", status_code=204, opt=noted(fails=(409,)))
async def unsubscribe(request: PersonRequest, services: NamedDependency[Services]) -> None:
    """Follow a topic no more.

    Percent-encoded or as it is. A muted one is muted no more.
    """
    topic = rest(request.scope, PATH)
    await store.unsubscribe(services.database, request.auth.recipient_id, topic)


async def _public(
    services: Services, recipient_id: str, found: Sequence[Subscription]
) -> list[FollowedTopic]:
    topics = [each.topic for each in found]
    latest = await store.latest_of_topics(services.database, recipient_id, topics) if topics else {}
    return [
        FollowedTopic(each.topic, each.level, each.because, each.created_at, latest.get(each.topic))
        for each in found
    ]


ROUTERS = (people_router("Topics", list_subscriptions, subscribe, unsubscribe),)
