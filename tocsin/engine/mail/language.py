"""A recipient's language: translations of the words in mails, and how dates and sums of money are written.

A catalogue is `words/<language>.po`; English is in the templates themselves. `de-AT` uses `de`, and a language without
a catalogue uses English.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unicodedata import bidirectional
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal
from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup
from msgspec import Struct

from tocsin.engine.model import Zone
from tocsin.engine.text import one_line

AnyZone = Zone | ZoneInfo

CATALOGUES = Path(__file__).parent / "words"
LABELS = "event type"  # gettext's context of labels, which separates them from words in sentences
VALUE_CHARACTERS = 120

# For plain "en": day before month, and 24 hours.
_ENGLISH = Locale.parse("en_GB")
_RIGHT_TO_LEFT = frozenset(
    {"ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"}
)
_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MOST_MONEY = 10**15


class Words(Struct, frozen=True):
    """A host's own catalogues, which take precedence."""

    folder: Path
    version: str = ""  # another one as soon as a file changed


class Language(Struct, frozen=True, dict=True):
    """The language of one person."""

    tag: str  # the person's (BCP 47), for the app's own texts
    direction: str
    words_tag: str  # of the words of the template: English if there is no catalogue
    words_direction: str
    locale: Locale  # for dates and numbers, in the language of the words
    catalogue: NullTranslations

    def label(self, label: str) -> str:
        """Translates a label of the default catalogue; an app's own stays as it is."""
        return self.catalogue.pgettext(LABELS, label)

    def isolated(self, text: str) -> str:
        """Returns text for use in a sentence; isolated (Unicode's FSI … PDI) if their directions differ."""
        if self.words_direction == "ltr" or "L" not in map(bidirectional, text):
            return text
        return f"\u2068{text}\u2069"

    def day(self, value: object, zone: AnyZone | None) -> str:
        """Returns a date or time as people write it, in their zone; other text as it is; empty for other values."""
        try:
            found = _parsed(value)
        except ValueError:
            return one_line(value, VALUE_CHARACTERS) if isinstance(value, str) else ""
        if not isinstance(found, datetime):
            return format_date(found, "long", locale=self.locale)
        try:
            local = _local(found, zone) if found.tzinfo else found
        except OverflowError:  # of the years 1 and 9999
            local = found
        written = format_datetime(local, self._long, locale=self.locale)
        return f"{written} UTC" if local.tzinfo is not None and zone is None else written

    def date(self, at: datetime, zone: AnyZone | None) -> str:
        """Returns the day of a time, in their zone."""
        return format_date(_local(at, zone).date(), "long", locale=self.locale)

    def moment(self, at: datetime, zone: AnyZone | None) -> str:
        """Returns day and time of something recent: `22 Nov, 14:05`."""
        return format_datetime(_local(at, zone), self._short, locale=self.locale)

    def money(self, amount: object, currency: object = None) -> str:
        """Returns `84.5, "EUR"` as `€84.50`; an amount that is text as it is."""
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            return one_line(amount, VALUE_CHARACTERS) if isinstance(amount, str) else ""
        if not abs(amount) < _MOST_MONEY:  # nor NaN
            return ""
        number = Decimal(str(amount))
        if isinstance(currency, str) and _CURRENCY.fullmatch(currency):
            return format_currency(number, currency, locale=self.locale)
        return format_decimal(number, locale=self.locale)

    @property
    def _long(self) -> str:
        return _joined(self.locale, str(self.locale.date_formats["long"]), "long")

    @property
    def _short(self) -> str:
        return _joined(self.locale, str(self.locale.datetime_skeletons["MMMd"]), "medium")


@lru_cache(maxsize=1024)
def language_of(locale: str | None, words: Words | None = None) -> Language:
    """Returns the language of a locale such as `de-AT` or `de_DE.UTF-8`; English without one."""
    known = catalogues(words)
    tag = (locale or "").partition(".")[0].partition("@")[0].replace("_", "-")
    tag = tag if _TAG.fullmatch(tag) else "en"
    language = tag.partition("-")[0].lower()
    of_words = language if language in known else "en"
    return Language(
        tag,
        _direction(language),
        of_words,
        _direction(of_words),
        _formats(tag, of_words),
        known[of_words],
    )


