"""Reads from a standby that has replayed all that the caller has seen; otherwise from the primary.

Three things say what a caller has seen: positions that the caller sends, changes of the caller's data that this process
heard of or made, and what the primary had `_LARGEST_LAG` ago. docs/adr/0089-reads-from-a-standby.md has the reasons.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import structlog
from msgspec import Struct, structs

from tocsin.background import cancel_tasks
from tocsin.engine.model import Conflict, Invalid, NotFound, Unavailable
from tocsin.engine.store.connection import Availability, connect_async, one_line
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.engine.store.pagination import covers
from tocsin.sql import load

T = TypeVar("T")
Work = Callable[[Queries], Awaitable[T]]

_SQL = load("replica")
_LARGEST_LAG = 5.0  # seconds; what the primary had before is replayed, or the standby is not used
_MARK_EACH = 0.5  # seconds
_PATIENCE = 0.2  # seconds that a read waits for the standby to replay a position
_LOOK_AGAIN = 0.01
_WITHIN = 3.0  # seconds for a read on the standby, with that wait
_AGAIN_AFTER = 1.0  # seconds after a read that waited in vain
_REPORT_EACH = 60.0
_CONNECT_WITHIN = 2.0
_MANY = 5_000  # recipients whose change counts as a change of all

log = structlog.get_logger("tocsin.replica")


class Reads:
    """Where handlers read what a standby may serve; without a standby, always from the primary."""

    uses_standby = False

    def __init__(self, database: Database) -> None:
        self._database = database
        self.served: Counter[str] = Counter()
        """How many reads the standby served, and how many the primary did, by the cause."""

    async def start(self) -> None:
        """Starts to use the standby, as soon as there is one."""

    async def stop(self) -> None:
        """Closes the connections to the standby."""

    async def read(self, work: Work[T], *, caller: str = "", after: Sequence[str] = ()) -> T:  # noqa: ARG002
        """Returns what `work` reads for this caller, no older than the snapshots in `after`."""
        return await work(self._database)

    def changed(self, callers: Collection[str] | None) -> None:
        """Notes whose data changed (None: everybody's): they see it from now on."""

    async def position(self) -> str | None:
        """Returns a snapshot of all that is committed, for a caller that has written; None without a standby."""
        return None


class _Mark(Struct, frozen=True):
    """What the primary had at a time: its snapshot, and the end of its WAL."""

    snapshot: str
    place: str
    at: float = 0.0


class _StandbyPosition(Struct, frozen=True):
    snapshot: str | None
    place: str | None


class _Behind(Exception):
    """The standby has not replayed a position in time; `by_much`: not even what the primary had `_LARGEST_LAG` ago."""

    def __init__(self, *, by_much: bool) -> None:
        super().__init__()
        self.by_much = by_much


class StandbySession(Session):
    """Statements on a connection to a standby, which has all that `snapshot` covers."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], snapshot: str) -> None:
        super().__init__(connection)
        self.snapshot = snapshot


class StandbyReads(Reads):
    """Reads of one process from the standby at `dsn`, on at most `max_size` connections."""

    uses_standby = True

    def __init__(self, database: Database, dsn: str, *, max_size: int) -> None:
        super().__init__(database)
        self._availability = _StandbyAvailability(dsn, database)
        self._standby = Database(
            dsn, max_size=max_size, good_for=1.0, availability=self._availability
        )
        self._positions = _PrimaryPositions(database)
        self._last: _Mark | None = None  # what some standby had
        self._opened = self._behind = False
        self._no_wait_until = self._report_from = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts to use the standby, as soon as there is one."""
        self._availability.report_lost(broken=False)
        self._tasks = [
            asyncio.create_task(self._positions.keep(), name="primary positions"),
            asyncio.create_task(self._open(), name="standby"),
        ]

    async def stop(self) -> None:
        """Closes the connections to the standby."""
        await cancel_tasks(*self._tasks)
        await self._availability.close()
        await self._standby.close()

    async def _open(self) -> None:
        while not self._opened:
            await self._availability.wait()
            try:
                await self._standby.open()
                self._opened = True
            except Unavailable:
                self._availability.report_lost()

    def changed(self, callers: Collection[str] | None) -> None:
        """Notes whose data changed (None: everybody's): they see it from now on."""
        self._positions.changed(callers)

    async def position(self) -> str | None:
        """Returns a snapshot of all that is committed, for a caller that has written; None if there is none."""
        with suppress(Unavailable):
            return (await self._positions.current()).snapshot
        return None

    async def read(self, work: Work[T], *, caller: str = "", after: Sequence[str] = ()) -> T:
        """Returns what `work` reads for this caller, no older than the snapshots in `after`.

        Whatever fails on the standby is read again from the primary, which alone decides what is not there.
        """
        cause = "unavailable"
        if self._opened and self._availability.available and self._positions.oldest is not None:
            reading = asyncio.create_task(self._read(work, caller, after))
            try:
                await asyncio.wait((reading,), timeout=_WITHIN)
                if not reading.done():
                    self._availability.report_lost()
                    raise Unavailable("no response")
                found = reading.result()
                self._note(behind=False)
                self.served["standby"] += 1
                return found
            except _Behind as late:
                cause = "behind"
                self._no_wait_until = time.monotonic() + _AGAIN_AFTER
                self._note(behind=late.by_much)
            except Unavailable:
                pass
            except (NotFound, Invalid, Conflict):
                cause = "failed"
            except psycopg.Error as error:
                cause = "failed"
                self._report(error)
            finally:
                if not reading.done():
                    reading.add_done_callback(_forget_result)
                    reading.cancel()
        self.served[cause] += 1
        return await work(self._database)

    async def _read(self, work: Work[T], caller: str, after: Sequence[str]) -> T:
        needed = [await self._positions.needed_by(caller), *after]
        async with self._standby.session() as session:
            snapshot = await self._replayed(session, needed)
            return await work(StandbySession(session.connection, snapshot))

    async def _replayed(self, session: Session, needed: Sequence[str]) -> str:
        """Returns what the standby has, as soon as that covers these snapshots; raises _Behind."""
        now = time.monotonic()
        give_up = now + (_PATIENCE if now > self._no_wait_until else 0.0)
        oldest = self._positions.oldest
        assert oldest is not None
        while True:
            known = [oldest, *([self._last] if self._last else [])]
            found = await _standby_position(session, known)
            snapshot = found.snapshot
            if snapshot is not None and found.place is not None:
                self._last = _Mark(snapshot, found.place)
                if all(covers(snapshot, each) for each in needed):
                    return snapshot
            if time.monotonic() >= give_up:
                raise _Behind(by_much=snapshot is None or not covers(snapshot, oldest.snapshot))
            await asyncio.sleep(_LOOK_AGAIN)

    def _report(self, error: psycopg.Error) -> None:
        now = time.monotonic()
        if now >= self._report_from:
            self._report_from = now + _REPORT_EACH
            log.error(
                "read on the replica failed", error=type(error).__name__, sqlstate=error.sqlstate
            )

    def _note(self, *, behind: bool) -> None:
        if behind != self._behind:
            self._behind = behind
            if behind:
                log.warning("replica behind", seconds=_LARGEST_LAG)
            else:
                log.warning("replica keeps up again")


async def _standby_position(standby: Queries, known: Sequence[_Mark]) -> _StandbyPosition:
    """Returns what a standby has, if it has one of these positions of the primary."""
    return await standby.one(
        _StandbyPosition,
        _SQL["standby_position"],
        snapshots=[each.snapshot for each in known],
        places=[each.place for each in known],
    )


def _forget_result(reading: asyncio.Task[Any]) -> None:
    if not reading.cancelled():
        reading.exception()


class _PrimaryPositions:
    """Positions of the primary, and which of them a caller has to see.

    A change belongs to the first position that is read after it became known, so one statement serves all changes that
    came meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._marks: deque[_Mark] = (
            deque()
        )  # one each `_MARK_EACH`, the first of them `_LARGEST_LAG` old
        self._changed: set[str] = set()  # since the last position
        self._all_changed = False
        self._of_caller: dict[str, _Mark] = {}
        self._of_all: _Mark | None = None
        self._newest: _Mark | None = None
        self._reading = asyncio.Lock()

    @property
    def oldest(self) -> _Mark | None:
        """What the primary had `_LARGEST_LAG` ago, or since then; None before the first position."""
        return self._marks[0] if self._marks else None

    def changed(self, callers: Collection[str] | None) -> None:
        """Notes whose data changed; None, or many: everybody's."""
        if callers is None or len(callers) > _MANY:
            self._all_changed = True
        else:
            self._changed.update(callers)

    async def needed_by(self, caller: str) -> str:
        """Returns the snapshot that a read of this caller has to cover; raises Unavailable."""
        if self._all_changed or caller in self._changed:
            async with self._reading:
                if self._all_changed or caller in self._changed:
                    await self._read()
        oldest = self.oldest
        assert oldest is not None
        found = (oldest, self._of_caller.get(caller), self._of_all)
        return max((each for each in found if each), key=lambda each: each.at).snapshot

    async def current(self) -> _Mark:
        """Returns a position that was read after this call; raises Unavailable."""
        called = time.monotonic()
        async with self._reading:
            newest = self._newest
            if newest is None or newest.at < called:
                newest = await self._read()
            return newest

    async def _read(self) -> _Mark:
        """Reads the present position, which all changes until now get."""
        changed, self._changed = self._changed, set()
        everybody, self._all_changed = self._all_changed or len(changed) > _MANY, False
        at = time.monotonic()
        try:
            read = await self._database.one(_Mark, _SQL["primary_position"])
        except BaseException:
            self._changed |= changed
            self._all_changed |= everybody
            raise
        mark = self._newest = structs.replace(read, at=at)
        if everybody:
            self._of_all = mark
        else:
            self._of_caller.update(dict.fromkeys(changed, mark))
        return mark

    async def keep(self) -> None:
        """Reads the position twice a second until it is cancelled."""
        while True:
            try:
                async with self._reading:
                    self._marks.append(await self._read())
                self._forget()
            except Unavailable:
                await self._database.availability.wait()
            except Exception:
                log.exception("position of the primary not read")
            await asyncio.sleep(_MARK_EACH)

    def _forget(self) -> None:
        """Forgets what is older than `_LARGEST_LAG`: whoever reads from the standby sees it anyway."""
        since = time.monotonic() - _LARGEST_LAG
        while len(self._marks) > 1 and self._marks[1].at <= since:
            self._marks.popleft()
        self._of_caller = {
            caller: mark for caller, mark in self._of_caller.items() if mark.at > self._marks[0].at
        }


class _Identity(Struct, frozen=True):
    standby: bool
    system_identifier: int


class _StandbyAvailability(Availability):
    """Knows whether there is a standby of the primary at `dsn`."""

    def __init__(self, dsn: str, primary: Database) -> None:
        super().__init__(dsn)
        self._primary = primary
        self._identifier = 0

    async def _probe_each(self) -> str | None:
        try:
            self._identifier = self._identifier or await identifier_of(self._primary)
        except (Unavailable, psycopg.Error) as error:
            return f"it can't be compared with the primary: {one_line(error)}"
        return await why_no_standby(self._dsn, self._identifier)

    def _report(self, reason: str, seconds: int) -> None:
        log.warning("replica unavailable", reason=reason, seconds=seconds)

    def _report_return(self, seconds: float) -> None:
        log.warning("replica available again", seconds=seconds)

    def _report_renewal(self) -> None:
        log.info("connection to the replica lost, connecting again")


async def identifier_of(primary: Queries) -> int:
    """Returns by what a server and its standbys are known."""
    return (await primary.one(_Identity, _SQL["server_identity"])).system_identifier


async def why_no_standby(dsn: str, identifier: int) -> str | None:
    """Returns in one line why a server can't serve the reads of the primary with this identifier; None if it can."""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            connection = await connect_async(dsn, connect_timeout=int(_CONNECT_WITHIN))
            try:
                found = await Session(connection).one(_Identity, _SQL["server_identity"])
            finally:
                await connection.close()
    except TimeoutError:
        return f"no response within {_CONNECT_WITHIN:.0f} s"
    except (Unavailable, psycopg.Error, OSError) as error:
        return one_line(error)
    if not found.standby:
        return "it is no standby: it can be written to"
    if found.system_identifier != identifier:
        return "it is a standby of another server"
    return None


async def seconds_behind(dsn: str, primary: Queries, *, most: float) -> float | None:
    """Returns after how long a standby has what the primary has now; None: longer than `most`. Raises Unavailable."""
    mark = await primary.one(_Mark, _SQL["primary_position"])
    began = time.monotonic()
    standby = Database(dsn, max_size=1)
    await standby.open()
    try:
        while (took := time.monotonic() - began) <= most:
            found = await _standby_position(standby, [mark])
            if found.snapshot is not None and covers(found.snapshot, mark.snapshot):
                return took
            await asyncio.sleep(_LOOK_AGAIN)
    finally:
        await standby.close()
    return None
