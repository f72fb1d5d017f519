"""The engine of one worker process: a deliverer with its actors, and a dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import Struct, structs

from tocsin.background import in_background
from tocsin.engine.actors.chat import ChatActor
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.email_mime import Signer
from tocsin.engine.actors.machinery.base import Actor, Failover
from tocsin.engine.actors.machinery.endpoints import EndpointActors
from tocsin.engine.actors.machinery.shared_limits import Holds, SendRate
from tocsin.engine.actors.webhook import WebhookActor
from tocsin.engine.deliver.deliverer import AnyActor, Deliverer, OneActor, Render
from tocsin.engine.deliver.delivery_traces import start_traces
from tocsin.engine.dispatch.dispatcher import Dispatcher
from tocsin.engine.mail.links import POSTMARK_TAG, Links
from tocsin.engine.mail.loader import Templates, TemplatesError
from tocsin.engine.mail.render import mail_renderer
from tocsin.engine.mail.render_push import (
    render_chat,
    render_push,
    render_push_summary,
    render_webhook,
    with_link,
)
from tocsin.engine.mail.template_check import check
from tocsin.engine.model import (
    PROVIDERS,
    Channel,
    Claimed,
    Conflict,
    Entry,
    Message,
    PresendCheck,
    Unavailable,
)
from tocsin.engine.store import delivery
from tocsin.engine.store.connection import Availability, worker_pools
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import hold_sending, take_slots
from tocsin.engine.store.event import list_event_types
from tocsin.engine.store.installation import (
    OFFER_AGAIN,
    ProcessReport,
    Retention,
    SharedTokens,
    get_secret,
    keep_reporting,
    new_identity,
    offer_providers,
)
from tocsin.engine.store.target import keep_queueing_webhooks
from tocsin.settings import Settings, SettingsError

if TYPE_CHECKING:
    from tocsin.engine.deliver.trace_exporter import Traces
    from tocsin.engine.deliver.worker_metrics import WorkerMetrics

log = structlog.get_logger("tocsin.worker")


class Engine(Struct, frozen=True):
    """What the jobs of a worker use."""

    deliverer: Deliverer
    database: Database
    retention: Retention
    report_now: asyncio.Event  # set where another worker was asked for a pause


@asynccontextmanager
async def running_engine(
    settings: Settings, availability: Availability, channels: Collection[Channel]
) -> AsyncIterator[Engine]:
    """Starts all that a worker of these channels needs, and stops it in reverse.

    `availability` is shared by the process.
    """
    dsn = settings.database_url
    assert dsn is not None
    async with (
        _metrics(settings) as metrics,
        _traces() as traces,
        _databases(settings, dsn, availability) as (database, deliverer_database),
    ):
        await _check_templates(settings, database)
        link_key = await get_secret(database, "link_key")
        pace = _pace(settings, deliverer_database)
        actors = _actors_of(channels, settings, deliverer_database, link_key, pace)
        await offer_providers(database, actors)
        identity = new_identity("worker")
        deliverer = Deliverer(
            deliverer_database,
            actors,
            _renderer(settings, link_key),
            process_id=identity.process_id,
            cap=settings.mail_cap,
            count_attempts=metrics.count if metrics else None,
            traces=traces,
        )
        dispatcher = Dispatcher(dsn, badge_pushes=settings.badge_pushes, availability=availability)
        retention = Retention(settings.retention_days, settings.unread_retention_days)
        engine = Engine(deliverer, database, retention, asyncio.Event())
        report = partial(_report, dispatcher, actors, metrics)
        work = (
            dispatcher.run(),
            _keep_offering(database, actors),
            keep_queueing_webhooks(database),
            keep_reporting(
                database,
                identity,
                report,
                lambda state: pace.holds.learn(state.holds),
                engine.report_now,
            ),
        )
        async with in_background(*work), deliverer.running():
            log.info(
                "working", channels=[each.value for each in channels], providers=sorted(actors)
            )
            yield engine


def _report(
    dispatcher: Dispatcher, actors: Mapping[str, AnyActor], metrics: WorkerMetrics | None
) -> ProcessReport:
    """Returns what the worker reports of itself, and shows it in its metrics."""
    reports = [each for actor in actors.values() for each in actor.reports()]
    if metrics:
        metrics.show(reports)
    return ProcessReport(leading=dispatcher.leading, actors=reports)


@asynccontextmanager
async def _databases(
    settings: Settings, dsn: str, availability: Availability
) -> AsyncIterator[tuple[Database, Database]]:
    """Yields two pools: for all else, and for the statements of deliveries, which are the same all the time."""
    pools = worker_pools(settings.max_connections)
    to_database = partial(
        Database, dsn, pooler=settings.pooler_url, availability=availability, primary=True
    )
    other = to_database(max_size=pools.other)
    deliveries = to_database(max_size=pools.deliveries, good_for=1.0, steady=True)
    async with _opened(other), _opened(deliveries):
        yield other, deliveries


def _actors_of(
    channels: Collection[Channel],
    settings: Settings,
    database: Database,
    link_key: bytes,
    pace: _Pace,
) -> dict[str, AnyActor]:
    """Returns the actors of these channels; raises SettingsError."""
    if (settings.smtp_servers or settings.vapid) and not settings.public_url:
        raise SettingsError(
            "TOCSIN_PUBLIC_URL is not set: links in mails and in pushes to browsers lead there, "
            "such as https://notify.example.com."
        )
    actors = {
        name: actor
        for name, actor in _actors(settings, database, link_key, pace).items()
        if PROVIDERS[name].channel in channels
    }
    if Channel.EMAIL in channels and "email" not in actors:
        log.warning(
            "no provider for email: its deliveries are skipped with no_provider; set TOCSIN_SMTP_URL"
        )
    return actors


@asynccontextmanager
async def _metrics(settings: Settings) -> AsyncIterator[WorkerMetrics | None]:
    """Serves metrics meanwhile, if a port for them is set."""
    if settings.worker_metrics_port is None:
        yield None
        return
    # Prometheus' library takes a tenth of a second to import
    from tocsin.engine.deliver.worker_metrics import metrics_listener

    port, token = settings.worker_metrics_port, settings.metrics_token
    with metrics_listener(port, token, settings.host) as metrics:
        yield metrics


@asynccontextmanager
async def _traces() -> AsyncIterator[Traces | None]:
    """Yields the exporter of traces, where one is configured."""
    traces = start_traces()
    try:
        yield traces
    finally:
        if traces:
            traces.stop()


@asynccontextmanager
async def _opened(database: Database) -> AsyncIterator[Database]:
    try:
        await database.open()
        yield database
    finally:
        await database.close()


class _Pace(Struct, frozen=True):
    """How fast all workers together send: the rates of channels, and the pauses that providers asked for."""

    rates: dict[Channel, SendRate]
    holds: Holds

    def of(self, channel: Channel) -> dict[str, Any]:
        """Returns the options of the channel's actors."""
        return {"rate": self.rates.get(channel), "holds": self.holds}


