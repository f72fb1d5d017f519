"""The Procrastinate app and its tasks; this file and store/queue.py alone import Procrastinate.

`procrastinate --app=tocsin.engine.jobs.app worker` and `tocsin worker` run the same: a Procrastinate worker with the
dispatcher and the actors around it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Unpack

import procrastinate
import psycopg
import structlog
from procrastinate.app import WorkerOptions
from procrastinate.worker import Worker

from tocsin.engine.model import Channel, Priority
from tocsin.engine.store.connection import LEAST_OF_WORKER, WORKER_CONNECTIONS
from tocsin.engine.store.digest import make_digests
from tocsin.engine.store.health import run_service
from tocsin.engine.store.installation import clean_up
from tocsin.engine.store.mail_event import apply_mail_events as decide_mail_events
from tocsin.engine.store.queue import Connector, JobManager
from tocsin.engine.worker import Engine, running_engine
from tocsin.settings import Settings, SettingsError, read_settings
from tocsin.settings.running_instance import with_running_instance

UPKEEP = "upkeep"
"""The queue of all that is no delivery; every worker works on it."""
# Seconds without a heartbeat after which a worker counts as dead; its jobs are tried so many times in all.
_HEARTBEAT = 5.0
_STALLED = 15.0
_RESCUES = 3
_RESTART = 0.5
_END_WITHIN = 14.0  # seconds from a stop; Procrastinate waits 12 for jobs

_WORKER: WorkerOptions = {
    # Jobs wait for room in a mailbox, so there are many: one channel that hangs must not keep other jobs from starting.
    "concurrency": 64,
    "fetch_job_polling_interval": 0.5,
    "abort_job_polling_interval": 1.0,  # the only way that a request to abort is found
    "shutdown_graceful_timeout": 12.0,
    "update_heartbeat_interval": _HEARTBEAT,
    "stalled_worker_timeout": _STALLED,
    "delete_jobs": "successful",
}

log = structlog.get_logger("tocsin.jobs")


class QueueApp(procrastinate.App):
    """Procrastinate's app, with the engine around its worker."""

    engine: Engine | None = None
    job_manager: JobManager

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.job_manager = JobManager(self.connector)

    async def run_worker_async(self, **options: Unpack[WorkerOptions]) -> None:
        """Runs until SIGINT or SIGTERM; starts a worker again that an outage of the database stopped."""
        self.perform_import_paths()  # type: ignore[no-untyped-call]
        options["install_signal_handlers"] = False
        wait = _settings().database_wait
        await run_service(lambda: self._run_until_signal(options), wait=wait)

    async def _run_until_signal(self, options: WorkerOptions) -> None:
        stopping = asyncio.Event()
        async with (
            running_engine(
                _settings(), connector.availability, _channels_of(options.get("queues"))
            ) as engine,
            self._engaged(engine),
        ):
            with _on_signals(stopping.set):
                while not stopping.is_set():
                    await self._run_one(self._worker(**options), stopping, engine)
                    if not options.get("wait", True):
                        break
                    if not stopping.is_set():
                        await asyncio.sleep(_RESTART)

    async def _run_one(self, worker: Worker, stopping: asyncio.Event, engine: Engine) -> None:
        running = asyncio.create_task(worker.run())  # type: ignore[no-untyped-call]
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                connector.stop_waiting()
                worker.stop()  # type: ignore[no-untyped-call]
                # its jobs end once the actors have given back what they hold
                await engine.deliverer.stop()
                # a statement that was sent before the database hung gets no response
                await asyncio.wait({running}, timeout=_END_WITHIN)
                if not running.done():
                    log.warning("worker did not end by itself")
                    running.cancel()
                    await asyncio.wait({running}, timeout=_END_WITHIN)
                    return
            await running
        except (procrastinate.exceptions.ProcrastinateException, psycopg.Error) as error:
            log.warning("worker stopped by itself", error=str(error))
        finally:
            stop.cancel()

    @asynccontextmanager
    async def _engaged(self, engine: Engine) -> AsyncIterator[None]:
        self.engine = engine
        self.job_manager.on_hold = engine.report_now.set
        try:
            yield
        finally:
            self.engine = self.job_manager.on_hold = None

    async def deliver(self, channel: Channel, delivery_ids: list[int], priority: int) -> None:
        """Hands a job's deliveries to the running engine."""
        urgency = Priority(min(max(priority, Priority.LOW), Priority.HIGH))
        await self.running_engine.deliverer.deliver(channel, delivery_ids, urgency)

    @property
    def running_engine(self) -> Engine:
        """The engine of this process; it exists only while its worker runs."""
        if self.engine is None:
            raise RuntimeError(
                "This needs `tocsin worker`, or `procrastinate worker` with this app."
            )
        return self.engine


