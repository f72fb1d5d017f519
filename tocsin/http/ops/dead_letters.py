"""Deliveries that failed permanently, and their replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import structlog
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct, structs

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.explain.why import mask
from tocsin.engine.model import Invalid
from tocsin.engine.store import operations as store
from tocsin.engine.store.credential import Operator
from tocsin.http.fields import CursorText, Limit, read_cursor
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.ops.ops_page import ops_router
from tocsin.http.requests import Services

PATH = "/ops/api/dead-letters/"
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


@get(PATH, opt={QUIET: True})
async def list_dead_letters(
    services: NamedDependency[Services],
    since: FailedSince = None,
    channel: FromQuery[str | None] = None,
    reason: FromQuery[str | None] = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> DeadLetterPage:
    """List dead letters."""
    found, following = await store.dead_letters(
        services.database,
        store.DeadFilter(since or _a_week_ago(), channel, reason),
        cursor=read_cursor(cursor),
        limit=limit,
    )
    masked = [structs.replace(each, address=each.address and mask(each.address)) for each in found]
    return DeadLetterPage(masked, None if following is None else str(following))


@get(PATH + "reasons/", opt={QUIET: True})
async def count_dead_letters(
    services: NamedDependency[Services], since: FailedSince = None
) -> DeadReasons:
    """Count dead letters by their reasons.

    Counts the newest 50,000 at most.
    """
    found = await store.dead_letter_reasons(services.database, since or _a_week_ago())
    return DeadReasons([_explained(each) for each in found])


def _explained(reason: store.DeadReason) -> ExplainedReason:
    meaning, cure = meaning_and_cure(reason.reason)
    return ExplainedReason(**structs.asdict(reason), meaning=meaning, cure=cure)


@post(
    PATH + "replay/",
    status_code=200,
)
async def replay_dead_letters(
    request: OpsRequest, services: NamedDependency[Services], data: JSONBody[ReplayBody]
) -> ReplayResult:
    """Retry dead letters.

    A fresh set of attempts under the same Message-ID or apns-id; whether each is still to be sent is checked again
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


ROUTERS = (ops_router(list_dead_letters, count_dead_letters, replay_dead_letters),)