def _pace(settings: Settings, database: Database) -> _Pace:
    rates = {
        channel: SendRate(rate, partial(take_slots, database, channel))
        for name, rate in settings.send_rates
        for channel in (Channel(name),)
    }
    return _Pace(rates, Holds(partial(hold_sending, database)))


def _actors(
    settings: Settings, database: Database, link_key: bytes, pace: _Pace | None = None
) -> dict[str, AnyActor]:
    """Returns what sends for each provider that is configured, or needs no configuration."""
    pace = pace or _pace(settings, database)
    presend_check = partial(delivery.presend_check, database)
    actors: dict[str, AnyActor] = {
        "chat": ChatActor(
            presend_check=presend_check,
            allow_loopback=settings.allow_private_endpoints,
            ca_file=settings.ca_file,
            **pace.of(Channel.CHAT),
        ),
        "webhook": _webhook_actors(settings, presend_check),
    }
    if settings.smtp_servers:
        actors["email"] = _email_actor(settings, presend_check, pace.of(Channel.EMAIL))
    if settings.apns:
        actors |= _apns_actors(settings, database, presend_check, link_key, pace.of(Channel.PUSH))
    if settings.fcm_service_account:
        from tocsin.engine.actors.fcm import FcmActor  # a fifth of a second to import

        actors["fcm"] = FcmActor(
            presend_check=presend_check,
            service_account=settings.fcm_service_account,
            url=settings.fcm_url,
            ca_file=settings.ca_file,
            **pace.of(Channel.PUSH),
        )
    if settings.vapid:
        from tocsin.engine.actors.web_push import WebPushActor  # imports aiohttp

        actors["web_push"] = WebPushActor(
            presend_check=presend_check,
            vapid=settings.vapid,
            allow_loopback=settings.allow_private_endpoints,
            ca_file=settings.ca_file,
            **pace.of(Channel.WEB_PUSH),
        )
    return actors


