"""What the ledger makes of an outcome. Pure."""

from __future__ import annotations

from random import Random

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
from tocsin.engine.retry import retry_delay
from tocsin.engine.store.delivery import Settled


def settle(claimed: Claimed, settlement: Settlement, random: Random) -> Settled | None:
    """What the ledger makes of an outcome; None where the claim was lost, and someone else has it."""
    result, verdict = settlement.outcome, settlement.verdict

    def settled(
        state: DeliveryState, reason: str | None, outcome: str | None, delay: float = 0.0
    ) -> Settled:
        last = outcome is not None and state is DeliveryState.DEFERRED
        exhausted = last and claimed.attempt >= claimed.max_attempts
        return Settled(
            claimed.delivery_id,
            claimed.claim,
            DeliveryState.FAILED if exhausted else state,
            "attempts_exhausted" if exhausted else reason,
            delay=delay,
            outcome=outcome,
            attempt_reason=reason,
            address=verdict.address or None if verdict else None,
            checked_at=verdict.checked_at if verdict else None,
            provider_id=result.provider_id if isinstance(result, Sent) else None,
            address_dead=isinstance(result, Rejected)
            and (result.address_dead or result.quarantine),
            dead_since=result.dead_since if isinstance(result, Rejected) else None,
        )

    match result:
        case Sent():
            return settled(DeliveryState.SENT, None, "sent")
        case Rejected(reason):
            return settled(DeliveryState.FAILED, reason, "rejected")
        case Deferred(reason, retry_after):
            delay = retry_delay(claimed.attempt, retry_after, random)
            return settled(DeliveryState.DEFERRED, reason, "deferred", delay)
        case Unknown(reason):
            delay = retry_delay(claimed.attempt, None, random)
            return settled(DeliveryState.DEFERRED, reason, "unknown", delay)
        case Unsent(reason, retry_after):
            return settled(DeliveryState.DEFERRED, reason, None, retry_after)
        case Withheld(state, reason):
            return settled(state, reason, None) if state else None


def withhold(claimed: Claimed, reason: str) -> Settled:
    """What the ledger says of one that was never tried, and won't be."""
    return Settled(claimed.delivery_id, claimed.claim, DeliveryState.SKIPPED, reason)
