"""The lanes that wait for their turn: fair between events, urgent ones first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from tocsin.engine.store.dispatch import Turn


class Ask(Struct, frozen=True):
    """A turn to take: lanes ({event id: last delivery taken}) of one channel and priority, `each` deliveries apiece."""

    channel: str
    priority: int
    lanes: dict[int, int]
    each: int


class Lanes:
    """Round robin: a lane that had its turn goes to the end of the line.

    A huge fan-out thus takes its share and no more: another event's one mail comes in the very next turn. What is
    kept here is only a hint of what the lane table says.
    """

    MOST = 200  # lanes a turn
    NEWCOMER = 20  # deliveries that a lane may dispatch at once, however busy the channel

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], OrderedDict[int, int]] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def add(self, event_id: int, channel: str, priority: int) -> None:
        """A lane that came; one that is here already keeps its place."""
        self._lines.setdefault((channel, priority), OrderedDict()).setdefault(event_id, 0)

    def clear(self) -> None:
        self._lines.clear()

    @property
    def channels(self) -> list[str]:
        """Channels in which a lane waits."""
        return sorted({channel for (channel, _), line in self._lines.items() if line})

    def ask(self, channel: str, room: int, newcomers_room: int) -> Ask | None:
        """The next turn of a channel that has room for so many deliveries.

        Where it has none, lanes that never had a turn still get a first small one, within `newcomers_room`.
        """
        for priority in sorted({p for c, p in self._lines if c == channel}, reverse=True):
            line = self._lines[channel, priority]
            if room > 0 and line:
                lanes = dict(list(line.items())[: self.MOST])
                return Ask(channel, priority, lanes, max(1, min(500, room // len(lanes))))
            fresh = [event_id for event_id, last in line.items() if last == 0][: self.MOST]
            if newcomers_room > 0 and fresh:
                return Ask(channel, priority, dict.fromkeys(fresh, 0), self.NEWCOMER)
        return None

    def took(self, ask: Ask, turns: Iterable[Turn]) -> int:
        """Notes what the turn brought; answers how many deliveries were dispatched."""
        line = self._lines[ask.channel, ask.priority]
        dispatched = 0
        for turn in turns:
            dispatched += turn.taken
            if turn.last is None:
                line.pop(turn.event_id, None)
            else:
                line[turn.event_id] = turn.last
                line.move_to_end(turn.event_id)
        return dispatched