def _settings() -> Settings:
    settings = with_running_instance(read_settings())
    if settings.database_url is None:
        raise SettingsError(
            "TOCSIN_DATABASE_URL is not set, and no `tocsin up` runs here: set it, or start `make up`."
        )
    if (settings.max_connections or WORKER_CONNECTIONS) < LEAST_OF_WORKER:
        raise SettingsError(
            f"TOCSIN_MAX_CONNECTIONS is {settings.max_connections}, and a worker needs at least {LEAST_OF_WORKER}"
        )
    return settings


connector = Connector(_settings)
app = QueueApp(connector=connector, worker_defaults=_WORKER)


def _channels_of(queues: Iterable[str] | None) -> list[Channel]:
    """Returns the channels that a worker of these queues delivers by; None: of all queues."""
    channels = [each for each in Channel if each is not Channel.IN_APP]
    return [each for each in channels if queues is None or each.value in queues]


def _add_delivery_task(channel: Channel, name: str) -> None:
    """Adds the task that sends a batch of a channel's deliveries, in the queue of that channel."""

    @app.task(name=name, queue=channel.value, pass_context=True)
    async def send(context: procrastinate.JobContext, delivery_ids: list[int]) -> None:
        await app.deliver(channel, delivery_ids, context.job.priority)


for _channel, _name in (
    (Channel.EMAIL, "send_notification_emails"),
    (Channel.PUSH, "send_notification_pushes"),
    (Channel.WEB_PUSH, "send_notification_web_pushes"),
    (Channel.WEBHOOK, "send_notification_webhooks"),
    (Channel.CHAT, "send_notification_chats"),
):
    _add_delivery_task(_channel, _name)


def _time_of(timestamp: int | None) -> datetime:
    """Returns the time that a periodic task is for; None: it was deferred by hand, and is for now."""
    return datetime.now(UTC) if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


@app.periodic(cron="* * * * * */30")
@app.task(name="rescue_stalled_jobs", queue=UPKEEP)
async def rescue_stalled_jobs(timestamp: int | None = None) -> None:  # noqa: ARG001 - Procrastinate's own argument
    """Retries the jobs of dead workers, a bounded number of times."""
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED):
        try:
            if job.attempts < _RESCUES:
                await app.job_manager.retry_job(job)
            else:
                # its deliveries become due when its lease runs out
                await app.job_manager.finish_job(
                    job, status=procrastinate.jobs.Status.FAILED, delete_job=False
                )
        except procrastinate.exceptions.ProcrastinateException as error:
            log.warning("job not rescued", job_id=job.id, error=str(error))


@app.periodic(cron="* * * * *")
@app.task(name="generate_digest_emails", queue=UPKEEP)
async def generate_digest_emails(timestamp: int | None = None) -> None:
    """Creates the digests that are due; once an hour also for people who have no next one."""
    now = _time_of(timestamp)
    database = app.running_engine.database
    made = await make_digests(database, now, leftovers=now.minute == 0)
    if made.people:
        log.info("digests made", people=made.people, digests=made.digests, unsent=made.unsent)


@app.periodic(cron="* * * * * */10")
@app.task(name="apply_mail_events", queue=UPKEEP)
async def apply_mail_events(timestamp: int | None = None) -> None:  # noqa: ARG001 - Procrastinate's own argument
    """Decides the effect of reports on mails that were held, or whose delivery was not found yet."""
    effects = await decide_mail_events(app.running_engine.database)
    if effects.get("mass_rejection"):
        log.error(
            "most mails come back, so no address is suppressed: does the mail server know where to send them?",
            reports=effects["mass_rejection"],
        )


@app.periodic(cron="17 3 * * *")
@app.task(name="cleanup_old_notifications", queue=UPKEEP)
async def cleanup_old_notifications(timestamp: int | None = None) -> None:
    """Deletes what is past its retention, and jobs that failed that long ago."""
    engine = app.running_engine
    now = _time_of(timestamp)
    started = time.monotonic()
    removed = await clean_up(engine.database, now=now, retention=engine.retention)
    hours = 24 * engine.retention.days
    await app.job_manager.delete_old_jobs(nb_hours=hours, include_failed=True)
    log.info("cleaned up", notifications=removed, seconds=round(time.monotonic() - started, 1))


async def run_worker(channels: Collection[Channel] = ()) -> None:
    """Runs the worker of `tocsin worker`, as the Procrastinate CLI does; only for these channels, if there are any."""
    options: WorkerOptions = {}
    if channels:
        options["queues"] = [*(each.value for each in channels), UPKEEP]
    async with app.open_async():
        await app.run_worker_async(**options)


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
