"""The queries of the leader: what was committed, what is due, and jobs for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from tocsin.engine.store.database import Session, connect_directly, expected_failures
from tocsin.engine.store.libpq import query_prepared
from tocsin.sql import load

_SQL = load("dispatch")

# Announced in place of very many recipients: each process reads again for all its streams.
EVERYONE = "*"


class Scan(Struct, frozen=True):
    """What was committed since the last scan; entries of the event queue as three arrays of equal length.

    `changed` are those of the recipients whose inbox changed otherwise than by something new; `waiting` is how many
    commits waited for one another, of a scan that announces nothing.
    """

    snapshot: str
    recipients: list[str]
    changed: list[str]
    event_ids: list[int]
    channels: list[str]
    priorities: list[int]
    idle: bool
    waiting: int | None


_read_scan = msgspec.json.Decoder(Scan).decode


class Assignable(Struct, frozen=True):
    """Owned addresses with invitations, one or the other committed since the last check."""

    snapshot: str
    addresses: list[str]


class Assigned(Struct, frozen=True):
    """How many notifications were assigned, and the addresses that another transaction has locked."""

    assigned: int
    busy: list[str]


class FanOutStep(Struct, frozen=True):
    """How many people a slice had, and whether any fan-out is left; `failed` is an event whose slice failed."""

    people: int
    running: bool
    failed: int | None
    error: str | None


class DispatchedEvent(Struct, frozen=True):
    """An entry of the event queue of which `taken` deliveries were dispatched; `last` None: it has no more."""

    event_id: int
    last: int | None
    taken: int


class LeaderSession(Session):
    """A connection of the leader, direct and autocommitted."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._signals = 0  # that came with the result of a scan

    @classmethod
    async def connect(cls, dsn: str) -> LeaderSession:
        """Opens a connection; raises Unavailable."""
        session = cls(await connect_directly(dsn))
        try:
            await session.value(_SQL["configure_planner"])
            await session.run(_SQL["prepare_scan"])
        except BaseException:
            await session.close()
            raise
        return session

    async def close(self) -> None:
        await self.connection.close()

    @property
    def pid(self) -> int:
        """The process id of its backend, from which its announcements come."""
        return self.connection.info.backend_pid

    async def try_lead(self, silent_for: timedelta) -> bool:
        """Makes this connection the leader's until it closes, where there is none or it was silent for so long."""
        return bool(await self.value(_SQL["try_lead"], silent_for=silent_for))

    async def record_heartbeat(self) -> bool:
        """Records that the leader is alive; false where another connection leads."""
        return bool(await self.value(_SQL["record_heartbeat"]))

    async def has_leader(self, within: timedelta) -> bool:
        """Returns whether a leader recorded a heartbeat within this time."""
        return bool(await self.value(_SQL["has_leader"], within=within))

    async def listen(self) -> None:
        await self.run(_SQL["listen"])

    async def wait_for_wake(self, timeout: float) -> int:
        """Waits for a wake-up signal, `timeout` seconds at most; returns how many came since the last call."""
        if not self._signals:
            with expected_failures():
                async for _ in self.connection.notifies(timeout=timeout, stop_after=1):
                    self._signals += 1
        signals, self._signals = self._signals, 0
        return signals

    async def stop_idle(self) -> None:
        await self.value(_SQL["stop_idle"])

    async def scan(self, since: str | None, *, announce: bool, start_idle: bool = False) -> Scan:
        """Returns what was committed since the snapshot `since`; None: all that is there.

        With `announce`, its recipients are announced to the HTTP processes; while idle, the commits do that. With
        `start_idle`, the leader is idle from then on if no transaction is open that will not announce itself.
        """
        flags = (str(announce), str(start_idle))
        scan = _read_scan(await query_prepared(self, "scan", since, *flags))
        while self.connection.pgconn.notifies() is not None:
            self._signals += 1
        return scan

    async def assignable_since(self, since: str | None) -> Assignable:
        """Returns the owned addresses with invitations, one or the other committed since the snapshot `since`."""
        return await self.one(Assignable, _SQL["assignable_since"], since=since)

    async def assign_invitations(self, addresses: Sequence[str]) -> Assigned:
        """Assigns the invitations of these addresses to their owners."""
        return await self.one(Assigned, _SQL["assign_invitations"], addresses=list(addresses))

    async def apply_pending_changes(self) -> int:
        """Applies what calls left for after their commit; returns how much waits for open transactions."""
        return int(await self.value(_SQL["apply_pending_changes"]) or 0)

    async def announce_everyone(self) -> None:
        """Makes each HTTP process read again for all its streams."""
        await self.value(_SQL["announce_everyone"])

    async def fold_unread(self, announced: str, folded: str | None) -> int:
        """Adds what the snapshot saw to the counters; `folded` is the snapshot before. Returns how many changes."""
        return int(await self.value(_SQL["fold_unread"], announced=announced, folded=folded))

    async def changed_since_badge_pushes(self) -> list[str]:
        """Returns the recipients whose inbox changed since badge pushes were last queued."""
        return list(await self.value(_SQL["changed_since_badge_pushes"]))

    async def queue_badge_pushes(
        self, recipients: Sequence[str], *, window: timedelta, life: timedelta, seen: str | None
    ) -> int:
        """Queues silent pushes to all devices of these people, due after `window`; returns how many.

        `seen` is a snapshot all of whose changes are queued with these.
        """
        arguments = {"recipients": list(recipients), "window": window, "life": life, "seen": seen}
        return int(await self.value(_SQL["queue_badge_pushes"], **arguments))

    async def may_vacuum(self) -> bool:
        """Returns whether this session's role may vacuum the small tables."""
        return bool(await self.value(_SQL["may_vacuum"]))

    async def vacuum(self) -> None:
        """Vacuums the small tables."""
        await self.run(_SQL["vacuum_unread"])
        await self.run(_SQL["vacuum_event_queues"])
        await self.run(_SQL["vacuum_leases"])

    async def tidy(self) -> None:
        """Deletes inbox changes after an hour, batches that were counted, and new data of erased people."""
        await self.run(_SQL["forget_inbox_changes"])
        await self.run(_SQL["delete_settled_batches"])
        await self.value(_SQL["finish_erasures"])

    async def jobs_at_work(self, channel: str, alive_within: timedelta) -> int:
        """Returns how many jobs of a channel wait, or are run by workers that are alive."""
        return int(
            await self.value(_SQL["jobs_at_work"], channel=channel, alive_within=alive_within)
        )

    async def dispatch_event_queues(
        self, channel: str, priority: int, events: dict[int, int], *, each: int, lease: timedelta
    ) -> list[DispatchedEvent]:
        """Dispatches the next deliveries of {event id: last dispatched}; a locked event is not in the result."""
        return await self.rows(
            DispatchedEvent,
            _SQL["dispatch_event_queues"],
            channel=channel,
            priority=priority,
            event_ids=list(events),
            after=list(events.values()),
            each=each,
            lease=lease,
        )

    async def dispatch_due(self, channel: str, room: int, lease: timedelta) -> int:
        """Dispatches what is due; returns how many deliveries."""
        return int(await self.value(_SQL["dispatch_due"], channel=channel, room=room, lease=lease))

    async def end_leases(self, most: int) -> int:
        """Makes the deliveries of expired leases due; returns how many leases."""
        return int(await self.value(_SQL["end_leases"], most=most))

    async def fan_out_due_events(self, limit: int) -> int:
        """Fans out scheduled events that are due; returns how many."""
        return int(await self.value(_SQL["fan_out_due_events"], limit=limit))

    async def advance_fan_outs(self, slice_: int) -> FanOutStep:
        """Writes the next slice of a large fan-out, for up to so many people."""
        return await self.one(FanOutStep, _SQL["advance_fan_outs"], slice=slice_)

    async def next_due(self) -> dict[str, float]:
        """Returns the seconds until something is due, by channel; '' for scheduled events, '*' for leases."""
        return await self.pairs(_SQL["next_due"])

    async def reset_foreign_xids(self) -> bool:
        """Resets transaction ids where the database was restored into another cluster."""
        return bool(await self.value(_SQL["reset_foreign_xids"]))
