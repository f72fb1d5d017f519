"""The HTML pages: how they are made, in the language of their reader and with the brand of `brand.toml`, as in mails.

And two of them: the settings page, and the API's description.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from babel.lists import format_list
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from litestar.di import NamedDependency
from markupsafe import Markup
from msgspec import Struct

from tocsin.engine.mail.brand import Brand, Logo, text_on
from tocsin.engine.mail.language import Language, Words, catalogues, language_of
from tocsin.engine.mail.loader import TemplateFailed, Templates
from tocsin.engine.model import NotFound
from tocsin.engine.store.recipient import get_recipient
from tocsin.http.auth import Authenticator, Person, router
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.openapi import Json, OtherResponse, describe, get, noted
from tocsin.http.pages.assets import asset_path
from tocsin.http.requests import Services, relative_root


class PageBrand(Struct, frozen=True):
    """What the layout of the pages shows, and what its Content-Security-Policy has to allow for it."""

    name: str | None = None
    logo: Logo | None = None
    style: Markup = Markup()

    @property
    def style_source(self) -> str:
        """The source of the style sheet, with a space before it."""
        if not self.style:
            return ""
        digest = hashlib.sha256(self.style.encode()).digest()
        return f" 'sha256-{base64.b64encode(digest).decode()}'"

    @property
    def image_policy(self) -> str:
        """The part of the policy for the logo."""
        if self.logo is None:
            return ""
        where = urlsplit(self.logo.src)
        return "; img-src " + ("data:" if where.scheme == "data" else f"https://{where.netloc}")


NO_BRAND = PageBrand()


@lru_cache(maxsize=4)
def page_brand(folder: Path | None) -> PageBrand:
    """Returns the brand of a template folder, read once; none if there is no valid one."""
    try:
        brand = Templates(folder).brand
    except TemplateFailed:  # workers report it as they start
        return NO_BRAND
    return PageBrand(brand.name, _brand_logo(brand), _brand_style(brand))


def _brand_logo(brand: Brand) -> Logo | None:
    if brand.logo is None or brand.image is None:
        return brand.logo
    content = base64.b64encode(brand.image.content).decode()
    return Logo(f"data:image/{brand.image.kind};base64,{content}", brand.logo.alt, brand.logo.width)


def _brand_style(brand: Brand) -> Markup:
    if brand.accents is None:
        return Markup()
    rules = [
        f"@media (prefers-color-scheme: {scheme}) {{ :root {{ --accent: {accent}; --on-accent: {text_on(accent)}; "
        f"--paper: {paper} }} }}"
        for scheme, accent, paper in zip(
            ("light", "dark"), brand.accents, ("#ffffff", "#1e2128"), strict=True
        )
    ]
    return Markup("\n".join(rules))  # noqa: S704 - of checked colours alone


MODULE = "tocsin-preferences.js"
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds a token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
}
# Modules of our own and calls of our own; and no text becomes markup.
SCRIPTS = "; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
_STYLE = (files("tocsin.http.pages") / "templates" / "page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def pictures_policy(hosts: Sequence[str]) -> str:
    """Returns the part of a Content-Security-Policy for a page that shows pictures of people."""
    return "; img-src 'self'" + "".join(f" https://{host}" for host in hosts)


class Pages:
    """Makes the pages of one package from its folder `templates`, with one Content-Security-Policy."""

    def __init__(self, package: str, policy: str) -> None:
        self._policy = policy
        self.environment = Environment(
            loader=PackageLoader(package),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(
        self,
        template: str,
        status: int = 200,
        *,
        brand: PageBrand = NO_BRAND,
        more_policy: str = "",
        **values: Any,
    ) -> Response[str]:
        """Returns a page; StrictUndefined raises where a template uses a value that is not given."""
        policy = self._policy.replace("style-src", f"style-src{brand.style_source}", 1)
        policy += more_policy + brand.image_policy
        return Response(
            self.environment.get_template(template).render(values, brand=brand),
            status_code=status,
            media_type="text/html",
            headers=PAGE_HEADERS | {"Content-Security-Policy": policy},
        )


PAGES = Pages(
    "tocsin.http.pages",
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
)
PAGES.environment.globals["style"] = _STYLE
PAGES.environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)


def html(
    template: str,
    status: int = 200,
    reader: Reader | None = None,
    *,
    scripts: bool = False,
    **values: Any,
) -> Response[str]:
    """Returns a page from `templates/`, in English for an unknown reader; `scripts`: with modules of our own."""
    language = reader.language if reader else language_of(None)
    return PAGES.render(
        template,
        status,
        brand=reader.brand if reader else NO_BRAND,
        more_policy=SCRIPTS if scripts else "",
        _=language.catalogue.gettext,
        lang=language.words_tag,
        dir=language.words_direction,
        **values,
    )


def _(message: str) -> str:
    """Marks a sentence for the catalogues (`make words`)."""
    return message


class Reader(Struct, frozen=True):
    """The language of a page's reader, and the brand that they see."""

    language: Language
    brand: PageBrand = NO_BRAND

    def gettext(self, sentence: str, **values: str) -> str:
        """Returns a sentence in this language with its values."""
        words = self.language.catalogue.gettext(sentence)
        return words % {name: self.language.isolated(value) for name, value in values.items()}

    def labels(self, labels: Sequence[str]) -> str:
        """Labels of event types or categories, each once: `A, B and C`."""
        named = [self.language.label(label) for label in dict.fromkeys(labels)]
        return format_list(named, locale=self.language.locale)


