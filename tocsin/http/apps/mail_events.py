"""Mails that came back: reports of apps, mail servers and providers; and the addresses that must not be mailed.

Our own form and raw messages need an API key. A provider calls with its own proof in place of a key; where it is not
configured, its call is a 404. What is of no interest is a 200, since providers repeat calls that fail. A call without
the proof stores nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from litestar import delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.explain.why import mask
from tocsin.engine.mail import returned_providers as providers
from tocsin.engine.mail import returned_ses as ses
from tocsin.engine.mail.returned import (
    MOST_BYTES,
    ForgedReport,
    MailReport,
    read_report,
    to_mail_events,
)
from tocsin.engine.mail.returned_providers import UnreadableReport
from tocsin.engine.mail.returned_ses import SnsMessage, SnsVerifier
from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store import mail_event
from tocsin.engine.store.credential import MAIL_EVENTS, SUPPRESSIONS
from tocsin.engine.store.mail_event import Suppression, record_mail_events
from tocsin.http.auth import apps_router, router
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.fields import CursorText, Limit, page_links, read_cursor, without_nulls
from tocsin.http.observability import Metrics
from tocsin.http.openapi import body_read_by_handler, get, noted
from tocsin.http.requests import Services, decoded

PATH = "/api/mail-events/"

_RAW = ("message/rfc822", "application/octet-stream")
ReportedAddress = Annotated[
    str, Meta(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$", examples=["alice@example.com"])
]


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
    status: (
        Annotated[str, Meta(pattern=r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$", examples=["5.1.1"])] | None
    ) = None
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
    request_max_body_size=MOST_BYTES,
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
    found = await asyncio.to_thread(read_report, body)
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


_LARGEST = 300_000  # bytes; a message of SNS has at most 256 kB
_LARGEST_LIST = 1_000_000  # of SendGrid, which sends many events in a call
_OF_SENDGRID = "x-twilio-email-event-webhook-"
_IGNORED = RecordedMailEvents(ignored=1)

log = structlog.get_logger("tocsin.mail_events")


def _options(*fails: int, **options: Any) -> dict[str, Any]:
    """Returns what the handlers have in common. The providers' own documents describe the bodies."""
    notes = noted(fails=(401, 404, 503, *fails), body_media_types=("text/plain",), any_body=True)
    return {"status_code": 200, "request_max_body_size": _LARGEST, "opt": notes} | options


