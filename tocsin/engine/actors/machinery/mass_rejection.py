"""Protection against mass rejection: a wrong setting must not disable every device or suppress every mailbox.

With a wrong topic, environment, project or mail server, a provider rejects every address as if it were dead. So a
rejection that would disable an address is held for a moment. A success meanwhile confirms it, and so does the end of
that moment: a single dead token is no mass rejection. Where too many addresses are rejected in a row, the held
rejections are discarded: their deliveries are kept, no attempt is counted and no address is disabled. The breaker
opens, and its probes find out when the mass rejection is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tocsin.engine.actors.machinery.envelope import Envelope, SendResult
from tocsin.engine.model import Rejected, Sent, Unsent

HOLD = 1.0
"""Seconds that a rejection is held; with some traffic the next success comes sooner."""

log = structlog.get_logger(__name__)


class RejectionCounter:
    """Counts the addresses that were rejected since the last success, each once. Pure.

    Before the first success nothing shows that the settings are right, so `first` addresses in a row are too many.
    After it they are right, and `later` are too many: an old list may well have many dead addresses in a row. It keeps
    no more addresses than that.
    """

    def __init__(self, *, first: int = 10, later: int = 50) -> None:
        self._first = first
        self._later = later
        self._succeeded = False
        self._rejected: set[str] = set()
        self.too_many = False

    def rejected(self, address: str) -> bool:
        """Counts a rejected address; returns whether there are too many, so that no rejection counts."""
        if not self.too_many:
            self._rejected.add(address)
            most = self._later if self._succeeded else self._first
            self.too_many = len(self._rejected) >= most
        return self.too_many

    def accepted(self) -> None:
        """Counts a success, which ends a mass rejection."""
        self._succeeded = True
        self._rejected.clear()
        self.too_many = False

    @property
    def addresses(self) -> int:
        """How many addresses were rejected since the last success, as far as they were counted."""
        return len(self._rejected)


class HeldRejections:
    """Holds rejections of addresses until they are confirmed or discarded; `hold` is in seconds.

    `advice` is one line for operators: what to check. `pause` opens the breaker for a reason, and returns for how many
    seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        advice: str,
        pause: Callable[[str], float],
        hold: float = HOLD,
        counter: RejectionCounter | None = None,
    ) -> None:
        self._name = name
        self._advice = advice
        self._pause = pause
        self._seconds = hold
        self._counter = counter or RejectionCounter()
        self._held: dict[Envelope, tuple[Rejected, asyncio.TimerHandle]] = {}

    @property
    def too_many(self) -> bool:
        """Whether there is a mass rejection now."""
        return self._counter.too_many

    @property
    def advice(self) -> str | None:
        """What to check, during a mass rejection."""
        return self._advice if self.too_many else None

    def take(self, envelope: Envelope, result: SendResult) -> bool:
        """Counts a result; returns true if it settles the message itself, now or later."""
        outcome = result.outcome
        if isinstance(outcome, Sent):
            self._accepted()
        if not (isinstance(outcome, Rejected) and (outcome.address_dead or outcome.quarantine)):
            return False
        if envelope.check_result is None or not envelope.begun:
            return False  # rejected by this service, not by the provider
        before = self.too_many
        if self._counter.rejected(envelope.check_result.address):
            self._discard(envelope, f"{outcome.reason}_storm", begins=not before)
        else:
            self._hold(envelope, outcome)
        return True

    def close(self) -> None:
        """Returns the held messages unsent: another worker may know more."""
        for envelope in list(self._held):
            self._remove(envelope)
            envelope.settle(Unsent("shutdown"), envelope.check_result)

    def _hold(self, envelope: Envelope, outcome: Rejected) -> None:
        timer = asyncio.get_running_loop().call_later(self._seconds, self._confirm, envelope)
        self._held[envelope] = outcome, timer

    def _accepted(self) -> None:
        if self.too_many:
            log.info("addresses are accepted again", actor=self._name)
        self._counter.accepted()
        for envelope in list(self._held):
            self._confirm(envelope)

    def _confirm(self, envelope: Envelope) -> None:
        envelope.settle(self._remove(envelope), envelope.check_result)

    def _discard(self, envelope: Envelope, reason: str, *, begins: bool) -> None:
        """Discards this rejection and all held ones."""
        if begins:
            log.error(
                self._advice, actor=self._name, reason=reason, addresses=self._counter.addresses
            )
        seconds = self._pause(reason)
        held = list(self._held)
        for each in held:
            self._remove(each)
        for each in (envelope, *held):
            each.settle(Unsent(reason, seconds), each.check_result)

    def _remove(self, envelope: Envelope) -> Rejected:
        outcome, timer = self._held.pop(envelope)
        timer.cancel()
        return outcome
