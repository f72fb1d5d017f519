"""What an actor's provider side answers, and what an actor shows to operators."""

from __future__ import annotations

from msgspec import Struct

from tocsin.engine.actors.machinery.breaker import BreakerState
from tocsin.engine.model import Outcome


class Answer(Struct, frozen=True):
    """What became of one message, and what that says of the provider and the connection."""

    outcome: Outcome
    provider_failed: bool = (
        False  # the provider as a whole, not this message: counts for the breaker
    )
    keep: bool = True  # the connection may be used again
    pause: float | None = None  # seconds in which the provider wants nothing at all of us


class Again(Struct, frozen=True):
    """Nothing of the message left, so it is prepared and looked at once more."""

    keep: bool  # false: with another connection


class Stats(Struct, frozen=True):
    """An actor at one moment, for operators."""

    name: str
    waiting: int
    in_flight: int
    breaker: BreakerState
    breaker_reason: str | None
    breaker_since: float  # seconds in this state
    failing_for: float = 0.0  # seconds since the breaker first opened; 0 while it is closed
    retry_after: float = 0.0  # seconds until the breaker probes; 0 unless open
    size: int = 0  # of the mailbox
    senders: int = 0
    rate: float | None = None  # messages a second at most
    crashes: int = 0  # since it was made
    advice: str | None = None  # what to check, while all addresses are refused
