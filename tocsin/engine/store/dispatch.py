"""What the elected listener asks: who moved, which lanes came, what is due, and jobs for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct

from tocsin.engine.store.database import Session, connect_directly, expected_failures
from tocsin.sql import load

_SQL = load("dispatch")

# What is announced instead of very many: each process reads all its own streams anew.
EVERYONE = "*"


class Scan(Struct, frozen=True):
    """What was committed since the scan before: lanes as three arrays of equal length.

    `changed` are those of the recipients whose inbox changed otherwise than by something new. `announced` is null or
    empty: it is there for what it does.
    """

    snapshot: str
    recipients: list[str]
    announced: str | None
    changed: list[str]
    event_ids: list[int]
    channels: list[str]
    priorities: list[int]


class Assignable(Struct, frozen=True):
    """Addresses with something for their claimant that was committed since the look before."""

    snapshot: str
    addresses: list[str]


class Assigned(Struct, frozen=True):
    """How many notifications became their claimants', and the addresses that somebody else holds just now."""

    assigned: int
    busy: list[str]


class Turn(Struct, frozen=True):
    """A lane after its turn; `last` None: it is empty."""

    event_id: int
    last: int | None
    taken: int


class _Due(Struct):
    channel: str
    seconds: float


class LeaderSession(Session):
    """The listener's own connection, direct and autocommitted."""

    @classmethod
    async def connect(cls, dsn: str) -> LeaderSession:
        """Opens it; raises Unavailable."""
        bell = cls(await connect_directly(dsn))
        try:
            await bell.value(_SQL["configure_planner"])
        except BaseException:
            await bell.close()
            raise
        return bell

    async def close(self) -> None:
        await self.connection.close()

    @property
    def pid(self) -> int:
        """Its backend's process id, which its announcements bear."""
        return self.connection.info.backend_pid

    async def try_lead(self, silent_for: timedelta) -> bool:
        """Makes this connection the elected one, where there is none or it was silent for so long; until it closes."""
        return bool(await self.value(_SQL["try_lead"], silent_for=silent_for))

    async def beat(self) -> bool:
        """Proves the leader alive; false where another connection leads."""
        return bool(await self.value(_SQL["record_heartbeat"]))

    async def has_leader(self, within: timedelta) -> bool:
        """Whether some leader wrote its beat lately."""
        return bool(await self.value(_SQL["has_leader"], within=within))

    async def listen(self) -> None:
        await self.run(_SQL["listen"])

    async def rung(self, timeout: float) -> int:
        """Waits for a ring, `timeout` seconds at most; answers how many came together."""
        rings = 0
        with expected_failures():
            async for _ in self.connection.notifies(timeout=timeout, stop_after=1):
                rings += 1
        return rings

    async def measure_commit_wait(self) -> list[float]:
        """Seconds that some transactions waited for their turn to commit, because they rang."""
        return list(await self.value(_SQL["measure_commit_wait"]))

    async def arm(self) -> bool:
        """Asks to be rung; false while an open transaction did not promise to."""
        return bool(await self.value(_SQL["start_idle"]))

    async def disarm(self) -> None:
        await self.value(_SQL["stop_idle"])

    async def scan(self, since: str | None, *, announce: bool) -> Scan:
        """What was committed since the snapshot `since`; None: all that is there.

        To `announce` whose inbox moved it is for a listener that is awake.
        """
        found = await self.row(Scan, _SQL["scan"], since=since, announce=announce)
        assert found is not None
        return found

    async def assignable_since(self, since: str | None) -> Assignable:
        """Which claims met an invitation since the snapshot `since`."""
        found = await self.row(Assignable, _SQL["assignable_since"], since=since)
        assert found is not None
        return found

    async def assign_invitations(self, addresses: Sequence[str]) -> Assigned:
        """Gives what waits for these addresses to their claimants."""
        done = await self.row(Assigned, _SQL["assign_invitations"], addresses=list(addresses))
        assert done is not None
        return done

    async def announce_everyone(self) -> None:
        """Has every HTTP process read all its streams anew."""
        await self.value(_SQL["announce_everyone"])

    async def fold_unread(self, announced: str, folded: str | None) -> int:
        """Folds what the snapshot saw into the counters, `folded` being the one before; answers how many changes."""
        return int(await self.value(_SQL["fold_unread"], announced=announced, folded=folded))

    async def changed_since_badge_pushes(self) -> list[str]:
        """Who changed their inbox since a leader last asked for pushes that correct badges."""
        return list(await self.value(_SQL["changed_since_badge_pushes"]))

    async def queue_badge_pushes(
        self, recipients: Sequence[str], *, window: timedelta, life: timedelta, seen: str | None
    ) -> int:
        """Asks for silent pushes to all devices of these people, due after `window`; answers how many.

        `seen` is a snapshot all of whose changes have been asked for with these.
        """
        arguments = {"recipients": list(recipients), "window": window, "life": life, "seen": seen}
        return int(await self.value(_SQL["queue_badge_pushes"], **arguments))

    async def may_vacuum(self) -> bool:
        """Whether this session's role may vacuum the small tables."""
        return bool(await self.value(_SQL["may_vacuum"]))

    async def vacuum(self) -> None:
        """Clears the small tables of what was folded, dispatched and settled."""
        await self.run(_SQL["vacuum_unread"])
        await self.run(_SQL["vacuum_event_queues"])
        await self.run(_SQL["vacuum_leases"])

    async def tidy(self) -> None:
        """Forgets what streams had an hour to take, what was counted, and what came back of people who were erased."""
        await self.run(_SQL["forget_inbox_changes"])
        await self.run(_SQL["delete_settled_batches"])
        await self.value(_SQL["finish_erasures"])

    async def jobs_at_work(self, channel: str, alive_within: timedelta) -> int:
        """Jobs of a channel that wait or that live workers have."""
        return int(
            await self.value(_SQL["jobs_at_work"], channel=channel, alive_within=alive_within)
        )

    async def dispatch_event_queues(
        self, channel: str, priority: int, lanes: dict[int, int], *, each: int, lease: timedelta
    ) -> list[Turn]:
        """Gives lanes ({event id: last delivery taken}) their next turn; one that is locked is not in the answer."""
        return await self.rows(
            Turn,
            _SQL["dispatch_event_queues"],
            channel=channel,
            priority=priority,
            event_ids=list(lanes),
            after=list(lanes.values()),
            each=each,
            lease=lease,
        )

    async def dispatch_due(self, channel: str, room: int, lease: timedelta) -> int:
        """Dispatches what is due again; answers how many deliveries it took up."""
        return int(await self.value(_SQL["dispatch_due"], channel=channel, room=room, lease=lease))

    async def end_leases(self, most: int) -> int:
        """Makes due what the leases hold that ran out; answers how many leases."""
        return int(await self.value(_SQL["end_leases"], most=most))

    async def fan_out_due_events(self, limit: int) -> int:
        """Tells scheduled events whose time has come; answers how many."""
        return int(await self.value(_SQL["fan_out_due_events"], limit=limit))

    async def next_due(self) -> dict[str, float]:
        """Seconds until something falls due, by channel; '' for scheduled events, '*' for leases."""
        return {row.channel: row.seconds for row in await self.rows(_Due, _SQL["next_due"])}

    async def reset_foreign_xids(self) -> bool:
        """Starts transaction ids anew where the database was restored into another cluster."""
        return bool(await self.value(_SQL["reset_foreign_xids"]))
