"""The event queue: events whose deliveries have no job yet, in fair order and urgent ones first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from tocsin.engine.store.dispatch import DispatchedEvent


class Share(Struct, frozen=True):
    """What to dispatch next: `each` deliveries of events of one channel and priority ({event id: last dispatched})."""

    channel: str
    priority: int
    events: dict[int, int]
    each: int


class EventQueue:
    """Round robin: an event that had its share goes to the end of the queue.

    A huge fan-out thus takes its share and no more: the one mail of another event is in the next share. What is
    kept here is only a hint of what the table tocsin.event_queue has.
    """

    MOST = 200  # events in a share
    NEWCOMER = 20  # deliveries that a new event may dispatch at once, however busy the channel

    def __init__(self) -> None:
        self._queues: dict[tuple[str, int], OrderedDict[int, int]] = {}

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def add(self, event_id: int, channel: str, priority: int) -> None:
        """Adds an event; one that is queued already keeps its place."""
        self._queues.setdefault((channel, priority), OrderedDict()).setdefault(event_id, 0)

    @property
    def channels(self) -> list[str]:
        """Channels for which an event is queued."""
        return sorted({channel for (channel, _), queue in self._queues.items() if queue})

    def next_share(self, channel: str, room: int, newcomers_room: int) -> Share | None:
        """Returns the next share of a channel that has room for so many deliveries.

        Where it has none, events that never had a share still get a first small one, within `newcomers_room`.
        """
        for priority in sorted({p for c, p in self._queues if c == channel}, reverse=True):
            queue = self._queues[channel, priority]
            if room > 0 and queue:
                events = dict(list(queue.items())[: self.MOST])
                return Share(channel, priority, events, max(1, min(500, room // len(events))))
            new = [event_id for event_id, last in queue.items() if last == 0][: self.MOST]
            if newcomers_room > 0 and new:
                return Share(channel, priority, dict.fromkeys(new, 0), self.NEWCOMER)
        return None

    def dispatched(self, share: Share, results: Iterable[DispatchedEvent]) -> int:
        """Notes what was dispatched of a share; returns how many deliveries."""
        queue = self._queues[share.channel, share.priority]
        count = 0
        for result in results:
            count += result.taken
            if result.last is None:
                queue.pop(result.event_id, None)
            else:
                queue[result.event_id] = result.last
                queue.move_to_end(result.event_id)
        return count
