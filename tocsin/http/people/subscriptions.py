"""What a person follows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from litestar import Response, delete, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from tocsin.engine.store import preference as store
from tocsin.engine.store.preference import Latest, Subscription
from tocsin.http import examples
from tocsin.http.fields import CursorText, Limit, Listing, Topic, beside, plain, read_cursor
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services, no_content, read_body, read_query, reply, rest

PATH = "/api/subscriptions/"
TAG = "Topics"

Level = Annotated[
    str,
    Meta(
        description="All that happens in it, mentions only, or nothing.",
        extra_json_schema={"enum": ["all", "mentions", "muted"]},
    ),
]


class Follow(Struct, frozen=True, forbid_unknown_fields=True):
    """A topic, and how closely to follow it."""

    topic: Topic
    level: Level = "all"


class FollowedTopic(Struct, frozen=True):
    """A topic that somebody follows or has muted; `because` is `followed` or `replied`.

    A topic has no title of its own: `latest` is what the person was last told of it, where that is in their inbox.
    """

    topic: str
    level: str
    because: str
    created_at: datetime
    latest: Latest | None


class SubscriptionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of them."""

    topic: Annotated[Topic, Meta(description="Only this one, where it is there.")] | None = None
    limit: Limit = 20
    cursor: CursorText | None = None


@get(
    PATH,
    opt=documented(
        Operation(
            summary="List what you follow",
            description="And what you have muted; newest first.",
            tag=TAG,
            query=SubscriptionQuery,
            answers={
                200: Answer(
                    "A page.",
                    Listing[FollowedTopic],
                    {"results": [examples.SUBSCRIPTION], "next": None, "previous": None},
                )
            },
        )
    ),
)
async def list_subscriptions(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A page of subscriptions."""
    query = read_query(request, SubscriptionQuery)
    page = await store.list_subscriptions(
        services.database,
        request.auth.recipient_id,
        query.topic,
        cursor=read_cursor(query.cursor),
        limit=query.limit,
    )
    older, newer = beside(services, PATH, page, plain(limit=query.limit))
    results = await _public(services, request.auth.recipient_id, page.results)
    return reply(Listing(results, older, newer))


@post(
    PATH,
    opt=documented(
        Operation(
            summary="Follow a topic",
            description="Or change how closely it is followed; `muted` is stronger than any mention.",
            tag=TAG,
            body=Follow,
            body_example={"topic": "forum.thread:42", "level": "all"},
            answers={
                200: Answer(
                    "It was followed or muted already.", FollowedTopic, examples.SUBSCRIPTION
                ),
                201: Answer("It is new.", FollowedTopic, examples.SUBSCRIPTION),
            },
            fails=(409,),
        )
    ),
    status_code=201,
)
async def subscribe(request: PersonRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Follows a topic."""
    posted = await read_body(request, Follow)
    found, new = await store.subscribe(
        services.database, request.auth.recipient_id, posted.topic, posted.level
    )
    (followed,) = await _public(services, request.auth.recipient_id, [found])
    return reply(followed, 201 if new else 200)


@delete(
    PATH + "{topic:path}",
    opt=documented(
        Operation(
            summary="Follow a topic no more",
            description="Percent-encoded or as it is. A muted one is muted no more.",
            tag=TAG,
            answers={204: Answer("Done.")},
            fails=(409,),
        )
    ),
    status_code=204,
)
async def unsubscribe(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[None]:
    """Follows a topic no more."""
    topic = rest(request.scope, PATH)
    await store.unsubscribe(services.database, request.auth.recipient_id, topic)
    return no_content()


async def _public(
    services: Services, recipient_id: str, found: Sequence[Subscription]
) -> list[FollowedTopic]:
    topics = [each.topic for each in found]
    latest = await store.latest_of_topics(services.database, recipient_id, topics) if topics else {}
    return [
        FollowedTopic(each.topic, each.level, each.because, each.created_at, latest.get(each.topic))
        for each in found
    ]
