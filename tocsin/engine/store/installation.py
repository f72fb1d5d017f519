"""What one installation has in common: secrets, tokens, providers, processes, and the clean-up.

Each process reports its state every few seconds, with that of its actors and whether it leads; a report expires.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from uuid import UUID, uuid4

import msgspec
import structlog
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import (
    LEASE,
    PROVIDERS,
    ActorReport,
    Channel,
    Conflict,
    SendHold,
    SignedToken,
    Unavailable,
)
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.sql import load

_SQL = load("installation")
_BATCH = 1000  # rows of one statement of a clean-up, so that no lock is held long
_PAGE = 10_000  # rows of a page that is only read
_FIRST = datetime.min.replace(tzinfo=UTC)  # before all rows
_WEBHOOKS_KEPT = timedelta(days=14)  # messages to app webhooks, for replays
_RETRY = 0.2  # seconds until a report is retried, and between two at least
_REPORT_WITHIN = 5.0  # seconds, after which the database counts as lost

log = structlog.get_logger("tocsin.report")


class Retention(Struct, frozen=True):
    """For how many days notifications are kept."""

    days: int  # after they were read or archived
    unread_days: int | None = None  # after they were made; None: for ever


async def clean_up(database: Database, *, now: datetime, retention: Retention) -> int:
    """Deletes notifications that were past `retention` at `now`; returns how many.

    With them go their digests and events, yesterday's keys, and the pushes that corrected badges; stale devices are
    disabled, and what the ledger lost sight of is due.
    """
    kept = timedelta(days=retention.days)
    before = now - kept
    removed = await _clean_up_notifications(database, before)
    removed += await _clean_up_unread(database, now, retention.unread_days)
    await _in_batches(database, "clean_up_digests", before=before)
    await _clean_up_events(database, before)
    await _in_batches(database, "clean_up_mail_events", before=before)
    await _in_batches(database, "clean_up_keys", now=now)
    await _in_batches(database, "clean_up_badge_pushes", now=now)
    await _in_batches(database, "clean_up_joined_messages", now=now)
    await _in_batches(database, "clean_up_webhooks", before=now - min(kept, _WEBHOOKS_KEPT))
    await _in_batches(database, "disable_stale_devices", now=now)
    await _requeue_lost(database, now)
    return removed


async def _in_batches(database: Database, statement: str, **until: datetime) -> int:
    removed = 0
    while True:
        count = int(await database.value(_SQL[statement], limit=_BATCH, **until))
        removed += count
        if count < _BATCH:
            return removed


async def _clean_up_notifications(database: Database, before: datetime) -> int:
    """Deletes what was read or archived before that time, the oldest first; returns how many."""
    removed = 0
    last = _FIRST
    while True:
        batch = await database.one(
            _Batch, _SQL["clean_up_notifications"], after=last, before=before, limit=_BATCH
        )
        removed += batch.deleted
        if batch.last is None or batch.deleted < _BATCH:
            return removed
        last = batch.last


async def _clean_up_events(database: Database, before: datetime) -> None:
    """Deletes events without notifications, page by page through all events from before that time."""
    last: datetime | None = _FIRST
    last_id: int | None = 0
    while last is not None:
        page = await database.one(
            _EventPage,
            _SQL["clean_up_events"],
            after=last,
            after_id=last_id,
            before=before,
            limit=_BATCH,
        )
        last, last_id = page.last, page.last_id


async def _requeue_lost(database: Database, now: datetime) -> None:
    """Makes lost deliveries due, page by page through the last days."""
    last: int | None = await database.value(_SQL["first_maybe_lost"], now=now)
    while last is not None:
        last = await database.value(_SQL["requeue_lost"], after=last, now=now, limit=_PAGE)


async def _clean_up_unread(database: Database, now: datetime, days: int | None) -> int:
    """Deletes what is unread for too long, page by page through all old notifications; returns how many."""
    removed = 0
    last: int | None = 0
    while last is not None:
        page = await database.one(
            _UnreadPage, _SQL["clean_up_unread"], after=last, now=now, days=days, limit=_BATCH
        )
        last = page.last_id
        removed += page.deleted
    return removed


class _Batch(Struct, frozen=True):
    last: datetime | None
    deleted: int


class _EventPage(Struct, frozen=True):
    last: datetime | None
    last_id: int | None
    deleted: int


class _UnreadPage(Struct, frozen=True):
    last_id: int | None
    deleted: int


async def count_over(database: Database, *, now: datetime, retention: Retention) -> int:
    """Returns how many notifications a clean-up would delete."""
    before = now - timedelta(days=retention.days)
    unread = await database.value(
        _SQL["count_unread_for_too_long"], now=now, days=retention.unread_days
    )
    return int(await database.value(_SQL["count_over"], before=before)) + int(unread)


async def requeue_lost_jobs(database: Database, worker_id: int, running: Sequence[int]) -> None:
    """Queues again the jobs that a worker fetched in a query whose result was lost, except those it is `running`."""
    await database.run(_SQL["requeue_lost_jobs"], worker_id=worker_id, running=list(running))


async def get_secret(database: Database, name: str) -> bytes:
    """Returns the secret of that name, which the migrations made."""
    value: bytes = await database.value(_SQL["get_secret"], name=name)
    return value


class SharedTokens:
    """The APNs token that all workers share, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, key: str) -> SignedToken | None:
        """Returns the current token of this key."""
        return await self._database.row(SignedToken, _SQL["load_token"], key=key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores it if `replacing` is still the current one; returns the current one after that."""
        await self._database.run(
            _SQL["save_token"],
            key=signed.key,
            token=signed.token,
            issued_at=signed.issued_at,
            early=signed.early,
            replacing=replacing and replacing.token,
        )
        return await self.load(signed.key) or signed


# Which providers the workers have, as each reports its own.

# A worker reports its providers at this interval; they expire after three missed reports.
OFFER_AGAIN = timedelta(seconds=30)
_GOOD_FOR = 3 * OFFER_AGAIN


async def offer_providers(database: Database, names: Collection[str]) -> None:
    """Reports which providers this worker has, for the decisions of notify()."""
    await database.run(
        _SQL["offer_providers"],
        channels=[PROVIDERS[name].channel.value for name in names],
        providers=list(names),
        good_for=_GOOD_FOR,
    )


async def is_offered(database: Database, channel: Channel, provider: str) -> bool:
    """Returns whether some worker has this provider of the channel."""
    offered = await database.value(
        _SQL["is_offered"], channel=channel.value, provider=provider, good_for=_GOOD_FOR
    )
    return bool(offered)


REPORT_AGAIN = 2.0
"""Seconds between two reports of a process."""
SILENT_AFTER = 10.0
"""Seconds without a report after which a process counts as ended or hanging."""


class ProcessReport(Struct, frozen=True):
    """The state of one process."""

    leading: bool = False
    streams: int = 0
    actors: list[ActorReport] = []


class Identity(Struct, frozen=True):
    """Which process it is."""

    process_id: UUID
    kind: str  # worker or serve
    host: str
    pid: int
    version: str
    started_at: datetime


class Process(Identity, frozen=True):
    """A process and its last report."""

    reported_at: datetime
    silent_for: float  # seconds
    report: ProcessReport

    @property
    def silent(self) -> bool:
        """Whether its last report is too old."""
        return self.silent_for > SILENT_AFTER


class SharedState(Struct, frozen=True):
    """What a process learns with its report: how many processes serve HTTP, and what providers asked to hold."""

    serving: int
    holds: list[SendHold]


class ServingProcesses(Struct):
    """How many processes serve HTTP, as of this process's last report."""

    count: int = 1

    def learn(self, state: SharedState) -> None:
        """Takes over what a report returned."""
        self.count = max(1, state.serving)


async def report_process(
    database: Queries, identity: Identity, report: ProcessReport
) -> SharedState:
    """Replaces the report of a process; renews its leases after a time without one."""
    columns = msgspec.structs.asdict(identity)
    return await database.one(
        _to_shared_state,
        _SQL["report_process"],
        process_kind=columns.pop("kind"),
        **columns,
        lease=LEASE,
        report=Jsonb(msgspec.to_builtins(report)),
        silent_after=timedelta(seconds=SILENT_AFTER),
    )


def _to_shared_state(**columns: object) -> SharedState:
    return msgspec.convert(columns, SharedState)


async def forget_process(database: Database, process_id: UUID) -> None:
    """Deletes the report of a process that ends."""
    await database.run(_SQL["forget_process"], process_id=process_id)


async def processes(database: Queries) -> list[Process]:
    """Returns every process that reported within the hour, the silent ones too."""
    return await database.rows(_to_process, _SQL["processes"])


def _to_process(**columns: object) -> Process:
    return msgspec.convert(columns, Process)  # another version's report may hold more, or less


def new_identity(kind: str) -> Identity:
    """Returns a new identity of this process; `kind` is worker or serve."""
    return Identity(
        uuid4(), kind, socket.gethostname(), os.getpid(), version("tocsin"), datetime.now(UTC)
    )


async def keep_reporting(
    database: Database,
    identity: Identity,
    make_report: Callable[[], ProcessReport],
    learn: Callable[[SharedState], None],
    at_once: asyncio.Event | None = None,
) -> None:
    """Reports until it is cancelled, and then deletes its report; `learn` is called with what each report returns.

    After an outage of the database, the first report comes before anything else: it renews the leases of this process.
    While `at_once` is set it does not wait for the time of the next report.
    """
    at_once = at_once or asyncio.Event()
    database.availability.on_return = lambda connection: report_process(
        Session(connection), identity, make_report()
    )
    try:
        while True:
            at_once.clear()
            reported = await _report(database, identity, make_report(), learn)
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_AGAIN if reported else _RETRY):
                    await asyncio.sleep(_RETRY)  # whoever sets it
                    await at_once.wait()
            await database.availability.wait()
    finally:
        with suppress(Unavailable, Conflict, TimeoutError):
            async with asyncio.timeout(1.0):
                await forget_process(database, identity.process_id)


async def _report(
    database: Database,
    identity: Identity,
    report: ProcessReport,
    learn: Callable[[SharedState], None],
) -> bool:
    """Returns whether the report was written, or need not be retried at once.

    A statement that was sent before the database hung gets no response, and an idle process sends no other.
    """
    reporting = asyncio.create_task(report_process(database, identity, report))
    try:
        await asyncio.wait({reporting}, timeout=_REPORT_WITHIN)
        if not reporting.done():
            database.availability.report_lost(broken=False)
            return False
        learn(reporting.result())
    except (Unavailable, Conflict):
        return False
    except Exception:
        # a bug, or a schema in the middle of an upgrade: nothing else of this process depends on it
        log.exception("not reported")
    finally:
        reporting.cancel()
    return True
