"""The ledger: claim, presend check, settle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Struct, structs

from tocsin.engine.model import (
    Channel,
    CheckResult,
    Claimed,
    DeliveryState,
    Message,
    Priority,
    Withheld,
)
from tocsin.engine.store.database import Database, to_array
from tocsin.engine.store.pagination import Cursor
from tocsin.sql import load

_SQL = load("delivery")

# Dead letters: deliveries that failed for good, and their replay.

_LAST = 2**63 - 1
_COUNTED = 50_000  # of the newest
BATCH = 500
"""How many are replayed in one statement."""


class DeadLetter(Struct, frozen=True):
    """A delivery that failed; `held` is why a replay would leave it as it is."""

    delivery_id: int
    notification_id: int | None
    event_id: int | None
    recipient_id: str | None
    channel: str
    event_type: str | None
    title: str | None
    reason: str | None
    last_reason: str | None  # the reason of the last attempt
    attempts: int
    address: str | None  # in clear
    created_at: datetime
    failed_at: datetime
    held: str | None


class DeadReason(Struct, frozen=True):
    """How many failed for one reason."""

    channel: str
    reason: str
    n: int
    first_at: datetime
    last_at: datetime


class DeadFilter(Struct, frozen=True):
    """Which dead letters; None is all."""

    since: datetime
    channel: str | None = None
    reason: str | None = None


class Replayed(Struct, frozen=True):
    """How many are due again, and how many stay as they are, by cause; `next`: where to go on, None at the end."""

    replayed: int
    kept: dict[str, int]
    next: Cursor | None = None


class _DeadLetterPlace(Struct):
    delivery_id: int
    failed_at: datetime


async def dead_letters(
    database: Database, wanted: DeadFilter, *, cursor: Cursor | None, limit: int
) -> tuple[list[DeadLetter], Cursor | None]:
    """A page of them, newest first, and the place of the next one."""
    found = await database.rows(
        DeadLetter, _SQL["dead_letters"], **_place(wanted, cursor), limit=limit + 1
    )
    kept = found[:limit]
    if len(found) <= limit:
        return kept, None
    return kept, Cursor(kept[-1].failed_at, kept[-1].delivery_id)


async def dead_letter_reasons(database: Database, since: datetime) -> list[DeadReason]:
    """How many failed since a time, by channel and reason; of the newest 50,000."""
    return await database.rows(DeadReason, _SQL["dead_letter_reasons"], since=since, most=_COUNTED)


async def replay(database: Database, delivery_ids: Sequence[int], *, lift: bool) -> Replayed:
    """Tries these again; with `lift`, addresses and devices that their refusal closed are opened again first."""
    done = await database.row(Replayed, _SQL["replay"], delivery_ids=list(delivery_ids), lift=lift)
    assert done is not None
    return done


async def replay_batch(
    database: Database, wanted: DeadFilter, *, cursor: Cursor | None, lift: bool
) -> Replayed:
    """Tries the next BATCH that match again, from the newest on; what fails meanwhile is not included."""
    found = await database.rows(
        _DeadLetterPlace, _SQL["dead_letter_ids"], **_place(wanted, cursor), limit=BATCH
    )
    if not found:
        return Replayed(0, {})
    done = await replay(database, [each.delivery_id for each in found], lift=lift)
    last = Cursor(found[-1].failed_at, found[-1].delivery_id) if len(found) == BATCH else None
    return Replayed(done.replayed, done.kept, last)


async def replay_all(database: Database, wanted: DeadFilter, *, lift: bool) -> Replayed:
    """Tries all that match again, batch by batch."""
    replayed, kept = 0, Counter[str]()
    cursor: Cursor | None = None
    while True:
        done = await replay_batch(database, wanted, cursor=cursor, lift=lift)
        replayed += done.replayed
        kept.update(done.kept)
        if done.next is None:
            return Replayed(replayed, dict(kept))
        cursor = done.next


def _place(wanted: DeadFilter, cursor: Cursor | None) -> dict[str, object]:
    return {
        "since": wanted.since,
        "channel": wanted.channel,
        "reason": wanted.reason,
        "at": cursor.at if cursor else datetime.max.replace(tzinfo=UTC),
        "id": cursor.id if cursor else _LAST,
    }


_PRIORITIES = tuple(Priority)
# How a withheld delivery ends; all other reasons skip it.
_ENDS = {
    "cancelled": DeliveryState.CANCELLED,
    "expired": DeliveryState.EXPIRED,
    "quiet_hours": DeliveryState.DEFERRED,
    "changed": DeliveryState.DEFERRED,
}


class _Checked(Struct):
    delivery_id: int
    address: str
    checked_at: datetime
    sandbox: bool | None
    badge: int | None
    withheld: str | None
    wait: float


class SettledDelivery(Struct, frozen=True):
    """One delivery's new state, as `settle` writes it.

    `outcome` None: it was never tried, which costs no attempt. `delay` (seconds) only for DEFERRED.
    """

    delivery_id: int
    claim: UUID
    state: DeliveryState
    reason: str | None = None
    delay: float = 0.0
    outcome: str | None = None
    attempt_reason: str | None = None
    address: str | None = None
    checked_at: datetime | None = None
    provider_id: str | None = None
    address_dead: bool = False
    dead_since: datetime | None = None


async def claim(
    database: Database,
    channel: Channel,
    delivery_ids: Sequence[int],
    *,
    mergeable: Collection[int] = (),
    claim: UUID,
    process_id: UUID | None = None,
    lease: timedelta,
) -> list[Claimed]:
    """Takes up what is still to do, the urgent ones first; what someone else has is left out.

    After an outage of the database, the claims of a process (`process_id`) are kept until it could write and renew.

    Single mails among `mergeable` to the same people come along, to go as one.
    """
    others = set(mergeable).difference(delivery_ids)
    rows = await database.rows(
        Claimed,
        _SQL["claim"],
        delivery_ids=to_array(delivery_ids),
        others=to_array(others),
        mergeable=to_array(mergeable),
        channel=channel,
        claim=claim,
        process_id=process_id,
        lease=lease,
    )
    for row in rows:  # the cursor hands text and numbers over as they are
        structs.force_setattr(row, "claim", claim)
        structs.force_setattr(row, "channel", channel)
        structs.force_setattr(row, "priority", _PRIORITIES[row.priority])
    return rows


async def undo_claim(database: Database, claim: UUID) -> None:
    """Gives back what a claim took whose result never arrived; costs no attempt."""
    await database.run(_SQL["undo_claim"], claim=claim)


async def find_mergeable(database: Database, delivery_ids: Sequence[int]) -> dict[int, list[int]]:
    """Of each delivery that may go with others of these, all of those."""
    rows = await database.rows(
        _SamePerson, _SQL["find_mergeable"], delivery_ids=to_array(delivery_ids)
    )
    return {one: row.delivery_ids for row in rows for one in row.delivery_ids}


class _SamePerson(Struct):
    delivery_ids: list[int]


async def presend_check(database: Database, messages: Sequence[Message]) -> dict[int, CheckResult]:
    """Checks several messages in one statement, right before they are sent; a lost claim is not in the result."""
    checked = [
        (delivery_id, message.claim, message.contents)
        for message in messages
        for delivery_id in (message.delivery_id, *message.others)
    ]
    rows = await database.rows(
        _Checked,
        _SQL["presend_check"],
        delivery_ids=to_array(delivery_id for delivery_id, *_ in checked),
        claims=to_array(_texts(claim for _, claim, _ in checked)),
        contents=to_array(
            ",".join(map(str, contents)) if contents else "" for *_, contents in checked
        ),
    )
    check_results = {row.delivery_id: _check_result(row) for row in rows}
    for message in messages:
        if message.others and (check_result := _on_all(message, check_results)):
            check_results[message.delivery_id] = check_result
    return check_results


def _on_all(message: Message, check_results: dict[int, CheckResult]) -> CheckResult | None:
    """Returns one result for deliveries that go together: where one of them is withheld, all are rendered again."""
    wanted = (message.delivery_id, *message.others)
    each = tuple(check_results[one] for one in wanted if one in check_results)
    if not each:
        return None
    if len(each) == len(wanted) and all(check_result.withheld is None for check_result in each):
        return structs.replace(each[0], others=each[1:])
    changed = Withheld(DeliveryState.DEFERRED, "changed")
    return CheckResult(message.delivery_id, "", each[0].checked_at, changed, others=each)


def _check_result(row: _Checked) -> CheckResult:
    withheld = None
    if row.withheld is not None:
        state = _ENDS.get(row.withheld, DeliveryState.SKIPPED)
        withheld = Withheld(state, row.withheld, row.wait)
    return CheckResult(
        row.delivery_id,
        row.address,
        row.checked_at,
        withheld,
        badge=row.badge,
        sandbox=row.sandbox is True,
    )


async def settle(database: Database, settled: Sequence[SettledDelivery]) -> set[int]:
    """Writes outcomes in one statement; returns the deliveries whose claim was still ours."""
    if all(one.state is DeliveryState.SENT for one in settled):
        return await _settle_sent(database, settled)
    return await _settle(database, settled)


async def _settle_sent(database: Database, sent: Sequence[SettledDelivery]) -> set[int]:
    rows = await database.rows(
        _Ours,
        _SQL["settle_sent"],
        delivery_ids=to_array(one.delivery_id for one in sent),
        claims=to_array(_texts(one.claim for one in sent)),
        addresses=to_array(one.address for one in sent),
        checked_ats=to_array(one.checked_at for one in sent),
        provider_ids=to_array(one.provider_id for one in sent),
    )
    return {row.delivery_id for row in rows}


def _texts(claims: Iterable[UUID]) -> Iterator[str]:
    """Each as text: many in a row are one and the same, and writing one out takes longer than looking at it."""
    last, text = None, ""
    for claim in claims:
        if claim is not last:
            last, text = claim, str(claim)
        yield text


async def _settle(database: Database, settled: Sequence[SettledDelivery]) -> set[int]:
    rows = await database.rows(
        _Id,
        _SQL["settle"],
        delivery_ids=[one.delivery_id for one in settled],
        claims=[one.claim for one in settled],
        states=[one.state.value for one in settled],
        reasons=[one.reason for one in settled],
        delays=[timedelta(seconds=one.delay) for one in settled],
        outcomes=[one.outcome for one in settled],
        attempt_reasons=[one.attempt_reason for one in settled],
        addresses=[one.address for one in settled],
        checked_ats=[one.checked_at for one in settled],
        provider_ids=[one.provider_id for one in settled],
        dead=[one.address_dead for one in settled],
        dead_sinces=[one.dead_since for one in settled],
    )
    return {row.delivery_id for row in rows}


class _Ours(Struct):
    delivery_id: int


class _Id(Struct):
    delivery_id: int


async def renew(database: Database, claims: Sequence[UUID], *, lease: timedelta) -> None:
    """Keeps claims alive while their messages wait."""
    await database.run(_SQL["renew"], claims=list(claims), lease=lease)


async def close_leases(database: Database, *, job: int, claims: Sequence[UUID]) -> None:
    """Closes the lease of the job that begins with this delivery, and those of its claims, where they hold nothing."""
    await database.run(_SQL["close_leases"], job=job, claims=list(claims))


async def release(
    database: Database, delivery_ids: Sequence[int], *, delay: timedelta = timedelta(0)
) -> None:
    """Hands dispatched deliveries that were not claimed back, to be due again after `delay`."""
    await database.run(_SQL["release"], delivery_ids=list(delivery_ids), delay=delay)


async def providers(database: Database, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Which provider each push delivery goes to; one whose device is gone is not in the answer."""
    rows = await database.rows(_Route, _SQL["providers"], delivery_ids=list(delivery_ids))
    return {row.delivery_id: row.provider for row in rows}


class _Route(Struct):
    delivery_id: int
    provider: str
