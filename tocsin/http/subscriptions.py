"""What a person follows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from tocsin.engine.store import subscription as store
from tocsin.engine.store.subscription import Subscription
from tocsin.http import examples
from tocsin.http.notifications import PersonRequest
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.paging import CursorText, Limit, Listing, beside, plain, read_cursor
from tocsin.http.parse import no_content, read_body, read_query, reply
from tocsin.http.paths import rest
from tocsin.http.services import Services

PATH = "/api/subscriptions/"
TAG = "Topics"

# What may be in them is the database's to say: its refusals name the cure.
Topic = Annotated[
    str,
    Meta(
        description="1 to 200 characters of `A-Z a-z 0-9 . _ : / -`.", examples=["forum.thread:42"]
    ),
]
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
    """A topic that somebody follows or has muted; `because` is `followed` or `replied`."""

    topic: str
    level: str
    because: str
    created_at: datetime


class SubscriptionQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of them."""

    topic: Annotated[str, Meta(description="Only this one, where it is there.")] | None = None
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
    return reply(Listing([_public(each) for each in page.results], older, newer))


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
    return reply(_public(found), 201 if new else 200)


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


def _public(found: Subscription) -> FollowedTopic:
    return FollowedTopic(found.topic, found.level, found.because, found.created_at)
