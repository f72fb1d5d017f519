"""Deliveries that failed for good, and their replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import structlog
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
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
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import CursorText, Limit, read_cursor
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.requests import Services, read_body, read_query, reply

TAG = "Operations"
PATH = "/ops/api/dead-letters/"
_BACK = timedelta(days=7)  # by default

log = structlog.get_logger("tocsin.ops")

Since = Annotated[datetime, Meta(tz=True, description="Failed since then; by default a week ago.")]
OpsRequest = Request[Operator, Any, State]


class DeadLettersQuery(Struct, frozen=True):
    """Which ones."""

    since: Since | None = None
    channel: str | None = None
    reason: str | None = None
    limit: Limit = 20
    cursor: CursorText | None = None


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
    opt={
        QUIET: True,
        **documented(
            Operation(
                summary="List dead letters",
                tag=TAG,
                query=DeadLettersQuery,
                answers={200: Answer("A page of them.", DeadLetterPage)},
            )
        ),
    },
)
async def list_dead_letters(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A page of what failed for good."""
    query = read_query(request, DeadLettersQuery)
    found, following = await dead_letters(
        services.database,
        _wanted(query),
        cursor=read_cursor(query.cursor),
        limit=query.limit,
    )
    return reply(
        DeadLetterPage(
            [_view(each) for each in found], None if following is None else str(following)
        )
    )


class DeadReasonsQuery(Struct, frozen=True):
    """Since when."""

    since: Since | None = None


@get(
    PATH + "reasons/",
    opt={
        QUIET: True,
        **documented(
            Operation(
                summary="Count dead letters by their reasons",
                description="Of the newest 50,000.",
                tag=TAG,
                query=DeadReasonsQuery,
                answers={200: Answer("The counts.", DeadReasons)},
            )
        ),
    },
)
async def count_dead_letters(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """How many failed, and why."""
    query = read_query(request, DeadReasonsQuery)
    found = await dead_letter_reasons(services.database, query.since or _a_week_ago())
    return reply(
        DeadReasons(
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
    )


@post(
    PATH + "replay/",
    status_code=200,
    opt=documented(
        Operation(
            summary="Try dead letters anew",
            description=(
                "A fresh set of attempts under the same Message-ID or apns-id; whether each is still wanted is asked "
                f"anew as it leaves. Of those that match, {BATCH} a call, from the newest on: repeat it with `cursor` "
                "while there is a `next`. What was cancelled or expired meanwhile stays. So does what would go to a "
                "suppressed address or a disabled device, unless `lift` says so and it was for this very failure."
            ),
            tag=TAG,
            body=ReplayBody,
            body_example={"channel": "email", "reason": "attempts_exhausted"},
            answers={200: Answer("What it came to.", ReplayAnswer)},
        )
    ),
)
async def replay_dead_letters(
    request: OpsRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Tries one, several, or a batch of all that match."""
    body = await read_body(request, ReplayBody)
    if body.delivery_ids is not None:
        if body.channel or body.reason or body.since or body.cursor:
            cure = "Name deliveries, or say which match, but not both."
            raise Invalid("two ways to say which", ("delivery_ids", cure))
        done = await replay(services.database, body.delivery_ids, lift=body.lift)
    else:
        done = await replay_batch(
            services.database, _wanted(body), cursor=read_cursor(body.cursor), lift=body.lift
        )
    log.info(
        "replayed",
        api_key_id=request.auth.api_key_id,
        replayed=done.replayed,
        kept=sum(done.kept.values()),
        lift=body.lift,
    )
    return reply(
        ReplayAnswer(done.replayed, done.kept, None if done.next is None else str(done.next))
    )


def _wanted(asked: DeadLettersQuery | ReplayBody) -> DeadFilter:
    return DeadFilter(asked.since or _a_week_ago(), asked.channel, asked.reason)


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
