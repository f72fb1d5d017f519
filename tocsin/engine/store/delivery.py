"""The ledger: claim, presend check, settle; the time zones of claimed mails, and how fast all workers may send."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct, structs
from psycopg.errors import UniqueViolation

from tocsin.engine.model import (
    Channel,
    CheckResult,
    Claimed,
    DeliveryState,
    Message,
    Priority,
    SendHold,
    Withheld,
    Zone,
)
from tocsin.engine.store.database import Database, to_array
from tocsin.sql import load

_SQL = load("delivery")

_PRIORITIES = tuple(Priority)
# The state of a withheld delivery by its reason; all other reasons skip it.
_ENDS = {
    "cancelled": DeliveryState.CANCELLED,
    "withdrawn": DeliveryState.CANCELLED,
    "replaced": DeliveryState.CANCELLED,
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
    options: dict[str, Any] | None
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
    provider: str | None = None  # of the attempt


async def claim(
    database: Database,
    channel: Channel,
    delivery_ids: Sequence[int],
    *,
    mergeable: Collection[int] = (),
    claim: UUID,
    process_id: UUID | None = None,
    lease: timedelta,
    cap: int = 0,
) -> list[Claimed]:
    """Claims those that are queued and not claimed, the urgent ones first.

    `near_limit` is set for people who may have got `cap` messages within an hour (0: any number).

    After an outage of the database, the claims of a process (`process_id`) are kept until it could write and renew.

    Single mails among `mergeable` to the same people are claimed too, to be sent as one.
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
        cap=cap,
    )
    for row in rows:  # the cursor passes text and numbers on as they are
        structs.force_setattr(row, "claim", claim)
        structs.force_setattr(row, "channel", channel)
        structs.force_setattr(row, "priority", _PRIORITIES[row.priority])
    return rows


class ThrottledDelivery(Struct, frozen=True):
    """What became of a claimed delivery of a person who is near a limit.

    `held`: None where it is sent, with the others of `burst_id` if there is one; else `throttled`, or `lost` where the
    claim no longer has it. `counted`: one that was taken along, and is withheld where `held` has a reason.
    """

    delivery_id: int
    burst_id: int | None
    counted: bool
    held: str | None
    caller: str | None


async def throttle(
    database: Database,
    claim: UUID,
    delivery_ids: Sequence[int],
    *,
    withheld: Sequence[int],
    cap: int,
) -> list[ThrottledDelivery]:
    """Defers deliveries of a claim that are beyond a limit; the result names those, and what is sent as a burst."""
    return await database.rows(
        ThrottledDelivery,
        _SQL["throttle"],
        claim=claim,
        delivery_ids=list(delivery_ids),
        withheld=list(withheld),
        cap=cap,
    )


async def undo_claim(database: Database, claim: UUID) -> None:
    """Releases what was claimed by a query whose result was lost; costs no attempt."""
    await database.run(_SQL["undo_claim"], claim=claim)


async def find_mergeable(database: Database, delivery_ids: Sequence[int]) -> dict[int, list[int]]:
    """Returns, for each delivery that can be merged with others of these, all of those."""
    groups = await database.column(_SQL["find_mergeable"], delivery_ids=to_array(delivery_ids))
    return {one: group for group in groups for one in group}


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


def withheld_state(reason: str) -> DeliveryState:
    """Returns the state of a delivery that the presend check withholds for this reason."""
    return _ENDS.get(reason, DeliveryState.SKIPPED)


def _check_result(row: _Checked) -> CheckResult:
    withheld = None
    if row.withheld is not None:
        withheld = Withheld(withheld_state(row.withheld), row.withheld, row.wait)
    return CheckResult(
        row.delivery_id,
        row.address,
        row.checked_at,
        withheld,
        badge=row.badge,
        sandbox=row.sandbox is True,
        options=row.options,
    )


async def settle(database: Database, settled: Sequence[SettledDelivery]) -> set[int]:
    """Writes outcomes in one statement; returns the deliveries whose claim was still ours."""
    if all(one.state is DeliveryState.SENT for one in settled):  # as most are: a cheaper statement
        # the attempt of a worker that was taken for lost has the number already: the other statement leaves it as it is
        with suppress(UniqueViolation):
            return await _settle_sent(database, settled)
    return set(
        await database.column(
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
            providers=[one.provider for one in settled],
        )
    )


