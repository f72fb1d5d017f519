"""In which language somebody who may not be signed in reads a page: their own, or else their browser's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from babel.lists import format_list
from msgspec import Struct

from tocsin.engine.mail.language import Language, Words, catalogues, language_of
from tocsin.engine.mail.loader import Templates
from tocsin.http.errors import AnyRequest
from tocsin.http.services import Services


def _(message: str) -> str:
    """Marks a sentence for the catalogues (`make words`)."""
    return message


class Reader(Struct, frozen=True):
    """What a page says to them."""

    language: Language

    def say(self, sentence: str, **values: str) -> str:
        """A marked sentence with its values."""
        words = self.language.catalogue.gettext(sentence)
        return words % {name: self.language.isolated(value) for name, value in values.items()}

    def labels(self, labels: Sequence[str]) -> str:
        """Labels of event types or categories, each once: `A, B and C`."""
        named = [self.language.label(label) for label in dict.fromkeys(labels)]
        return format_list(named, locale=self.language.locale)


def reader(services: Services, request: AnyRequest, locale: str | None = None) -> Reader:
    """Of somebody with that locale; without one, as the browser asks (RFC 9110, section 12.5.4)."""
    words = _words(services.settings.templates_dir)
    if locale is None:
        known = catalogues(words)
        asked = _preferred(request.headers.get("accept-language", ""))
        locale = next((tag for tag in asked if tag.partition("-")[0].lower() in known), None)
    return Reader(language_of(locale, words))


@lru_cache(maxsize=4)
def _words(folder: Path | None) -> Words | None:
    return Templates(folder).words


def _preferred(header: str) -> list[str]:
    """The tags of an Accept-Language header, the most wanted one first; none that is unwanted (q=0)."""
    weighed: Mapping[str, float] = dict(map(_weighed, header[:1000].split(",")))
    return sorted((tag for tag in weighed if weighed[tag] > 0), key=lambda tag: -weighed[tag])


def _weighed(part: str) -> tuple[str, float]:
    tag, _, weight = part.partition(";")
    try:
        return tag.strip(), float(weight.strip().removeprefix("q=")) if weight else 1.0
    except ValueError:
        return tag.strip(), 0.0
