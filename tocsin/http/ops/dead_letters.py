"""Deliveries that failed for good, and their replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import structlog
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.explain.why import mask
from tocsin.engine.model import Invalid
from tocsin.engine.store.credential import Operator
from tocsin.engine.store.delivery import (
    BATCH,
    DeadFilter,
    DeadLetter,
    dead_letter_reasons,
    dead_letters,
    replay,
    replay_batch,
)
from tocsin.http.access_log import QUIET
from tocsin.http.fields import CursorText, Limit, read_cursor
from tocsin.http.openapi import get, noted
from tocsin.http.requests import Services

TAG = "Operations"
PATH = "/ops/api/dead-letters/"
_BACK = timedelta(days=7)  # by default

log = structlog.get_logger("tocsin.ops")

Since = Annotated[datetime, Meta(tz=True, description="Failed since then; by default a week ago.")]
FailedSince = Annotated[
    datetime | None, QueryParameter(description="Failed since then; by default a week ago.")
]
OpsRequest = Request[Operator, Any, State]


class DeadLetterView(Struct, frozen=True):
    """One delivery that failed; `held`: why a replay would leave it as it is, null where it would not."""

    delivery_id: int
    notification_id: int | None
    event_id: int | None
    recipient_id: str | None
    channel: str
    event_type: str | None
    title: str | None
    reason: str | None
    last_reason: str | None
    attempts: int
    address: str | None  # masked
    created_at: datetime
    failed_at: datetime
    held: str | None


class DeadLetterPage(Struct, frozen=True):
    """A page of them, newest first; `next` is the cursor of the one after."""

    results: list[DeadLetterView]
    next: str | None


class DeadReasonView(Struct, frozen=True):
    """How many failed for one reason, what it means and what to do."""

    channel: str
    reason: str
    n: int
    first_at: datetime
    last_at: datetime
    meaning: str
    cure: str


class DeadReasons(Struct, frozen=True):
    """By channel and reason, the most frequent first."""

    results: list[DeadReasonView]


class ReplayBody(Struct, frozen=True):
    """These deliveries, or in their place those that match; `lift` opens closed addresses and devices again."""

    delivery_ids: Annotated[list[int], Meta(max_length=BATCH)] | None = None
    since: Since | None = None
    channel: str | None = None
    reason: str | None = None
    cursor: str | None = None
    lift: bool = False


class ReplayAnswer(Struct, frozen=True):
    """How many are due again, and how many stay as they are, by cause; `next`: send it as `cursor` to go on."""

    replayed: int
    kept: dict[str, int]
    next: str | None = None


@get(
    PATH,
    summary="List dead letters",
    tags=[TAG],
    response_description="A page of them.",
    opt={QUIET: True},
)
async def list_dead_letters(
    services: NamedDependency[Services],
    since: FailedSince = None,
    channel: FromQuery[str | None] = None,
    reason: FromQuery[str | None] = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> DeadLetterPage:
    """A page of what failed for good."""
    found, following = await dead_letters(
        services.database,
        DeadFilter(since or _a_week_ago(), channel, reason),
        cursor=read_cursor(cursor),
        limit=limit,
    )
    return DeadLetterPage(
        [_view(each) for each in found], None if following is None else str(following)
    )


@get(
    PATH + "reasons/",
    summary="Count dead letters by their reasons",
    description="Of the newest 50,000.",
    tags=[TAG],
    response_description="The counts.",
    opt={QUIET: True},
)
async def count_dead_letters(
    services: NamedDependency[Services], since: FailedSince = None
) -> DeadReasons:
    """How many failed, and why."""
    found = await dead_letter_reasons(services.database, since or _a_week_ago())
    return DeadReasons(
        [
            DeadReasonView(
                each.channel,
                each.reason,
                each.n,
                each.first_at,
                each.last_at,
                *meaning_and_cure(each.reason),
            )
            for each in found
        ]
    )


@post(
    PATH + "replay/",
    summary="Retry dead letters",
    description="A fresh set of attempts under the same Message-ID or apns-id; whether each is still to be sent is "
    f"checked again right before that. Of those that match, {BATCH} a call, from the newest on: repeat it with "
    "`cursor` while there is a `next`. What was cancelled or expired meanwhile stays. So does what would go to a "
    "suppressed address or a disabled device, unless `lift` is true and it was closed because of this failure.",
    tags=[TAG],
    response_description="What it came to.",
    status_code=200,
    opt=noted(body={"channel": "email", "reason": "attempts_exhausted"}),
)
async def replay_dead_letters(
    request: OpsRequest, services: NamedDependency[Services], data: JSONBody[ReplayBody]
) -> ReplayAnswer:
    """Tries one, several, or a batch of all that match."""
    if data.delivery_ids is not None:
        if data.channel or data.reason or data.since or data.cursor:
            cure = "Name deliveries, or give filters, but not both."
            raise Invalid("deliveries and filters", ("delivery_ids", cure))
        done = await replay(services.database, data.delivery_ids, lift=data.lift)
    else:
        done = await replay_batch(
            services.database,
            DeadFilter(data.since or _a_week_ago(), data.channel, data.reason),
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
    return ReplayAnswer(done.replayed, done.kept, None if done.next is None else str(done.next))


def _a_week_ago() -> datetime:
    return datetime.now(UTC) - _BACK


def _view(letter: DeadLetter) -> DeadLetterView:
    return DeadLetterView(
        delivery_id=letter.delivery_id,
        notification_id=letter.notification_id,
        event_id=letter.event_id,
        recipient_id=letter.recipient_id,
        channel=letter.channel,
        event_type=letter.event_type,
        title=letter.title,
        reason=letter.reason,
        last_reason=letter.last_reason,
        attempts=letter.attempts,
        address=None if letter.address is None else mask(letter.address),
        created_at=letter.created_at,
        failed_at=letter.failed_at,
        held=letter.held,
    )
