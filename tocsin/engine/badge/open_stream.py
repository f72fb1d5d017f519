"""One open stream: its position in the inbox, the latest badge, and the events that are not sent yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct, structs

from tocsin.engine.model import Badge
from tocsin.engine.store.badge import InboxChange, StreamNotification
from tocsin.engine.store.pagination import Position, is_ahead
from tocsin.engine.text import sanitise

# Events that a slow reader may leave waiting; beyond it, one `resync` takes their place.
_WAITING = 200

_encode = msgspec.json.Encoder().encode


class StreamEvent(Struct, frozen=True):
    """One server-sent event; `data` is JSON."""

    event: str  # badge, notification, read, archived, unarchived, action, resync, expired
    data: bytes
    id: str


class OpenStream:
    """What one stream has yet to send; filled by the hub, emptied by `next`."""

    __slots__ = (
        *("_badge", "_badge_sent", "_changed", "_closed", "_events", "_leave", "_lost", "_reader"),
        *("_known", "erased", "position", "recipient_id"),
    )

    def __init__(
        self,
        recipient_id: str,
        position: Position | None,
        *,
        lost: bool,
        leave: Callable[[OpenStream], None],
    ) -> None:
        self.recipient_id = recipient_id
        self.position = position
        self._lost = lost  # it came with a position that is not ours
        self._leave = leave
        self._badge: Badge | None = None
        self._badge_sent: Badge | None = None
        self._events: list[StreamEvent] = []
        self._changed = False
        self._reader: asyncio.Future[None] | None = None  # until there is something to send
        self._closed = False
        self._known = False  # seen as a recipient
        self.erased = False  # seen so once, and not any more: the stream is closed

    async def __aenter__(self) -> OpenStream:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Removes the stream: its reader has disconnected."""
        self._leave(self)

    @property
    def token(self) -> str:
        """The id for an event of the stream itself; empty before the first read."""
        return self.position.token() if self.position else ""

    def close(self) -> None:
        """Ends the stream once what waits is sent."""
        self._closed = True
        self._wake()

    def put(
        self,
        snapshot: str,
        badge: Badge,
        events: Sequence[StreamEvent] | None,
        *,
        known: bool = True,
    ) -> None:
        """Adds what the hub read: all that is new since `position`, in the snapshot; None: too much.

        Ends the stream of a person that was `known` and no longer is: the person was erased.
        """
        if self._known and not known:
            self.erased = True
            self.close()
        self._known = known
        before, self.position = self.position, Position(snapshot)
        lost = self._lost or (before is not None and is_ahead(before, snapshot))
        if lost or events is None or len(self._events) > _WAITING:
            self._events = [StreamEvent("resync", b"{}", self.position.token())]
        else:
            self._events += events
        self._lost = False
        self._badge = badge
        if self._events or badge != self._badge_sent:
            self._wake()

    async def next(self, timeout: float) -> list[StreamEvent] | None:
        """Returns the events since the last call, in order; [] after `timeout` seconds without any; None at the end."""
        if not self._changed:
            # thousands wait here: cheaper than asyncio.timeout
            loop = asyncio.get_running_loop()
            self._reader = loop.create_future()
            timer = loop.call_later(timeout, _end, self._reader)
            try:
                await self._reader
            finally:
                timer.cancel()
                self._reader = None
        if self._closed:
            return None
        if not self._changed:
            return []
        self._changed = False
        events, self._events = self._events, []
        if self._badge is not None and self._badge != self._badge_sent:
            assert self.position is not None
            self._badge_sent = self._badge
            events.append(StreamEvent("badge", _encode(self._badge), self.position.token()))
        return events

    def _wake(self) -> None:
        self._changed = True
        if self._reader is not None:
            _end(self._reader)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def events_since(
    before: Position,
    snapshot: str,
    arrived: Sequence[StreamNotification],
    changes: Sequence[InboxChange],
) -> list[StreamEvent]:
    """Returns the events for a reader at that position, each with the position after it.

    Changes come first: a notification has its own read state, as in this snapshot, and an earlier "all" must not
    include it.
    """
    events = [StreamEvent(*_change(change), before.token()) for change in changes]
    for notification in arrived:
        seen = Position(before.snapshot, snapshot, notification.id)
        events.append(StreamEvent("notification", _encode(_safe(notification)), seen.token()))
    if events:
        events[-1] = structs.replace(events[-1], id=Position(snapshot).token())
    return events


def _change(change: InboxChange) -> tuple[str, bytes]:
    """Returns the event's name and data."""
    ids = "all" if change.notification_ids is None else change.notification_ids
    if change.change == "acted":
        return "action", _encode({"id": ids[0], "acted": change.acted})
    if change.change in ("archived", "unarchived"):
        # too many to name: the reader reads its list again
        return ("resync", b"{}") if ids == "all" else (change.change, _encode({"ids": ids}))
    return "read", _encode({"ids": ids, "read": change.change == "read"})


def _safe(notification: StreamNotification) -> StreamNotification:
    if notification.body_html is None:
        return notification
    return structs.replace(notification, body_html=sanitise(notification.body_html))