@lru_cache(maxsize=4)
def catalogues(words: Words | None = None) -> dict[str, NullTranslations]:
    """Returns the catalogues by language, and English, whose words are in the templates; a host's take precedence."""
    found: dict[str, NullTranslations] = {"en": NullTranslations()}
    for folder in (CATALOGUES, words.folder if words else None):
        for path in sorted(folder.glob("*.po")) if folder else ():
            catalogue = _read(path)
            if path.stem in found:
                catalogue.add_fallback(found[path.stem])
            found[path.stem] = catalogue
    return found


def _read(path: Path) -> GNUTranslations:
    compiled = BytesIO()
    with path.open("rb") as file:
        write_mo(compiled, read_po(file, locale=path.stem, abort_invalid=True))
    compiled.seek(0)
    return GNUTranslations(compiled)


@lru_cache(maxsize=1024)
def zone_of(name: str | None) -> ZoneInfo | None:
    """Returns the zone of that name by Python's rules, for previews without a database; None if it is unknown."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        return None


def _local(at: datetime, zone: AnyZone | None) -> datetime:
    return zone.local(at) if isinstance(zone, Zone) else at.astimezone(zone or UTC)


def _direction(language: str) -> str:
    return "rtl" if language in _RIGHT_TO_LEFT else "ltr"


def _formats(tag: str, words: str) -> Locale:
    if tag.lower() == "en" or tag.partition("-")[0].lower() != words:
        return _ENGLISH if words == "en" else Locale.parse(words)
    try:
        return Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return _ENGLISH if words == "en" else Locale.parse(words)


def _parsed(value: object) -> date | datetime:
    """Parses RFC 3339 and ISO 8601; raises ValueError."""
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        raise ValueError("neither date nor time")
    return date.fromisoformat(value) if _DATE.fullmatch(value) else datetime.fromisoformat(value)


@lru_cache(maxsize=256)
def _joined(locale: Locale, day: str, length: str) -> str:
    """Joins the patterns of day and time in the order of the locale."""
    return (
        str(locale.datetime_formats[length])
        .replace("{1}", day)
        .replace("{0}", str(locale.time_formats["short"]))
    )


# Functions for templates: gettext in the recipient's language, dates in their zone, sums of money.

Gettext = Callable[..., str]


@lru_cache(maxsize=1024)
def template_functions(
    locale: str | None, zone: AnyZone | None, words: Words | None = None
) -> Mapping[str, Any]:
    """Returns those of one language and zone; their names are public (docs/mail.md)."""
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
    """Returns gettext under Jinja's names, in its new style: `_("Open in %(service)s", service=service)`."""
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
    """Returns words with their values, which are escaped in HTML."""
    if not values and "%" not in words:
        return _marked(words) if place.autoescape else words
    return (Markup(words) if place.autoescape else words) % values  # noqa: S704 - of our catalogues


@lru_cache(maxsize=1024)
def _marked(words: str) -> Markup:
    return Markup(words)  # noqa: S704 - of our catalogues


def _values(language: Language, zone: AnyZone | None) -> dict[str, Callable[..., str]]:
    """Returns the functions for values. Results are cached, since the mails of one event share its dates."""

    @lru_cache(maxsize=64)
    def written(at: dt.datetime) -> str:
        return language.moment(at, zone)

    def moment(at: dt.datetime) -> str:
        return written(at.replace(second=0, microsecond=0))

    return {
        "day": _cached(partial(language.day, zone=zone)),
        "date": partial(language.date, zone=zone),
        "moment": moment,
        "money": _cached(language.money),
        "plain": _plain,
        "isolated": language.isolated,
    }


def _cached(function: Callable[..., str]) -> Callable[..., str]:
    """Returns the function with its last results kept, except those of values that have no hash."""
    kept = lru_cache(maxsize=32, typed=True)(function)

    def call(*values: object) -> str:
        try:
            return kept(*values)
        except TypeError:
            return function(*values)

    return call


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return one_line(str(value), VALUE_CHARACTERS)
