"""/dev/templates/: every mail with sample data, by its templates at this moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from litestar import Response
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from tocsin.dev.pages.arrivals import INERT, PAGES, page_or_json
from tocsin.engine.mail import samples
from tocsin.engine.mail.language import catalogues
from tocsin.engine.mail.loader import TemplateFailed, Templates
from tocsin.engine.mail.template_check import check
from tocsin.engine.model import EventType, Mail, NotFound
from tocsin.engine.store.event import list_event_types
from tocsin.http.errors import AnyRequest
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.requests import Services

_Locale = Annotated[str, QueryParameter(max_length=35, pattern="^[A-Za-z0-9_-]*$")]


class Shown(Struct, frozen=True):
    """One mail without its HTML; or the problem of its templates, in a line."""

    subject: str = ""
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    source: str = ""
    problem: str | None = None


@get("/templates")
async def list_mails(services: NamedDependency[Services]) -> Response[str]:
    """All kinds of mail, by category."""
    types = await list_event_types(services.database)
    categories: dict[str, list[EventType]] = {}
    for each in types:
        categories.setdefault(each.category_label, []).append(each)
    folder = services.settings.templates_dir
    return PAGES.render(
        "previews.html", categories=categories, others=samples.OTHERS, folder=folder
    )


@get("/templates/version", opt={QUIET: True}, sync_to_thread=True)
def version(services: NamedDependency[Services]) -> Response[Any]:
    """A value that changes with any template; an open page requests it each second."""
    return Response({"version": Templates(services.settings.templates_dir).version()})


@get("/templates/problems")
async def problems(services: NamedDependency[Services]) -> Response[Any]:
    """The problems that `tocsin templates check` finds."""
    types = await list_event_types(services.database)
    found = await asyncio.to_thread(check, services.settings.templates_dir, types)
    return Response({"problems": [str(each) for each in found]})


@get("/templates/{kind:str}")
async def show(
    kind: FromPath[str],
    request: AnyRequest,
    services: NamedDependency[Services],
    locale: _Locale = "en",
) -> Response[Any]:
    """One mail: its text, headers and source, and its HTML in a frame."""
    folder = services.settings.templates_dir
    before = await asyncio.to_thread(Templates(folder).version)
    shown = await _shown(services, kind, locale)
    values: dict[str, Any] = {
        "kind": kind,
        "version": before,  # what is saved from now on may not be shown
        "shown": shown,
        "locale": locale,
        "locales": _locales(services),
    }
    return page_or_json(request, shown, "preview.html", **values)


@get("/templates/{kind:str}/html")
async def show_html(
    kind: FromPath[str],
    services: NamedDependency[Services],
    locale: _Locale = "en",
    scheme: Annotated[samples.Scheme, QueryParameter()] = "light",
) -> Response[str]:
    """Its HTML part alone, inert, in one of both colour schemes."""
    try:
        found = samples.page(await _mail(services, kind, locale), scheme)
    except TemplateFailed:
        found = ""  # the page around it shows the problem
    return Response(found, media_type="text/html", headers=INERT)


def _locales(services: Services) -> list[str]:
    """Returns the languages that have translations; and Hebrew, to see mails from right to left."""
    words = Templates(services.settings.templates_dir, reload=True).words
    return sorted({*catalogues(words), "he"})


async def _shown(services: Services, kind: str, locale: str) -> Shown:
    try:
        mail = await _mail(services, kind, locale)
    except TemplateFailed as error:
        return Shown(problem=str(error))
    whole = samples.source(mail, services.settings.email_from, datetime.now(UTC))
    return Shown(mail.subject, mail.text, tuple(samples.headers(whole)), whole)


async def _mail(services: Services, kind: str, locale: str) -> Mail:
    types = await list_event_types(services.database)
    if kind not in samples.OTHERS and kind not in {each.event_type for each in types}:
        raise NotFound("There is no such mail.")
    return await asyncio.to_thread(_rendered, services, types, kind, locale)


def _rendered(services: Services, types: list[EventType], kind: str, locale: str) -> Mail:
    settings = services.settings
    templates = Templates(settings.templates_dir, reload=True)
    mails = samples.SampleMails(templates, types, settings.email_from)
    return mails.mail(kind, locale=locale or None)


HANDLERS = (list_mails, problems, version, show, show_html)
