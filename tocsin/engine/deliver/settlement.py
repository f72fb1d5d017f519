"""The new state of each delivery of a message, by its outcome. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec import structs

from tocsin.engine.actors.machinery.breaker import backoff
from tocsin.engine.model import (
    Claimed,
    Deferred,
    DeliveryState,
    Rejected,
    Sent,
    Settlement,
    Unknown,
    Unsent,
    Withheld,
)
from tocsin.engine.store.delivery import SettledDelivery

_LONGEST = 3600.0  # seconds between two attempts
_LONGEST_FOR_APP = 8 * 3600.0


def settle_all(
    together: Sequence[Claimed], settlement: Settlement, random: Random
) -> list[SettledDelivery]:
    """Returns the new states of deliveries that went as one message.

    Where the presend check withheld some of them, the others are due again at once.
    """
    settled = _settle_shown(together, settlement, random)
    for first in together:
        if not first.counted:
            continue
        result = settlement.outcome
        if isinstance(result, Withheld):
            result = Unsent("changed") if result.state else result
            shared = settle(first, Settlement(result), random)
        else:
            shared = next(one for one in settled if one.delivery_id == first.delivery_id)
        if shared is not None:
            settled += [structs.replace(shared, delivery_id=each) for each in first.counted]
    return settled


def _settle_shown(
    together: Sequence[Claimed], settlement: Settlement, random: Random
) -> list[SettledDelivery]:
    if len(together) == 1:
        written = settle(together[0], settlement, random)
        return [written] if written else []
    check_result, seed = settlement.check_result, random.random()
    apart = (
        {one.delivery_id: one for one in check_result.others}
        if check_result and check_result.withheld
        else {}
    )
    settled = []
    for claimed in together:
        own = settlement
        if apart:
            checked = apart.get(claimed.delivery_id)
            withheld = checked.withheld if checked else Withheld(None, "lost")
            own = Settlement(withheld or Unsent("changed"), checked)
        # one seed: due again at one time
        if written := settle(claimed, own, Random(seed)):
            settled.append(written)
    return settled


def settle(claimed: Claimed, settlement: Settlement, random: Random) -> SettledDelivery | None:
    """Returns the new state of one delivery; None where the claim was lost."""
    result, check_result = settlement.outcome, settlement.check_result
    # what an app's webhook is sent is still of use after days
    most = _LONGEST_FOR_APP if claimed.is_for_app else _LONGEST

    def settled(
        state: DeliveryState, reason: str | None, outcome: str | None, delay: float = 0.0
    ) -> SettledDelivery:
        last = outcome is not None and state is DeliveryState.DEFERRED
        exhausted = last and claimed.attempt >= claimed.max_attempts
        return SettledDelivery(
            claimed.delivery_id,
            claimed.claim,
            DeliveryState.FAILED if exhausted else state,
            "attempts_exhausted" if exhausted else reason,
            delay=delay,
            outcome=outcome,
            attempt_reason=reason,
            address=check_result.address or None if check_result else None,
            checked_at=check_result.checked_at if check_result else None,
            provider_id=result.provider_id if isinstance(result, Sent) else None,
            address_dead=isinstance(result, Rejected)
            and (result.address_dead or result.quarantine),
            dead_since=result.dead_since if isinstance(result, Rejected) else None,
            provider=settlement.provider,
        )

    match result:
        case Sent():
            return settled(DeliveryState.SENT, None, "sent")
        case Rejected(reason):
            return settled(DeliveryState.FAILED, reason, "rejected")
        case Deferred(reason, retry_after):
            delay = retry_delay(claimed.attempt, retry_after, random, most=most)
            return settled(DeliveryState.DEFERRED, reason, "deferred", delay)
        case Unknown(reason):
            delay = retry_delay(claimed.attempt, None, random, most=most)
            return settled(DeliveryState.DEFERRED, reason, "unknown", delay)
        case Unsent(reason, retry_after):
            return settled(DeliveryState.DEFERRED, reason, None, retry_after)
        case Withheld(state, reason, retry_after):
            return settled(state, reason, None, retry_after) if state else None


def retry_delay(
    attempt: int, retry_after: float | None, random: Random, *, most: float = _LONGEST
) -> float:
    """Returns the seconds until a delivery's next attempt, after `attempt` (1 for the first) failed.

    Full jitter (from half a second up) spreads the retries after an outage. Ten attempts take about an hour and a half:
    longer than greylisting. Never before the provider's `retry_after`, and then up to a tenth later.
    """
    delay = random.uniform(0.5, backoff(attempt, first=5.0, most=most, factor=3.0))
    if retry_after is not None:
        delay = max(delay, retry_after * random.uniform(1.0, 1.1))
    return delay


def skip(claimed: Claimed, reason: str) -> SettledDelivery:
    """Returns the new state of one that is never tried."""
    return SettledDelivery(claimed.delivery_id, claimed.claim, DeliveryState.SKIPPED, reason)


def render_failed(claimed: Claimed) -> list[SettledDelivery]:
    """Returns the new state of one whose template failed, and of those that go with it.

    An attempt is spent, for operators to see.
    """
    failed = SettledDelivery(
        claimed.delivery_id,
        claimed.claim,
        DeliveryState.FAILED,
        "render_failed",
        outcome="rejected",
        attempt_reason="render_failed",
    )
    return [failed, *(structs.replace(failed, delivery_id=one) for one in claimed.counted or ())]
