"""/dev/mail/, /dev/phones/, /dev/chat/ and /dev/webhooks/: what `make up` caught, as pages or as JSON."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct, structs

from tocsin.dev import mail_catcher as box
from tocsin.dev.far_ends import (
    CHAT_TOPIC,
    DEMO_TARGET,
    PHONES,
    CaughtMessage,
    CaughtPush,
    clear,
    read_messages,
    read_posts,
    read_pushes,
)
from tocsin.dev.mail_catcher import ReturnKind, returned
from tocsin.engine.mail.returned import read_report, to_mail_events
from tocsin.engine.model import PROVIDERS, NotFound
from tocsin.engine.store.mail_event import record_mail_events
from tocsin.http.errors import AnyRequest
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.pages.html import Pages
from tocsin.http.requests import Services
from tocsin.settings.running_instance import find_running_instance
from tocsin.sql import load

PAGES = Pages(
    "tocsin.dev.pages",
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
)
# Headers for untrusted HTML, such as a mail's: no script, no form, nothing loaded.
INERT = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "sandbox allow-popups allow-popups-to-escape-sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_SQL = load("demo")
_MAILS_SHOWN = 200
_PHONES = 6  # of one person, as many as fit on the page
_TOKEN_CHARACTERS = 6  # the last characters of a token

_MAKES = {"ios": "iPhone", "android": "Android phone"}


def wants_json(request: AnyRequest) -> bool:
    """Returns whether a program asks, not a browser."""
    return "application/json" in request.headers.get("accept", "")


def page_or_json(request: AnyRequest, found: object, template: str, **values: Any) -> Response[Any]:
    """Returns what was found as JSON, or as a page with these values."""
    return Response(found) if wants_json(request) else PAGES.render(template, **values)


@get("/mail", sync_to_thread=True, opt={QUIET: True})
def mailbox(
    request: AnyRequest,
    services: NamedDependency[Services],
    limit: Annotated[int | None, QueryParameter(ge=1)] = None,
) -> Response[Any]:
    """The newest mails first: all of them as JSON, or the newest `limit`; the newest 200 as a page."""
    if wants_json(request):
        return Response(box.read_mails(_folder(services), limit))
    return PAGES.render("mailbox.html", mails=box.read_mails(_folder(services), _MAILS_SHOWN))


@delete("/mail", status_code=204, sync_to_thread=False)
def clear_mailbox(services: NamedDependency[Services]) -> None:
    """Removes them all."""
    box.clear(_folder(services))


@get("/mail/{mail_id:str}", sync_to_thread=False)
def read(
    mail_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[Any]:
    """One mail: its HTML, its text, its headers."""
    mail = _mail(services, mail_id)
    returned = request.query_params.get("returned")
    return page_or_json(request, mail, "mail.html", mail=mail, returned=returned)


@post("/mail/{mail_id:str}/return/{kind:str}", status_code=303)
async def return_mail(
    mail_id: FromPath[str], kind: FromPath[ReturnKind], services: NamedDependency[Services]
) -> Response[str]:
    """Lets it come back: its mailbox does not exist, or its reader marked it as spam."""
    mail = _mail(services, mail_id)
    source = (_folder(services) / f"{mail_id}.eml").read_bytes()
    raw = returned(source, kind, sender=mail["envelope_from"], address=mail["to"][0])
    report = await asyncio.to_thread(read_report, raw)
    events = to_mail_events([report] if report else [], services.links.key)
    await record_mail_events(services.database, "dsn", events, hold=timedelta(0))
    # relative, with its last slash, which the links of the page need
    return Response("", status_code=303, headers={"Location": f"../../?returned={kind}"})


@get("/mail/{mail_id:str}/html", sync_to_thread=False)
def mail_html(mail_id: FromPath[str], services: NamedDependency[Services]) -> Response[str]:
    """Its HTML part alone, inert."""
    mail = _mail(services, mail_id)
    return Response(mail["html"], media_type="text/html", headers=INERT)


@get("/mail/{mail_id:str}/source", sync_to_thread=False)
def mail_source(mail_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """The mail as it came over the wire."""
    _mail(services, mail_id)
    content = (_folder(services) / f"{mail_id}.eml").read_bytes()
    return Response(content, media_type="text/plain", headers=INERT)


def _mail(services: Services, mail_id: str) -> dict[str, Any]:
    mail = box.read_mail(_folder(services), mail_id)
    if mail is None:
        raise NotFound("There is no such mail.")
    return mail


def _folder(services: Services) -> Path:
    return services.settings.data_dir / "mailbox"


class DemoPhone(Struct, frozen=True):
    """A device with its whole token."""

    token: str
    platform: str
    provider: str
    recipient_id: str


class Phone(Struct, frozen=True):
    """A phone as the demo page draws it."""

    make: str
    provider: str
    token: str  # its last characters
    elsewhere: str | None  # the setting because of which its pushes go to the provider itself


@get("/phones", opt={QUIET: True})
async def list_arrivals(
    request: AnyRequest,
    services: NamedDependency[Services],
    person: Annotated[str | None, QueryParameter(max_length=200)] = None,
) -> Response[Any]:
    """The newest pushes first, of all people or of one."""
    arrivals = await asyncio.to_thread(read_pushes, _file(services))
    tokens = list({each.token for each in arrivals})
    owners = await services.database.rows(DemoPhone, _SQL["devices_of_tokens"], tokens=tokens)
    named = {(phone.provider, phone.token): phone.recipient_id for phone in owners}
    found = [_shown(each, named.get((each.provider, each.token))) for each in arrivals]
    if person is not None:
        found = [each for each in found if each["recipient"] == person]
    return page_or_json(request, found, "phones.html", arrivals=found)


@delete("/phones", status_code=204, sync_to_thread=True)
def clear_phones(services: NamedDependency[Services]) -> None:
    """Removes them all."""
    clear(_file(services))


async def phones_of(services: Services, person: str) -> list[Phone]:
    """Returns the phones of a person that the demo page draws."""
    instance = find_running_instance(services.settings.data_dir)
    here = instance.environ if instance else {}
    phones = await services.database.rows(
        DemoPhone, _SQL["list_phones"], recipient_id=person, limit=_PHONES
    )
    return [
        Phone(
            make=_MAKES[phone.platform],
            provider=phone.provider,
            token=phone.token[-_TOKEN_CHARACTERS:],
            elsewhere=None if setting in here else setting,
        )
        for phone in phones
        for setting in (PROVIDERS[phone.provider].setting,)
    ]


def _shown(arrival: CaughtPush, recipient: str | None) -> dict[str, Any]:
    """Returns a push and its recipient, who is None where the token is no longer registered."""
    return structs.asdict(arrival) | {
        "token": arrival.token[-_TOKEN_CHARACTERS:],
        "recipient": recipient,
    }


def _file(services: Services) -> Path:
    return services.settings.data_dir / PHONES


@get("/chat", opt={QUIET: True})
async def list_posts(request: AnyRequest, services: NamedDependency[Services]) -> Response[Any]:
    """The newest posts first."""
    posts = await asyncio.to_thread(read_posts, services.settings.data_dir)
    return page_or_json(
        request, posts, "chat.html", posts=posts, target=DEMO_TARGET, topic=CHAT_TOPIC
    )


@get("/webhooks", opt={QUIET: True})
async def list_caught_messages(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[Any]:
    """The newest messages first."""
    messages = await asyncio.to_thread(read_messages, services.settings.data_dir)
    return page_or_json(
        request, messages, "webhooks.html", messages=messages, name=DEMO_TARGET, written=_written
    )


def _written(message: CaughtMessage) -> str:
    return msgspec.json.format(msgspec.json.encode(message.data), indent=2).decode()


HANDLERS = (
    mailbox,
    clear_mailbox,
    read,
    return_mail,
    mail_html,
    mail_source,
    list_arrivals,
    clear_phones,
    list_posts,
    list_caught_messages,
)
