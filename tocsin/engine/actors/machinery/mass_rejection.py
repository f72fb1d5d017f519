"""The guard of the addresses: no device and no mailbox is given up on a word that a storm would take back.

A refusal that would cost an address is held back for a moment. A success meanwhile bears it out, and so does silence:
one person with one dead token is no storm. A storm overturns all that are held, so these deliveries are kept, no
attempt is spent and no address is touched; and the breaker opens, whose probes then find out when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from tocsin.engine.actors.machinery.mailbox import Envelope
from tocsin.engine.actors.machinery.outcome import Answer
from tocsin.engine.model import Rejected, Sent, Unsent

# The storm: address after address refused and nothing accepted is our configuration's fault, not theirs. Pure.
#
# A wrong topic, environment, project or mail server answers for every device or mailbox in the words that it has for a
# dead one; taken at its word, it would cost all of them.
#
# calm --(so many addresses refused in a row)--> raging
# raging --(a success)-------------------------> calm


class Storm:
    """Counts the addresses that were refused since the last success: each once, however often it is refused.

    `first` in a row are too many as long as nothing was ever accepted, so nothing yet says that the settings are
    right. Once something was, they are, and `later` in a row are too many: then it is the provider that errs, while
    an old list may well have long runs of dead ones. It keeps no more than so many.
    """

    def __init__(self, *, first: int = 10, later: int = 50) -> None:
        self._first = first
        self._later = later
        self._proven = False
        self._refused: set[str] = set()
        self.raging = False

    def refused(self, address: str) -> bool:
        """An address was refused for good; true if that is not to be believed."""
        if not self.raging:
            self._refused.add(address)
            most = self._later if self._proven else self._first
            self.raging = len(self._refused) >= most
        return self.raging

    def accepted(self) -> None:
        """Something was sent: the settings are right, and what is refused is so for its own sake."""
        self._proven = True
        self._refused.clear()
        self.raging = False

    @property
    def addresses(self) -> int:
        """How many addresses were refused since the last success, as far as they were counted."""
        return len(self._refused)


HOLD = 1.0
"""Seconds that a refusal is held back for; under traffic the next success comes sooner."""

log = structlog.get_logger(__name__)


class Guard:
    """Stands between the provider's answers and the ledger; `hold` is in seconds.

    `advice` tells an operator what to check, in one line. `rest` opens the breaker for a reason, and answers for how
    many seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        advice: str,
        rest: Callable[[str], float],
        hold: float = HOLD,
        storm: Storm | None = None,
    ) -> None:
        self._name = name
        self._advice = advice
        self._rest = rest
        self._hold = hold
        self._storm = storm or Storm()
        self._held: dict[Envelope, tuple[Rejected, asyncio.TimerHandle]] = {}

    @property
    def raging(self) -> bool:
        """Whether no refusal of an address is believed just now."""
        return self._storm.raging

    @property
    def advice(self) -> str | None:
        """What to check, while there is a storm."""
        return self._advice if self.raging else None

    def takes(self, envelope: Envelope, answer: Answer) -> bool:
        """Hears an answer; true if it settles the message itself, now or in a moment."""
        outcome = answer.outcome
        if isinstance(outcome, Sent):
            self._calm()
        if not (isinstance(outcome, Rejected) and (outcome.address_dead or outcome.quarantine)):
            return False
        if envelope.check_result is None or not envelope.begun:
            return False  # our own word, not the provider's
        raged = self.raging
        if self._storm.refused(envelope.check_result.address):
            self._overturn(envelope, f"{outcome.reason}_storm", begins=not raged)
        else:
            # whoever brings the address anew while this is held has it anew
            since = outcome.dead_since or envelope.check_result.checked_at
            self._keep(envelope, replace(outcome, dead_since=since))
        return True

    def close(self) -> None:
        """Hands back what is held: another worker may know better."""
        for envelope in list(self._held):
            self._let_go(envelope)
            envelope.settle(Unsent("shutdown"), envelope.check_result)

    def _keep(self, envelope: Envelope, outcome: Rejected) -> None:
        timer = asyncio.get_running_loop().call_later(self._hold, self._bear_out, envelope)
        self._held[envelope] = outcome, timer

    def _calm(self) -> None:
        if self.raging:
            log.info("addresses are accepted again", actor=self._name)
        self._storm.accepted()
        for envelope in list(self._held):
            self._bear_out(envelope)

    def _bear_out(self, envelope: Envelope) -> None:
        envelope.settle(self._let_go(envelope), envelope.check_result)

    def _overturn(self, envelope: Envelope, reason: str, *, begins: bool) -> None:
        if begins:
            log.error(
                self._advice, actor=self._name, reason=reason, addresses=self._storm.addresses
            )
        seconds = self._rest(reason)
        held = list(self._held)
        for each in held:
            self._let_go(each)
        for each in (envelope, *held):
            each.settle(Unsent(reason, seconds), each.check_result)

    def _let_go(self, envelope: Envelope) -> Rejected:
        outcome, timer = self._held.pop(envelope)
        timer.cancel()
        return outcome
