"""Procrastinate's connection to the database: it survives outages, and uses the schema tocsin_queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar

import procrastinate
import psycopg
import psycopg_pool
import structlog
from procrastinate import sql as procrastinate_sql
from procrastinate.jobs import Notification
from procrastinate.manager import NotificationCallback
from psycopg.errors import RaiseException

from tocsin.background import wait_for_any
from tocsin.engine.model import Conflict, Unavailable
from tocsin.engine.store.connection import KEEPALIVES, Availability, worker_pools
from tocsin.engine.store.database import Database, connect_directly
from tocsin.engine.store.health import check_start
from tocsin.engine.store.installation import requeue_lost_jobs
from tocsin.settings import Settings

QUEUE_SCHEMA = "tocsin_queue"
_AGAIN = 0.1  # seconds
_FETCH_JOB = procrastinate_sql.queries["fetch_job"]
_FINISH_JOB = procrastinate_sql.queries["finish_job"]
_RETRY_JOB = procrastinate_sql.queries["retry_job"]
# The channel of our schema (sql/functions/queue.sql), and what each notification on it means.
_CHANNEL = "tocsin_queue"
_HOLD_CHANNEL = "tocsin_hold"  # a provider asked a worker for a pause (sql/functions/pacing.sql)
_LOOK_FOR_JOBS: Notification = {"type": "job_inserted", "job_id": 0}

T = TypeVar("T")

log = structlog.get_logger("tocsin.jobs")


class _StoppedWaiting(procrastinate.exceptions.ConnectorException):
    """The worker stops while the database is unavailable."""


class QueuePool:
    """Procrastinate's pool: one of ours, which reconnects at once when the database is available again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, *, wait: bool) -> None:  # noqa: ARG002 - as psycopg's pool
        """Opens it; raises Unavailable."""
        await self._database.open()

    async def close(self) -> None:
        """Closes it."""
        await self._database.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Yields a connection for one query; raises Unavailable."""
        async with self._database.session() as session, session.statement():
            yield session.connection


class Connector(procrastinate.PsycopgConnector):
    """Runs Procrastinate's queries; while the database is unavailable they wait, until the worker stops.

    Otherwise the worker would stop by itself, and its jobs would count as running until its heartbeat is too old.
    A query whose connection was lost may have been executed, so what it did is undone before it is retried.
    """

    def __init__(self, read_settings: Callable[[], Settings]) -> None:
        super().__init__(pool_factory=self._make_pool)
        self._read_settings = read_settings
        self._database: Database | None = None
        self._running: set[int] = set()  # jobs that were fetched and are not finished
        self._stopping = asyncio.Event()

    async def open_async(self, pool: psycopg_pool.AsyncConnectionPool[Any] | None = None) -> None:
        """Reads the settings now, and not when this file is imported; raises NotReady."""
        settings = self._read_settings()
        dsn = settings.database_url
        assert dsn is not None
        await check_start(dsn, settings.pooler_url, wait=settings.database_wait)
        pools = worker_pools(settings.max_connections)
        self._database = Database(
            dsn,
            pooler=settings.pooler_url,
            max_size=pools.queue,
            good_for=1.0,  # each look for jobs would be two round trips
            search_path=QUEUE_SCHEMA,
            primary=True,
        )
        self._stopping.clear()
        # for its synchronous calls
        self._pool_args = {"conninfo": dsn, "kwargs": KEEPALIVES, "configure": _use_queue_schema}
        await super().open_async(pool)

    @property
    def availability(self) -> Availability:
        """Of the database, for all that this process opens to it."""
        return self._opened.availability

    def stop_waiting(self) -> None:
        """Lets queries fail at once while the database is unavailable, since the worker stops."""
        self._stopping.set()

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        """Runs a query without rows; does nothing where the worker stops and the database is unavailable."""
        try:
            await self._retried(super().execute_query_async, query, arguments)
        except _StoppedWaiting:
            # a job that was not ended is taken over by another worker, which finds its deliveries settled
            log.info("a query was left out", arguments=arguments)
        except procrastinate.exceptions.ConnectorException as error:
            # Ended by a worker for which this one was dead, or by a first try whose connection was lost.
            if query != _FINISH_JOB or not isinstance(error.__cause__, RaiseException):
                raise
            log.info("job was ended already", job_id=arguments["job_id"])
        finally:
            if query in (_FINISH_JOB, _RETRY_JOB):
                self._running.discard(arguments["job_id"])

    async def execute_query_one_async(
        self, query: LiteralString, **arguments: Any
    ) -> dict[str, Any]:
        """Runs a query that has one row."""
        if query != _FETCH_JOB:
            return await self._retried(super().execute_query_one_async, query, arguments)
        try:
            row: dict[str, Any] = await self._retried(
                super().execute_query_one_async,
                query,
                arguments,
                before_retry=lambda: requeue_lost_jobs(
                    self._opened, arguments["worker_id"], list(self._running)
                ),
            )
        except _StoppedWaiting:
            return {"id": None}  # no job
        if row["id"] is not None:
            self._running.add(row["id"])
        return row

    async def execute_query_all_async(
        self, query: LiteralString, **arguments: Any
    ) -> list[dict[str, Any]]:
        """Runs a query that has rows; there are none where the worker stops and the database is unavailable."""
        try:
            return await self._retried(super().execute_query_all_async, query, arguments)
        except _StoppedWaiting:
            return []

    async def listen_notify(
        self, on_notification: procrastinate.connector.Notify, channels: Iterable[str]
    ) -> None:
        """Listens until it is cancelled; after an outage on a new connection."""
        database = self._opened
        while True:
            try:
                connection = await connect_directly(database.dsn)
            except Unavailable:
                await self._reconnect()
                continue
            try:
                for channel in channels:
                    statement = self._make_dynamic_query("LISTEN {channel}", channel=channel)
                    await connection.execute(statement)
                await self._loop_notify(on_notification=on_notification, connection=connection)
            except psycopg.Error:
                pass  # lost, or a standby
            finally:
                await connection.close()
            await self._reconnect()

    async def _reconnect(self) -> None:
        """Waits until the database is available, as far as that is known."""
        self.availability.report_lost(broken=False)
        await self.availability.wait()
        await asyncio.sleep(_AGAIN)

    async def _retried(
        self,
        run: Callable[..., Awaitable[T]],
        query: LiteralString,
        arguments: dict[str, Any],
        before_retry: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Retries a query until it is executed; `before_retry` undoes what a lost try may have done."""
        lost = False
        while True:
            try:
                if lost and before_retry is not None:
                    await before_retry()
                return await run(query, **arguments)
            except (Unavailable, Conflict) as error:
                lost = True
                await self._until_available()
                if self._stopping.is_set() and isinstance(error, Unavailable):
                    raise _StoppedWaiting from error

    async def _until_available(self) -> None:
        """Waits for the database, or until the worker stops."""
        await wait_for_any(self._opened.availability.wait(), self._stopping.wait())
        await asyncio.sleep(_AGAIN)

    @property
    def _opened(self) -> Database:
        if self._database is None:
            raise procrastinate.exceptions.AppNotOpen
        return self._database

    def _make_pool(self, **_options: Any) -> Any:
        return QueuePool(self._opened)


class JobManager(procrastinate.manager.JobManager):
    """Waits for jobs on our own channel in place of Procrastinate's, which have no schema in their names.

    Any login may send on any channel: no payload is read, and none aborts a job (docs/adr/0050-queue-channel.md).
    `on_hold` is called where another worker was asked for a pause.
    """

    on_hold: Callable[[], None] | None = None

    async def listen_for_jobs(
        self,
        *,
        on_notification: NotificationCallback,
        queues: Iterable[str] | None = None,  # noqa: ARG002 - Procrastinate's own argument
    ) -> None:
        """Makes the worker look for jobs at each notification, whatever its queues."""

        async def on_any(*, channel: str, payload: str) -> None:  # noqa: ARG001
            if channel != _HOLD_CHANNEL:
                await on_notification(channel=channel, notification=_LOOK_FOR_JOBS)
            elif self.on_hold is not None:
                self.on_hold()

        channels = [_CHANNEL, _HOLD_CHANNEL]
        await self.connector.listen_notify(on_notification=on_any, channels=channels)


async def _use_queue_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute("set search_path = tocsin_queue")
    await connection.commit()
