"""A person's inbox, and who is signed in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Request, Response, delete, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

from tocsin.engine.explain.why import Explanation, explain
from tocsin.engine.model import NotFound, Notification
from tocsin.engine.store import notification as store
from tocsin.engine.store.event import check_filter
from tocsin.engine.store.notification import Filter
from tocsin.http import examples, quick_count
from tocsin.http.auth import Person
from tocsin.http.fields import (
    CategoryName,
    CursorText,
    EventTypeName,
    Limit,
    beside,
    plain,
    read_cursor,
)
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.requests import Services, no_content, read_body, read_query, reply, row_id

_UNDO = "Tocsin-Undo"
TAG = "Inbox"
PATH = "/api/notifications/"

PersonRequest = Request[Any, Person, State]


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the inbox."""

    limit: Limit = 20
    cursor: CursorText | None = None
    read: (
        Annotated[bool, Meta(description="Only read ones (true) or unread ones (false).")] | None
    ) = None
    event_type: EventTypeName | None = None
    category: CategoryName | None = None


class InboxListing(Struct, frozen=True):
    """A page, newest first; `as_of` is for mark-all-read."""

    results: list[Notification]
    next: str | None
    previous: str | None
    as_of: str


class ReadState(Struct, frozen=True, forbid_unknown_fields=True):
    """Read, or put back to unread."""

    read: bool = True


class MarkAll(Struct, frozen=True, forbid_unknown_fields=True):
    """What a list with these filters, at that moment, could show."""

    category: CategoryName | None = None
    event_type: EventTypeName | None = None
    as_of: Annotated[str, Meta(max_length=20_000)] | None = None


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """Which mark-all to take back."""

    undo: Annotated[str, Meta(min_length=1, max_length=200)]


class Unmarked(Struct, frozen=True):
    """How many are unread again."""

    unmarked: int


class Count(Struct, frozen=True):
    """The badge."""

    count: int


class CountByCategory(Struct, frozen=True):
    """The badge, and each category's share."""

    count: int
    categories: dict[str, int]


class Marked(Struct, frozen=True):
    """How many were marked."""

    marked: int