@post(PATH + "ses/", **_options(403, 413, dependencies=body_read_by_handler(SnsMessage)))
async def report_by_ses(
    request: AnyRequest,
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> RecordedMailEvents:
    """Amazon SES, by SNS.

    For a subscription by https of a topic in TOCSIN_SES_TOPICS; the subscription confirms itself. The message has to be
    signed by SNS. Another topic is a 403.
    """
    settings = services.settings
    _check_configured(settings.ses_topics, "TOCSIN_SES_TOPICS")
    verifier = _verifier(settings.ses_topics, settings.sns_url, settings.ca_file)
    with _proof():
        message = ses.read_sns(await request.body())
        await verifier.verify(message)
        if message.type == "SubscriptionConfirmation":
            await verifier.confirm(message)
    found = ses.read_report(message) if message.type == "Notification" else None
    return await record(services, metrics, "ses", [found]) if found else _IGNORED


@cache
def _verifier(topics: tuple[str, ...], url: str | None, ca_file: Path | None) -> SnsVerifier:
    return SnsVerifier(topics, url=url, ca_file=ca_file)


@post(PATH + "postmark/", **_options())
async def report_by_postmark(
    request: AnyRequest,
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> RecordedMailEvents:
    """Postmark.

    Its webhooks for bounces and spam complaints. TOCSIN_POSTMARK_SECRET is the password of the URL, or the header
    `X-Tocsin-Secret`.
    """
    secret = _check_configured(services.settings.postmark_secret, "TOCSIN_POSTMARK_SECRET")
    with _proof():
        providers.verify_postmark(
            request.headers.get("authorization"), request.headers.get("x-tocsin-secret"), secret
        )
    found, ignored = _reports_in(await request.body(), providers.read_postmark)
    return await record(services, metrics, "postmark", found, ignored=ignored)


@post(PATH + "mailgun/", **_options())
async def report_by_mailgun(
    request: AnyRequest,
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> RecordedMailEvents:
    """Mailgun.

    Its webhooks for permanent failures and spam complaints, signed by TOCSIN_MAILGUN_SIGNING_KEY at most twelve hours
    ago.
    """
    key = _check_configured(services.settings.mailgun_signing_key, "TOCSIN_MAILGUN_SIGNING_KEY")
    with _proof():
        found = providers.read_mailgun(await request.body(), key)
    return await record(services, metrics, "mailgun", found, ignored=int(not found))


@post(PATH + "sendgrid/", **_options(request_max_body_size=_LARGEST_LIST))
async def report_by_sendgrid(
    request: AnyRequest,
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> RecordedMailEvents:
    """SendGrid.

    Its signed event webhook, verified by TOCSIN_SENDGRID_PUBLIC_KEY.
    """
    key = _check_configured(services.settings.sendgrid_public_key, "TOCSIN_SENDGRID_PUBLIC_KEY")
    timestamp = request.headers.get(_OF_SENDGRID + "timestamp", "")
    signature = request.headers.get(_OF_SENDGRID + "signature", "")
    if not signature:  # before the body is read
        raise Unauthorized("The call has no signature.")
    body = await request.body()
    with _proof():
        providers.verify_sendgrid(body, timestamp=timestamp, signature=signature, key=key)
    found, ignored = _reports_in(body, providers.read_sendgrid)
    return await record(services, metrics, "sendgrid", found, ignored=ignored)


def _check_configured(value: Any, setting: str) -> Any:
    if not value:
        raise NotFound(f"Reports of this provider are not accepted: set {setting}.")
    return value


@contextmanager
def _proof() -> Iterator[None]:
    try:
        yield
    except UnreadableReport as error:
        raise Unauthorized("The body has no signature that can be read.") from error
    except ForgedReport as error:
        if error.allowed:
            raise Unauthorized(str(error)) from error
        raise Forbidden(str(error)) from error


def _reports_in(
    body: bytes, read: Callable[[bytes], tuple[list[MailReport], int]]
) -> tuple[list[MailReport], int]:
    """Returns the reports; none of what nobody can read, since the provider would only repeat it."""
    try:
        return read(body)
    except UnreadableReport:
        log.warning("a report of a provider can't be read")
        return [], 1


SUPPRESSIONS_PATH = "/api/suppressions/"

SuppressionReason = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=100, description="Only those with this reason, as it is listed."
    ),
]


class ListedSuppression(Struct, frozen=True):
    """A suppressed address, masked; null once its person was erased, of which a keyed hash is left."""

    id: int
    address: str | None
    reason: str
    meaning: str
    created_at: datetime


class SuppressionListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ListedSuppression]
    next: str | None
    previous: str | None


@get(SUPPRESSIONS_PATH)
async def list_suppressions(
    services: NamedDependency[Services],
    reason: SuppressionReason = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> SuppressionListing:
    """List suppressed addresses.

    Newest first: the addresses that must not be mailed, and why. They are masked.
    """
    page = await mail_event.list_suppressions(
        services.database, reason, cursor=read_cursor(cursor), limit=limit
    )
    kept = without_nulls(limit=limit, reason=reason)
    older, newer = page_links(services, SUPPRESSIONS_PATH, page, kept)
    return SuppressionListing([explained(each) for each in page.results], older, newer)


@delete(SUPPRESSIONS_PATH + "{address:str}/", status_code=204)
async def lift_suppression(services: NamedDependency[Services], address: FromPath[str]) -> None:
    """Lift a suppression.

    The address may be mailed again, from the next notification on. A mailbox that still does not exist is suppressed
    again by its next mail. A 404: the address is not suppressed.
    """
    await mail_event.lift(services.database, decoded(address))


def explained(found: Suppression) -> ListedSuppression:
    """Returns it with the address masked, and with the meaning of its reason."""
    meaning, _ = meaning_and_cure(found.reason)
    return ListedSuppression(
        found.id,
        None if found.address is None else mask(found.address),
        found.reason,
        meaning,
        found.created_at,
    )


ROUTERS = (
    apps_router("Mail events", MAIL_EVENTS, report_mail_events, report_dsn),
    router(
        "Mail events",
        "everyone",
        report_by_ses,
        report_by_postmark,
        report_by_mailgun,
        report_by_sendgrid,
    ),
    apps_router("Suppressions", SUPPRESSIONS, list_suppressions, lift_suppression),
)
