"""Reports on mails that came back, from those who have a key: in our own form, and as raw messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from tocsin.engine.mail_events import dsn
from tocsin.engine.mail_events.report import MailReport, to_mail_events
from tocsin.engine.model import Invalid
from tocsin.engine.store.credential import MAIL_EVENTS
from tocsin.engine.store.mail_event import record_mail_events
from tocsin.http.auth import apps_router
from tocsin.http.errors import AnyRequest
from tocsin.http.observability import Metrics
from tocsin.http.openapi import body_read_by_handler, noted
from tocsin.http.requests import Services

PATH = "/api/mail-events/"

_RAW = ("message/rfc822", "application/octet-stream")
ReportedAddress = Annotated[str, Meta(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")]


class RecordedMailEvents(Struct, frozen=True):
    """How many reports are new, were known already, and are of no interest here."""

    recorded: int = 0
    known: int = 0
    ignored: int = 0


class ReportedMailEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """One bounce or complaint.

    `id` is the same for the same report. Of `tag` (the header X-Tocsin-Delivery of the mail), `message_id`, and
    `provider_id` with `address`, at least one is needed.
    """

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    kind: Literal["bounce", "complaint"]
    status: Annotated[str, Meta(pattern=r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$")] | None = None
    occurred_at: Annotated[datetime, Meta(tz=True)] | None = None
    tag: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    message_id: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    provider_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    address: ReportedAddress | None = None


class ReportedMailEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 500 reports."""

    events: Annotated[list[ReportedMailEvent], Meta(min_length=1, max_length=500)]


@post(PATH + "generic/", status_code=200, request_max_body_size=1_000_000)
async def report_mail_events(
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
    data: JSONBody[ReportedMailEvents],
) -> RecordedMailEvents:
    """Report bounces and complaints.

    For mail servers and providers that have no call of their own here. Each report counts once.
    """
    reports = [_to_report(at, each) for at, each in enumerate(data.events)]
    return await record(services, metrics, "generic", reports)


@post(
    PATH + "dsn/",
    status_code=200,
    dependencies=body_read_by_handler(str),
    request_max_body_size=dsn.MOST_BYTES,
    opt=noted(body_media_types=_RAW, any_body=True, fails=(422,)),
)
async def report_dsn(
    request: AnyRequest,
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> RecordedMailEvents:
    """Report a raw message.

    A message that came to the return path of our mails: a delivery status notification (RFC 3464), a complaint (RFC
    5965), or what older servers send. What is no report, such as an automatic reply, is ignored.
    """
    body = await request.body()
    if not body:
        raise Invalid(
            "the body is empty", ("body", "Send the message as it came, with its headers.")
        )
    # it takes up to some tenths of a second for a large message
    found = await asyncio.to_thread(dsn.read_report, body)
    return await record(
        services, metrics, "dsn", [found] if found else [], ignored=int(found is None)
    )


async def record(
    services: Services,
    metrics: Metrics,
    source: str,
    reports: Iterable[MailReport],
    *,
    ignored: int = 0,
) -> RecordedMailEvents:
    """Stores reports of one source, each once."""
    events = to_mail_events(reports, services.links.key)
    new = await record_mail_events(services.database, source, events) if events else []
    metrics.mail_events.update((source, kind) for kind in new)
    return RecordedMailEvents(len(new), len(events) - len(new), ignored)


def _to_report(at: int, event: ReportedMailEvent) -> MailReport:
    texts = (event.tag, event.message_id)
    if not any(texts) and not (event.provider_id and event.address):
        cure = "Give tag, message_id, or provider_id together with address."
        raise Invalid("a report names no mail", (f"events[{at}]", cure))
    return MailReport(
        event.id,
        event.kind,
        tuple(text for text in texts if text),
        event.status,
        event.occurred_at,
        event.provider_id,
        event.address,
    )


ROUTERS = (apps_router("Mail events", MAIL_EVENTS, report_mail_events, report_dsn),)