def reader(services: Services, request: AnyRequest, locale: str | None = None) -> Reader:
    """Returns the reader with that locale; without one, by the browser's header (RFC 9110, section 12.5.4)."""
    words = _words(services.settings.templates_dir)
    if locale is None:
        known = catalogues(words)
        preferred = _preferred(request.headers.get("accept-language", ""))
        locale = next((tag for tag in preferred if tag.partition("-")[0].lower() in known), None)
    return Reader(language_of(locale, words), page_brand(services.settings.templates_dir))


@lru_cache(maxsize=4)
def _words(folder: Path | None) -> Words | None:
    return Templates(folder).words


def _preferred(header: str) -> list[str]:
    """Returns the tags of an Accept-Language header, the preferred one first; without those that are excluded (q=0)."""
    weighed: Mapping[str, float] = dict(map(_weighed, header[:1000].split(",")))
    return sorted((tag for tag in weighed if weighed[tag] > 0), key=lambda tag: -weighed[tag])


def _weighed(part: str) -> tuple[str, float]:
    tag, _, weight = part.partition(";")
    try:
        return tag.strip(), float(weight.strip().removeprefix("q=")) if weight else 1.0
    except ValueError:
        return tag.strip(), 0.0


@get(
    "/settings/",
    media_type="text/html",
    responses={401: OtherResponse("A page that explains how to sign in.", media_type="text/html")},
    opt=noted(fails=(503,)),
)
async def settings_page(
    request: AnyRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
) -> Response[str]:
    """The settings page.

    `<tocsin-preferences>` for the person whom the cookie `tocsin_token` names, in their language; 401 and a page that
    explains it without a valid cookie.
    """
    person = await _person(request, authenticator)
    locale = await _locale(services, person) if person else None
    language = reader(services, request, locale)
    module = relative_root(request.scope) + asset_path(MODULE)
    status = 200 if person else 401
    return html(
        "settings.html",
        status,
        language,
        scripts=True,
        module=module,
        locale=language.language.tag,
        sign_in=services.settings.sign_in_url,
    )


async def _person(request: AnyRequest, authenticator: Authenticator) -> Person | None:
    with suppress(Unauthorized, Forbidden):
        caller = await authenticator.identify(request, "")
        return caller if isinstance(caller, Person) else None
    return None


async def _locale(services: Services, person: Person) -> str | None:
    with suppress(NotFound):  # they have not written anything yet
        return (await get_recipient(services.database, person.recipient_id)).locale
    return None


@get("/schema/", media_type="text/html")
async def schema_page(request: AnyRequest) -> Response[str]:
    """The API's description as a page."""
    doc = await asyncio.to_thread(describe, request.app)
    return html("schema.html", doc=doc, calls=list(_calls(doc)))


@get("/schema/openapi.json/")
async def schema_json(request: AnyRequest) -> dict[str, Any]:
    """The API's description as OpenAPI 3.1."""
    return await asyncio.to_thread(describe, request.app)


def _calls(doc: Json) -> Iterator[Json]:
    """Yields each call for the page, with an anchor."""
    for path, methods in doc["paths"].items():
        for method, call in methods.items():
            anchor = f"{method}-{path.strip('/').replace('/', '-')}".translate(_WITHOUT_BRACES)
            yield {"path": path, "method": method.upper(), "anchor": anchor, **call}


_WITHOUT_BRACES = str.maketrans("", "", "{}")

ROUTERS = (
    router("Pages", "everyone", settings_page),
    router("Description", "everyone", schema_page, schema_json),
)
