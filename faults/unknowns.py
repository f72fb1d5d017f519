"""Whether a worker could know the outcome of a message. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from faults.inject import Window
from faults.ledger import Passage
from faults.plan import LEASE

RECORD = 3.0  # seconds in which an outcome is written if the database is available
RETURN = 8.0  # the same after an outage of the database
BEYOND = (
    LEASE - 12.0
)  # length of a freeze after which the lease may run out: it is renewed every 10 s
TIMEOUT = 8.0  # length of a freeze of a far end after which a sender may have given up


class Unknowns:
    """The faults of one run, as causes of unknown outcomes."""

    def __init__(self, windows: Sequence[Window], cuts: Sequence[tuple[float, int]]) -> None:
        self._cuts = cuts
        self._outages = sorted((w.began, w.ended) for w in windows if w.database)
        self._kills = [
            w for w in windows if w.slot >= 0 and w.kind in {"kill_worker", "kill_leader"}
        ]
        self._freezes = [w for w in windows if w.slot >= 0 and w.kind.startswith("freeze_worker")]
        self._far_freezes = [w for w in windows if w.kind == "freeze_far_end"]
        self._failovers = [w for w in windows if w.kind == "failover"]
        self._restarts = [w for w in windows if w.kind == "clock"]

    def why(self, first: Passage, then: float, slot: int = -1) -> str | None:
        """Why the outcome of `first` could not be known when `slot` sent it again at `then`; None if it could."""
        return (
            self._reply_lost(first)
            or self._killed(first)
            or self._frozen(first, then, slot)
            or self._failed_over(first)
            or self._stopped(first)
        )

    def _reply_lost(self, first: Passage) -> str | None:
        cut = any(
            slot == first.slot and first.channel == "apns" and abs(at - first.at) < 0.3
            for at, slot in self._cuts
        )
        if first.reply == "lost" or cut:
            return "reply lost"
        for freeze in self._far_freezes:
            long = freeze.ended - freeze.began > TIMEOUT
            if long and freeze.began - 0.5 <= first.at <= freeze.ended + 3:
                return "far end frozen"
        return None

    def _killed(self, first: Passage) -> str | None:
        begin, end = self._unwritten(first)
        for kill in self._kills:
            if kill.slot == first.slot and begin <= kill.began <= end:
                return "worker killed"
        return None

    def _frozen(self, first: Passage, then: float, slot: int) -> str | None:
        begin, end = self._unwritten(first)
        for freeze in self._freezes:
            seconds = freeze.ended - freeze.began
            # a short one counts if it extends a delay by an outage
            at_return = any(
                b - 1 <= freeze.ended and freeze.began <= e + RETURN for b, e in self._outages
            )
            if seconds < BEYOND and not at_return:
                continue
            if freeze.slot == first.slot and freeze.began <= end and begin <= freeze.ended + 3:
                return "worker frozen beyond its lease"
            if freeze.slot == slot and freeze.ended - 0.5 <= then <= freeze.ended + 3:
                return "worker frozen beyond its lease"
        return None

    def _failed_over(self, first: Passage) -> str | None:
        for each in self._failovers:
            if each.began - RECORD <= first.at <= each.ended + 5:
                return "failover lost the record"
        return None

    def _stopped(self, first: Passage) -> str | None:
        """Returns a cause where its worker was stopped while it could not write the outcome, or not receive it."""
        begin, end = self._unwritten(first)
        for each in self._restarts:
            for at in (each.began, each.ended):
                for freeze in self._far_freezes:
                    waited = freeze.began <= at <= freeze.ended <= first.at <= freeze.ended + 3
                    if each.slot == first.slot and waited:
                        return "worker stopped while the far end was frozen"
                outage = any(b - 0.5 <= at + 5 and at <= e for b, e in self._outages)
                if each.slot == first.slot and outage and begin <= at <= end:
                    return "worker stopped without a database"
        return None

    def _unwritten(self, first: Passage) -> tuple[float, float]:
        """Returns the time during which only the sender may have known the outcome."""
        begin, end = first.at - 1.0, first.at + RECORD
        for freeze in self._far_freezes:  # a mail that waited in a socket meanwhile
            if freeze.began <= first.at <= freeze.ended + 3:
                begin = min(begin, freeze.began - 1.0)
        for freeze in self._freezes:
            if freeze.slot == first.slot and freeze.began - RECORD <= end:
                end = max(end, freeze.ended + RECORD) if freeze.ended >= first.at else end
        for outage, back in self._outages:
            if outage - 1.0 <= end and back >= begin:
                end = max(end, back + RETURN)
        return begin, end
