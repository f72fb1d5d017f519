"""Reports on mails that came back, as providers call: each with its own proof in place of a key.

A call of a provider that is not configured is a 404. What is of no interest is a 200, since providers repeat calls that
fail. A call without the proof stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from litestar import post
from litestar.di import NamedDependency

from tocsin.engine.mail_events import providers, ses
from tocsin.engine.mail_events.providers import UnreadableReport
from tocsin.engine.mail_events.report import ForgedReport, MailReport
from tocsin.engine.mail_events.ses import SnsMessage, SnsVerifier
from tocsin.engine.model import NotFound
from tocsin.http.apps.mail_events import PATH, RecordedMailEvents, record
from tocsin.http.auth import router
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.observability import Metrics
from tocsin.http.openapi import body_read_by_handler, noted
from tocsin.http.requests import Services

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


ROUTERS = (
    router(
        "Mail events",
        "everyone",
        report_by_ses,
        report_by_postmark,
        report_by_mailgun,
        report_by_sendgrid,
    ),
)