@get(
    PATH,
    opt=documented(
        Operation(
            summary="List the inbox",
            description="Newest first. `next` and `previous` keep the filters; pages stay put while new ones arrive.",
            tag=TAG,
            query=ListQuery,
            answers={200: Answer("A page.", InboxListing, examples.LISTING)},
        )
    ),
)
async def list_notifications(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A page of the inbox."""
    query = read_query(request, ListQuery)
    cursor = read_cursor(query.cursor)
    await check_filter(services.database, query.event_type, query.category)
    inbox = await store.list_notifications(
        services.database,
        request.auth.recipient_id,
        Filter(query.read, query.event_type, query.category),
        cursor=cursor,
        limit=query.limit,
    )
    kept = plain(
        limit=query.limit,
        read=query.read,
        event_type=query.event_type,
        category=query.category,
    )
    older, newer = beside(services, PATH, inbox.page, kept)
    return reply(InboxListing(inbox.page.results, older, newer, inbox.as_of))


@get(
    PATH + "{notification_id:int}/",
    opt=documented(
        Operation(
            summary="Read one",
            description="Also one that never was in the inbox, or was removed from it.",
            tag=TAG,
            answers={200: Answer("The notification.", Notification, examples.NOTIFICATION)},
        )
    ),
)
async def get_notification(
    request: PersonRequest, services: NamedDependency[Services], notification_id: FromPath[int]
) -> Response[bytes]:
    """One notification."""
    return reply(
        await store.get_notification(
            services.database, request.auth.recipient_id, row_id(notification_id)
        )
    )


@patch(
    PATH + "{notification_id:int}/read/",
    opt=documented(
        Operation(
            summary="Mark one read, or unread",
            tag=TAG,
            body=ReadState,
            body_example={"read": True},
            body_required=False,
            answers={
                200: Answer(
                    "As it is now.",
                    Notification,
                    examples.NOTIFICATION | {"read": True, "read_at": "2026-11-21T08:20:00Z"},
                )
            },
        )
    ),
)
async def mark_read(
    request: PersonRequest, services: NamedDependency[Services], notification_id: FromPath[int]
) -> Response[bytes]:
    """Marks one read."""
    wanted = await read_body(request, ReadState, optional=True)
    return reply(
        await store.mark_read(
            services.database,
            request.auth.recipient_id,
            row_id(notification_id),
            read=wanted.read,
        )
    )


@delete(
    PATH + "{notification_id:int}/",
    opt=documented(
        Operation(
            summary="Remove one from the inbox",
            description="It leaves list and badge; by its id it is still found.",
            tag=TAG,
            answers={204: Answer("Removed.")},
        )
    ),
    status_code=204,
)
async def archive(
    request: PersonRequest, services: NamedDependency[Services], notification_id: FromPath[int]
) -> Response[None]:
    """Archives one."""
    await store.archive(services.database, request.auth.recipient_id, row_id(notification_id))
    return no_content()


@post(
    PATH + "mark-all-read/",
    opt=documented(
        Operation(
            summary="Mark all read",
            description="With `as_of` of a list, no more than what that list could show.",
            tag=TAG,
            body=MarkAll,
            body_example={"category": "forum", "as_of": "NzUxOjc1MTo"},
            body_required=False,
            answers={
                200: Answer(
                    "How many were unread.",
                    Marked,
                    {"marked": 3},
                    headers={_UNDO: "What takes it back; for the call to undo it."},
                )
            },
        )
    ),
    status_code=200,
)
async def mark_all_read(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Marks what a list could show."""
    wanted = await read_body(request, MarkAll, optional=True)
    await check_filter(services.database, wanted.event_type, wanted.category)
    marked = await store.mark_all_read(
        services.database,
        request.auth.recipient_id,
        Filter(event_type=wanted.event_type, category=wanted.category),
        as_of=wanted.as_of,
    )
    return reply(Marked(marked.marked), headers={_UNDO: marked.undo})


@post(
    PATH + "mark-all-read/undo/",
    opt=documented(
        Operation(
            summary="Undo a mark-all",
            description=f"`undo` is the header `{_UNDO}` of its answer. What was touched since stays as it is.",
            tag=TAG,
            body=Undo,
            body_example={"undo": "MjAyNi0xMS0yMVQwODoyMDowMCswMDowMA"},
            answers={200: Answer("How many are unread again.", Unmarked, {"unmarked": 3})},
        )
    ),
    status_code=200,
)
async def undo_mark_all_read(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Takes a mark-all back."""
    wanted = await read_body(request, Undo)
    return reply(
        Unmarked(
            await store.undo_mark_all_read(
                services.database, request.auth.recipient_id, wanted.undo
            )
        )
    )


@get(
    quick_count.PATH,
    opt=documented(
        Operation(
            summary="Count the unread ones",
            description="Exact, from a snapshot taken after the request arrived.",
            tag=TAG,
            answers={200: Answer("The badge.", Count, {"count": 3})},
        )
    ),
)
async def unread_count(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """The exact count, where it has not been sent before Litestar."""
    failed: Exception | None = request.scope["state"].get(quick_count.FAILED)
    if failed is not None:
        raise failed
    return reply(Count(await services.hub.count(request.auth.recipient_id)))


@get(
    PATH + "unread-count/by-category/",
    opt=documented(
        Operation(
            summary="Count the unread ones by category",
            description="Exact; categories without any are left out.",
            tag=TAG,
            answers={
                200: Answer(
                    "All of them together, and each.",
                    CountByCategory,
                    {"count": 5, "categories": {"election": 1, "forum": 4}},
                )
            },
        )
    ),
)
async def unread_by_category(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """The exact counts."""
    counts = await store.unread_by_category(services.database, request.auth.recipient_id)
    return reply(CountByCategory(sum(counts.values()), counts))


@get(
    PATH + "{notification_id:int}/why/",
    opt=documented(
        Operation(
            summary="Why did (not) this reach me?",
            tag=TAG,
            answers={
                200: Answer("Each channel's decision and deliveries.", Explanation, examples.WHY)
            },
        )
    ),
)
async def why(
    request: PersonRequest, services: NamedDependency[Services], notification_id: FromPath[int]
) -> Response[bytes]:
    """Explains one notification."""
    id_ = row_id(notification_id)
    decided = await store.why(services.database, [id_], recipient_id=request.auth.recipient_id)
    if id_ not in decided:
        raise NotFound
    return reply(explain(decided[id_]))


class Me(Struct, frozen=True):
    """Whom the token names, and until when it is good."""

    recipient: str
    expires_at: datetime


@get(
    "/api/me/",
    opt=documented(
        Operation(
            summary="Who is signed in",
            description="So that a page notices when its cookie has become somebody else's.",
            tag="Inbox",
            answers={
                200: Answer(
                    "They are.", Me, {"recipient": "alice", "expires_at": "2026-11-22T08:00:00Z"}
                )
            },
        )
    ),
)
async def me(request: PersonRequest) -> Response[bytes]:
    """Whoever calls."""
    person = request.auth
    return reply(Me(person.recipient_id, datetime.fromtimestamp(int(person.expires_at), UTC)))