async def _settle_sent(database: Database, sent: Sequence[SettledDelivery]) -> set[int]:
    return set(
        await database.column(
            _SQL["settle_sent"],
            delivery_ids=to_array(one.delivery_id for one in sent),
            claims=to_array(_texts(one.claim for one in sent)),
            addresses=to_array(one.address for one in sent),
            checked_ats=to_array(_texts(one.checked_at for one in sent)),
            provider_ids=to_array(one.provider_id for one in sent),
            providers=to_array(one.provider for one in sent),
        )
    )


def _texts(values: Iterable[UUID | datetime | None]) -> Iterator[str | None]:
    """Yields each as text: many in a row are the same, and to write one takes longer than to compare it."""
    last: UUID | datetime | None = None
    text: str | None = None
    for value in values:
        if value is not last and value != last:
            last, text = value, None if value is None else str(value)
        yield text


async def renew(database: Database, claims: Sequence[UUID], *, lease: timedelta) -> None:
    """Renews the leases of claims whose messages wait."""
    await database.run(_SQL["renew"], claims=list(claims), lease=lease)


async def close_leases(database: Database, *, job: int, claims: Sequence[UUID]) -> None:
    """Closes the lease of the job that begins with this delivery, and those of its claims, where they hold nothing."""
    await database.run(_SQL["close_leases"], job=job, claims=list(claims))


async def release(
    database: Database,
    delivery_ids: Sequence[int],
    *,
    delay: timedelta = timedelta(0),
    spread: timedelta = timedelta(0),
) -> None:
    """Makes dispatched deliveries that were not claimed due again after `delay`, at random times within `spread`."""
    await database.run(_SQL["release"], delivery_ids=list(delivery_ids), delay=delay, spread=spread)


async def providers(database: Database, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Returns the provider of each push delivery whose device still exists."""
    return await database.pairs(_SQL["providers"], delivery_ids=list(delivery_ids))


class DeliveryTarget(Struct, frozen=True):
    """The target of a delivery, and the address that it has now."""

    target_id: int
    url: str


async def endpoints(database: Database, delivery_ids: Sequence[int]) -> dict[int, DeliveryTarget]:
    """Returns the target of each delivery whose target still exists."""
    return dict(
        await database.rows(
            lambda delivery_id, **columns: (delivery_id, DeliveryTarget(**columns)),
            _SQL["endpoints"],
            delivery_ids=list(delivery_ids),
        )
    )


# The rules of time zones, as PostgreSQL has them.

# PostgreSQL gets other rules by an update, of its own or of the system's package.
_KEPT_FOR = 3600.0


class Zones:
    """The rules of those zones that a worker needed, read again after an hour."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._zones: dict[str, Zone] = {}
        self._until: dict[str, float] = {}

    async def put_into(self, claimed: Sequence[Claimed]) -> None:
        """Sets the zone of each mail; raises Unavailable."""
        mails = [one for one in claimed if one.timezone and one.channel is Channel.EMAIL]
        names = {one.timezone for one in mails if one.timezone}
        now = time.monotonic()
        if missing := [name for name in names if self._until.get(name, 0.0) < now]:
            for zone in await zone_rules(self._database, missing):
                known = self._zones.get(zone.name)
                # what was made for a zone is kept by its identity
                if known is None or not zone.has_rules_of(known):
                    self._zones[zone.name] = zone
            self._until |= dict.fromkeys(missing, now + _KEPT_FOR)
        for one in mails:
            structs.force_setattr(one, "zone", self._zones.get(one.timezone or ""))


async def zone_rules(database: Database, names: Collection[str]) -> list[Zone]:
    """Returns those of these zones that PostgreSQL knows."""
    return await database.rows(_to_zone, _SQL["zone_changes"], names=list(names))


def _to_zone(name: str, starts: Iterable[int], utc_offsets: Iterable[int]) -> Zone:
    return Zone(name, tuple(starts), tuple(utc_offsets))


async def take_slots(database: Database, channel: Channel, count: int, gap: float) -> float:
    """Takes slots that are `gap` seconds apart; returns in how many seconds the first one is."""
    return float(
        await database.value(_SQL["take_slots"], channel=channel.value, count=count, gap=gap)
    )


async def hold_sending(database: Database, hold: SendHold) -> None:
    """Stores a pause that a provider asked for; all workers have it at once."""
    await database.run(_SQL["hold_sending"], key=hold.key, reason=hold.reason, seconds=hold.seconds)
