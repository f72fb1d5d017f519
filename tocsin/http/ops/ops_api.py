"""What operators do: search and explain, retry what failed permanently, lift suppressions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import structlog
from litestar import Request, delete, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct, structs

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.explain.why import ExplainedChannel, explain, mask
from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store import operations as store
from tocsin.engine.store.credential import Operator
from tocsin.engine.store.database import Queries
from tocsin.engine.store.event import Event, get_event
from tocsin.engine.store.mail_event import lift_by_id
from tocsin.engine.store.mail_event import list_suppressions as find_suppressions
from tocsin.engine.store.notification import Decisions, why
from tocsin.http.apps.mail_events import ListedSuppression, SuppressionReason, explained
from tocsin.http.fields import CursorText, Limit, RowId, read_cursor
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.ops.ops_page import ops_router
from tocsin.http.positions import read_from
from tocsin.http.requests import Services

DEAD_LETTERS = "/ops/api/dead-letters/"
SUPPRESSIONS = "/ops/api/suppressions/"
_DEFAULT_PERIOD = timedelta(days=7)

log = structlog.get_logger("tocsin.ops")

Since = Annotated[datetime, Meta(tz=True, description="Failed since then; by default a week ago.")]
FailedSince = Annotated[
    datetime | None, QueryParameter(description="Failed since then; by default a week ago.")
]
OpsRequest = Request[Operator, Any, State]


class DeadLetterPage(Struct, frozen=True):
    """A page of dead letters, newest first; `next` is the cursor of the following page."""

    results: list[store.DeadLetter]
    next: str | None


class ExplainedReason(store.DeadReason, frozen=True):
    """How many failed for one reason, what it means and what to do."""

    meaning: str
    cure: str


class DeadReasons(Struct, frozen=True):
    """Dead letters by channel and reason, the most frequent first."""

    results: list[ExplainedReason]


class ReplayBody(Struct, frozen=True):
    """The deliveries to retry, by id or by filters; `lift` enables their addresses and devices again."""

    delivery_ids: Annotated[list[int], Meta(max_length=store.BATCH)] | None = None
    since: Since | None = None
    channel: str | None = None
    reason: str | None = None
    cursor: str | None = None
    lift: bool = False


class ReplayResult(Struct, frozen=True):
    """How many are due again, and how many stay as they are, by cause; `next`: send it as `cursor` to go on."""

    replayed: int
    kept: dict[str, int]
    next: str | None = None


@get(DEAD_LETTERS, opt={QUIET: True})
async def list_dead_letters(
    request: OpsRequest,
    services: NamedDependency[Services],
    since: FailedSince = None,
    channel: FromQuery[str | None] = None,
    reason: FromQuery[str | None] = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> DeadLetterPage:
    """List dead letters."""
    wanted, place = store.DeadFilter(since or _a_week_ago(), channel, reason), read_cursor(cursor)
    found, following = await read_from(
        request,
        services,
        lambda source: store.dead_letters(source, wanted, cursor=place, limit=limit),
    )
    masked = [structs.replace(each, address=each.address and mask(each.address)) for each in found]
    return DeadLetterPage(masked, None if following is None else str(following))


@get(DEAD_LETTERS + "reasons/", opt={QUIET: True})
async def count_dead_letters(
    request: OpsRequest, services: NamedDependency[Services], since: FailedSince = None
) -> DeadReasons:
    """Count dead letters by their reasons.

    Counts the newest 50,000 at most.
    """
    beginning = since or _a_week_ago()
    found = await read_from(
        request, services, lambda source: store.dead_letter_reasons(source, beginning)
    )
    return DeadReasons([_explained(each) for each in found])


def _explained(reason: store.DeadReason) -> ExplainedReason:
    meaning, cure = meaning_and_cure(reason.reason)
    return ExplainedReason(**structs.asdict(reason), meaning=meaning, cure=cure)


@post(
    DEAD_LETTERS + "replay/",
    status_code=200,
)
async def replay_dead_letters(
    request: OpsRequest, services: NamedDependency[Services], data: JSONBody[ReplayBody]
) -> ReplayResult:
    """Retry dead letters.

    Each gets new attempts under the same Message-ID or apns-id; whether each is still to be sent is checked again
    right before that. Of those that match, 500 a call, from the newest on: repeat it with `cursor` while there is a
    `next`. What was cancelled or expired meanwhile stays. So does what would go to a suppressed address or a disabled
    device, unless `lift` is true and it was closed because of this failure.
    """
    if data.delivery_ids is not None:
        if data.channel or data.reason or data.since or data.cursor:
            cure = "Name deliveries, or give filters, but not both."
            raise Invalid("deliveries and filters", ("delivery_ids", cure))
        done = await store.replay(services.database, data.delivery_ids, lift=data.lift)
    else:
        done = await store.replay_batch(
            services.database,
            store.DeadFilter(data.since or _a_week_ago(), data.channel, data.reason),
            cursor=read_cursor(data.cursor),
            lift=data.lift,
        )
    log.info(
        "replayed",
        api_key_id=request.auth.api_key_id,
        replayed=done.replayed,
        kept=sum(done.kept.values()),
        lift=data.lift,
    )
    return ReplayResult(done.replayed, done.kept, None if done.next is None else str(done.next))


def _a_week_ago() -> datetime:
    return datetime.now(UTC) - _DEFAULT_PERIOD


_LINES = 25
_LAST_ID = 2**63 - 1
SearchText = Annotated[
    str,
    QueryParameter(
        min_length=1,
        max_length=320,
        description="The id of a recipient, an event or a notification, or an email address.",
    ),
]


class PersonView(store.PersonLine, frozen=True):
    """What decides what reaches a person; the address and the tokens masked."""

    notifications: list[store.NotificationLine]  # the newest first


class EventView(Struct, frozen=True):
    """An event, and the first people that were notified of it."""

    event: Event
    notifications: list[store.NotificationLine]


class Found(Struct, frozen=True):
    """All matches."""

    people: list[PersonView]
    event: EventView | None
    notification_id: int | None


class WhyView(Struct, frozen=True):
    """The explanation of one notification."""

    id: int
    event_id: int
    event_type: str
    title: str
    created_at: datetime
    recipient_id: str | None  # null for an address without an account
    email: str | None  # that address, masked
    channels: list[ExplainedChannel]


@get("/ops/api/search/")
async def search(request: OpsRequest, services: NamedDependency[Services], q: SearchText) -> Found:
    """Search."""
    return await read_from(request, services, lambda source: _search(source, q.strip()))


async def _search(database: Queries, text: str) -> Found:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number <= _LAST_ID:
        number = 0
    ids = await store.recipients_with_address(database, text) if "@" in text else []
    people = [await _person(database, id_) for id_ in dict.fromkeys([text, *ids])]
    exists = number and await store.notification_exists(database, number)
    return Found(
        people=[each for each in people if each is not None],
        event=await _event(database, number) if number else None,
        notification_id=number if exists else None,
    )


@get("/ops/api/notifications/{notification_id:int}/why/")
async def why_notification(
    request: OpsRequest, notification_id: RowId, services: NamedDependency[Services]
) -> WhyView:
    """Explain a notification."""

    async def read_decisions(source: Queries) -> Decisions:
        found = (await why(source, [notification_id])).get(notification_id)
        if found is None:
            raise NotFound("There is no such notification.")
        return found

    found = await read_from(request, services, read_decisions)
    return WhyView(
        id=notification_id,
        event_id=found.event_id,
        event_type=found.event_type,
        title=found.title,
        created_at=found.created_at,
        recipient_id=found.recipient_id,
        email=found.email and mask(found.email),
        channels=explain(found).channels,
    )


async def _person(database: Queries, recipient_id: str) -> PersonView | None:
    found = await store.find_person(database, recipient_id)
    if found is None:
        return None
    masked = structs.replace(
        found,
        email=found.email and mask(found.email),
        devices=[structs.replace(each, token=mask(each.token)) for each in found.devices],
    )
    lines = await store.notifications_of_person(database, recipient_id, _LINES)
    return PersonView(**structs.asdict(masked), notifications=lines)


async def _event(database: Queries, event_id: int) -> EventView | None:
    try:
        event = await get_event(database, event_id)
    except NotFound:
        return None
    return EventView(event, await store.notifications_of_event(database, event_id, _LINES))


class SuppressionPage(Struct, frozen=True):
    """A page of suppressed addresses, newest first; `next` is the cursor of the following page."""

    results: list[ListedSuppression]
    next: str | None


@get(SUPPRESSIONS, opt={QUIET: True})
async def list_suppressed_addresses(
    request: OpsRequest,
    services: NamedDependency[Services],
    reason: SuppressionReason = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> SuppressionPage:
    """List suppressed addresses.

    Newest first, masked.
    """
    place = read_cursor(cursor)
    page = await read_from(
        request,
        services,
        lambda source: find_suppressions(source, reason, cursor=place, limit=limit),
    )
    following = None if page.next is None else str(page.next)
    return SuppressionPage([explained(each) for each in page.results], following)


@delete(SUPPRESSIONS + "{suppression_id:int}/", status_code=204)
async def lift_suppressed_address(
    request: OpsRequest,
    services: NamedDependency[Services],
    suppression_id: RowId,
) -> None:
    """Lift a suppression.

    The address may be mailed again, from the next notification on.
    """
    reason = await lift_by_id(services.database, suppression_id)
    log.info("suppression lifted", api_key_id=request.auth.api_key_id, reason=reason)


ROUTERS = (
    ops_router(
        list_dead_letters,
        count_dead_letters,
        replay_dead_letters,
        search,
        why_notification,
        list_suppressed_addresses,
        lift_suppressed_address,
    ),
)
