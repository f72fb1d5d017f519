"""What a template speaks with: gettext in its recipient's language, dates in their zone, sums of money."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup

from tocsin.engine.language import VALUE_CHARACTERS, AnyZone, Language, Words, language_of
from tocsin.engine.one_line import one_line

Gettext = Callable[..., str]


@lru_cache(maxsize=1024)
def voice(
    locale: str | None, zone: AnyZone | None, words: Words | None = None
) -> Mapping[str, Any]:
    """Of one language and zone; the names are part of the contract of templates."""
    language = language_of(locale, words)
    return MappingProxyType(
        {
            "lang": language.tag,
            "dir": language.direction,
            "words_lang": language.words_tag,
            "words_dir": language.words_direction,
            **_gettext(language),
            **_values(language, zone),
        }
    )


def _gettext(language: Language) -> dict[str, Gettext]:
    """Jinja's names of gettext in its new style: `_("Open in %(service)s", service=service)`."""
    words = language.catalogue

    @pass_eval_context
    def gettext(place: EvalContext, message: str, **values: Any) -> str:
        return _filled(place, words.gettext(message), values)

    @pass_eval_context
    def ngettext(place: EvalContext, one: str, more: str, num: int, **values: Any) -> str:
        return _filled(place, words.ngettext(one, more, num), {"num": num} | values)

    @pass_eval_context
    def pgettext(place: EvalContext, context: str, message: str, **values: Any) -> str:
        return _filled(place, words.pgettext(context, message), values)

    @pass_eval_context
    def npgettext(
        place: EvalContext, context: str, one: str, more: str, num: int, **values: Any
    ) -> str:
        return _filled(place, words.npgettext(context, one, more, num), {"num": num} | values)

    return {
        "_": gettext,
        "gettext": gettext,
        "ngettext": ngettext,
        "pgettext": pgettext,
        "npgettext": npgettext,
    }


def _filled(place: EvalContext, words: str, values: Mapping[str, Any]) -> str:
    """Words with their values; those are escaped where the template is HTML."""
    if not values and "%" not in words:
        return _marked(words) if place.autoescape else words
    return (Markup(words) if place.autoescape else words) % values  # noqa: S704 - of our catalogues


@lru_cache(maxsize=1024)
def _marked(words: str) -> Markup:
    return Markup(words)  # noqa: S704 - of our catalogues


def _values(language: Language, zone: AnyZone | None) -> dict[str, Callable[..., str]]:
    """What many mails say alike is written once: those of one event have its dates in common."""

    @lru_cache(maxsize=64)
    def written(at: dt.datetime) -> str:
        return language.moment(at, zone)

    @lru_cache(maxsize=32)
    def read(value: str | dt.date) -> str:
        return language.day(value, zone)

    def day(value: object) -> str:
        return read(value) if isinstance(value, str | dt.date) else ""

    def moment(at: dt.datetime) -> str:
        return written(at.replace(second=0, microsecond=0))

    def date(at: dt.datetime) -> str:
        return language.date(at, zone)

    return {
        "day": day,
        "date": date,
        "moment": moment,
        "money": _money(language),
        "plain": _plain,
        "isolated": language.isolated,
    }


def _money(language: Language) -> Callable[..., str]:
    @lru_cache(maxsize=32, typed=True)
    def written(amount: float | str, currency: str | None) -> str:
        return language.money(amount, currency)

    def money(amount: object, currency: object = None) -> str:
        if not isinstance(amount, int | float | str):
            return ""
        return written(amount, currency if isinstance(currency, str) else None)

    return money


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return one_line(str(value), VALUE_CHARACTERS)