def _webhook_actors(settings: Settings, presend_check: PresendCheck) -> EndpointActors:
    def make(host_limit: asyncio.Semaphore) -> Actor[Any]:
        return WebhookActor(
            presend_check=presend_check,
            allow_loopback=settings.allow_private_endpoints,
            host_limit=host_limit,
            ca_file=settings.ca_file,
        )

    return EndpointActors("webhook", make)


def _email_actor(
    settings: Settings, presend_check: PresendCheck, pace: Mapping[str, Any]
) -> OneActor:
    """Returns the actor of the mail server, or those of several in their order."""
    signer = Signer(**structs.asdict(settings.dkim)) if settings.dkim else None
    alone = len(settings.smtp_servers) == 1
    actors = [
        EmailActor(
            name="email" if alone else f"email/{server.address}",
            presend_check=presend_check,
            sender=settings.email_from,
            server=server,
            ca_file=settings.ca_file,
            signer=signer,
            return_path=settings.return_path,
            tag_headers=(POSTMARK_TAG,) if settings.postmark_secret else (),
            **pace,
        )
        for server in settings.smtp_servers
    ]
    return actors[0] if alone else Failover(actors)


def _apns_actors(
    settings: Settings,
    database: Database,
    presend_check: PresendCheck,
    link_key: bytes,
    pace: Mapping[str, Any],
) -> dict[str, Actor[Any]]:
    """Returns one for each of Apple's environments; both share one token."""
    from tocsin.engine.actors.apns import PRODUCTION_URL, SANDBOX_URL, ApnsActor
    from tocsin.engine.actors.apns_token import ProviderKey, ProviderToken

    apns = settings.apns
    assert apns is not None
    key = ProviderKey(pem=apns.pem, key_id=apns.key_id, team_id=apns.team_id)
    tokens = ProviderToken(key, SharedTokens(database))
    return {
        name: ApnsActor(
            name=name,
            presend_check=presend_check,
            tokens=tokens,
            topic=apns.topic,
            # the apns-id of a delivery is made of it: the same for each attempt, unlike those of other installations
            installation=link_key.hex(),
            url=settings.apns_url or url,
            ca_file=settings.apns_ca_file or settings.ca_file,
            **pace,
        )
        for name, url in (("apns", PRODUCTION_URL), ("apns_sandbox", SANDBOX_URL))
    }


async def _keep_offering(database: Database, actors: Collection[str]) -> None:
    while True:
        await asyncio.sleep(OFFER_AGAIN.total_seconds())
        with suppress(Unavailable, Conflict):
            await offer_providers(database, actors)


async def _check_templates(settings: Settings, database: Database) -> None:
    """Raises TemplatesError for a host's templates that would fail; with reload, only logs them."""
    if settings.templates_dir is None:
        return
    types = await list_event_types(database)
    problems = await asyncio.to_thread(check, settings.templates_dir, types)
    broken = [each for each in problems if not each.stray]
    if broken and not settings.templates_reload:
        raise TemplatesError(broken)
    for problem in problems:
        log.warning("template", problem=str(problem))


def _renderer(settings: Settings, link_key: bytes) -> Render:
    links = Links(public_url=settings.public_url or "http://localhost", key=link_key)
    templates = Templates(settings.templates_dir, reload=settings.templates_reload)
    render_mail = mail_renderer(links, settings.email_from, templates)

    def render(together: Sequence[Claimed], entries: Sequence[Entry]) -> Message:
        first = together[0]
        if first.channel is Channel.EMAIL:
            return render_mail(together, entries)
        if first.channel is Channel.CHAT:
            return render_chat(first, links)
        if first.channel is Channel.WEBHOOK:
            return render_webhook(first)
        several = len(together) > 1 or first.counted
        message = render_push_summary(together) if several else render_push(first)
        if first.channel is Channel.WEB_PUSH:
            return with_link(message, None if several else first, links, templates.brand.inbox)
        return message

    return render
