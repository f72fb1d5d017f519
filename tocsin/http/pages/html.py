"""The few HTML pages: calm, mostly without scripts and other sites, in the language of their reader."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from babel.lists import format_list
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from msgspec import Struct

from tocsin.engine.mail.language import Language, Words, catalogues, language_of
from tocsin.engine.mail.loader import Templates
from tocsin.http.errors import AnyRequest
from tocsin.http.requests import Services

_STYLE = (files("tocsin.http.pages") / "templates" / "page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# Modules of our own and calls of our own; and no text becomes markup.
_SCRIPTS = "; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",  # the address holds a token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
}

_TEMPLATES = Environment(
    loader=PackageLoader("tocsin.http.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["style"] = _STYLE
_TEMPLATES.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)


def html(
    template: str,
    status: int = 200,
    reader: Reader | None = None,
    *,
    scripts: bool = False,
    **values: Any,
) -> Response[str]:
    """A page from `templates/`, in English where the reader is not known; `scripts`: with modules of our own."""
    language = reader.language if reader else language_of(None)
    words_of_page = {
        "_": language.catalogue.gettext,
        "lang": language.words_tag,
        "dir": language.words_direction,
    }
    policy = {"Content-Security-Policy": _POLICY + _SCRIPTS} if scripts else {}
    return Response(
        _TEMPLATES.get_template(template).render(words_of_page | values),
        status_code=status,
        media_type="text/html",
        headers=PAGE_HEADERS | policy,
    )


def _(message: str) -> str:
    """Marks a sentence for the catalogues (`make words`)."""
    return message


class Reader(Struct, frozen=True):
    """The language of a page's reader."""

    language: Language

    def translate(self, sentence: str, **values: str) -> str:
        """A marked sentence with its values."""
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
    return Reader(language_of(locale, words))


@lru_cache(maxsize=4)
def _words(folder: Path | None) -> Words | None:
    return Templates(folder).words


def _preferred(header: str) -> list[str]:
    """The tags of an Accept-Language header, the preferred one first; without those that are excluded (q=0)."""
    weighed: Mapping[str, float] = dict(map(_weighed, header[:1000].split(",")))
    return sorted((tag for tag in weighed if weighed[tag] > 0), key=lambda tag: -weighed[tag])


def _weighed(part: str) -> tuple[str, float]:
    tag, _, weight = part.partition(";")
    try:
        return tag.strip(), float(weight.strip().removeprefix("q=")) if weight else 1.0
    except ValueError:
        return tag.strip(), 0.0
