"""How many messages a target gets in a time: each waits in the ledger for its turn, not in a sender.

The turns are kept by each worker for itself. With several workers, a target may get as many more; a 429 then holds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tocsin.engine.actors.chat.service import SendLimit
from tocsin.engine.actors.machinery.envelope import Clock

HORIZON = 600.0
"""Seconds for which turns are given ahead; what is beyond asks again."""

_MARGIN = 0.02  # so that a message is due after its turn has come, not just before
_FORGET = 10_000  # entries


class Pacing:
    """Gives each delivery its turn at its target, in the order in which they ask.

    A message that is sent after its turn delays the turns of all that follow: so what was late does not come at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: dict[
            str, deque[float]
        ] = {}  # of each target, the last ones, without its delay
        self._delay: dict[str, float] = {}  # of each target
        self._reserved: dict[int, float] = {}  # of each delivery, without the delay
        self._held: dict[str, float] = {}
        self._sent: dict[str, deque[float]] = {}  # by account

    def wait(
        self,
        delivery_id: int,
        target: str,
        limits: Sequence[SendLimit],
        *,
        account: str,
        shared: SendLimit | None = None,
    ) -> float:
        """Returns the seconds until a delivery may be sent; 0 if it may be now, and then it counts as sent."""
        now = self._clock()
        held = max(self._held.get(target, 0.0), self._held.get(account, 0.0))
        if held > now:
            return held - now + _MARGIN
        turn = self._turn(delivery_id, target, limits, now)
        if turn > now + HORIZON:
            return HORIZON
        if turn > now:
            return turn - now + _MARGIN
        wait = self._take(account, shared, now) if shared else 0.0
        if not wait and limits:
            self._delay[target] = self._delay.get(target, 0.0) + now - turn
        return wait

    def hold(self, key: str, seconds: float) -> None:
        """Sends nothing to a target, or with an account, for so many seconds."""
        self._held[key] = max(self._held.get(key, 0.0), self._clock() + seconds)

    def done(self, delivery_id: int) -> None:
        """Forgets a delivery that was sent."""
        self._reserved.pop(delivery_id, None)

    def _turn(
        self, delivery_id: int, target: str, limits: Sequence[SendLimit], now: float
    ) -> float:
        """Returns when it is a delivery's turn, and reserves it unless it is too far ahead."""
        delay = self._delay.get(target, 0.0)
        turn = self._reserved.get(delivery_id)
        if turn is None and limits:
            turn = self._next_turn(target, limits, now - delay)
            if turn + delay <= now + HORIZON:
                self._turns[target].append(turn)
                self._reserve(delivery_id, turn, now)
        return now if turn is None else turn + delay

    def _next_turn(self, target: str, limits: Sequence[SendLimit], now: float) -> float:
        turns = self._turns.setdefault(target, deque(maxlen=max(each.most for each in limits)))
        earliest = [turns[-each.most] + each.seconds for each in limits if len(turns) >= each.most]
        return max(now, turns[-1], *earliest) if turns else now

    def _reserve(self, delivery_id: int, turn: float, now: float) -> None:
        """Remembers a turn; of very many, forgets those that nobody took, since their delivery was cancelled."""
        if len(self._reserved) >= _FORGET:
            self._forget(now)
        self._reserved[delivery_id] = turn

    def _forget(self, now: float) -> None:
        used = {
            key
            for key, turns in self._turns.items()
            if turns and turns[-1] + self._delay.get(key, 0.0) > now - HORIZON
        }
        self._turns = {key: turns for key, turns in self._turns.items() if key in used}
        self._delay = {key: delay for key, delay in self._delay.items() if key in used}
        earliest = now - max(self._delay.values(), default=0.0) - HORIZON
        self._reserved = {one: turn for one, turn in self._reserved.items() if turn > earliest}
        self._held = {key: until for key, until in self._held.items() if until > now}

    def _take(self, account: str, limit: SendLimit, now: float) -> float:
        sent = self._sent.setdefault(account, deque(maxlen=limit.most))
        if len(sent) == limit.most and sent[0] + limit.seconds > now:
            return sent[0] + limit.seconds - now + _MARGIN
        sent.append(now)
        return 0.0
