"""The texts of mails in each language: complete, with the same placeholders, and with correct plurals and formats."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

from tests.support.golden_mails import claimed, of_type, one
from tests.support.mail_words import translated, updated, written
from tocsin.engine.mail.language import CATALOGUES, catalogues, language_of, zone_of
from tocsin.engine.store.catalogue_file import default_catalogue

FILES = sorted(CATALOGUES.glob("*.po"))
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%%")
BERLIN = zone_of("Europe/Berlin")


def forms(words: object) -> tuple[str, ...]:
    return tuple(words) if isinstance(words, tuple | list) else (str(words),)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_catalogue_is_complete_and_not_fuzzy(path: Path) -> None:
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.stem)
    messages = [message for message in catalogue if message.id]
    assert len(messages) > 80
    assert [message.id for message in messages if message.fuzzy] == []
    assert [message.id for message in messages if not translated(message.string)] == []
    plural = [message for message in messages if isinstance(message.id, tuple)]
    assert {len(forms(message.string)) for message in plural} == {catalogue.num_plurals}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_catalogue_has_the_words_of_the_templates(path: Path) -> None:
    assert path.read_text("utf-8") == written(updated(path)), "make words"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_translation_has_the_placeholders_of_its_source(path: Path) -> None:
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.stem)
    messages = [message for message in catalogue if message.id]
    assert len(messages) > 20
    for message in messages:
        wanted = sorted(PLACEHOLDER.findall(forms(message.id)[-1]))
        for place, form in enumerate(forms(message.string)):
            found = sorted(PLACEHOLDER.findall(form))
            # Arabic has one word for "two notifications", without the number
            of_one_number = isinstance(message.id, tuple) and place < catalogue.num_plurals - 3
            if not (of_one_number and found == [each for each in wanted if each != "%(num)d"]):
                assert found == wanted, form


def test_arabic_has_its_six_plural_forms() -> None:
    ngettext = catalogues()["ar"].ngettext
    plurals = {
        n: ngettext("and %(num)d more", "and %(num)d more", n) for n in (0, 1, 2, 3, 11, 100)
    }
    assert len(set(plurals.values())) == 6
    assert ngettext("and %(num)d more", "and %(num)d more", 103) == plurals[3]
    assert ngettext("and %(num)d more", "and %(num)d more", 111) == plurals[11]


@pytest.mark.parametrize(
    ("locale", "words", "button"),
    [
        ("de-AT", "de", "Antwort lesen"),
        ("de_DE.UTF-8", "de", "Antwort lesen"),
        ("DE", "de", "Antwort lesen"),
        ("ar-EG", "ar", "اقرأ الردّ"),
        ("he", "en", "Read the reply"),
        ("fr-CA", "en", "Read the reply"),
        ("x-klingon", "en", "Read the reply"),
        ("", "en", "Read the reply"),
        (None, "en", "Read the reply"),
    ],
)
def test_what_has_no_catalogue_of_its_own_gets_the_next_best(
    locale: str | None, words: str, button: str
) -> None:
    assert language_of(locale).words_tag == words
    mail = one(claimed(locale=locale))
    assert f">{button}</a>" in mail.html
    assert f"{button}: https://" in mail.text


@pytest.mark.parametrize("locale", sorted(catalogues()))
@pytest.mark.parametrize("event_type", sorted(default_catalogue().event_types))
def test_each_type_has_words_in_each_language(locale: str, event_type: str) -> None:
    english = one(of_type(event_type, "A title", "A text."))
    mail = one(of_type(event_type, "A title", "A text.", locale=locale))
    assert mail.subject == english.subject == "A title"
    assert "Open in" not in english.text
    if locale != "en":
        own = {line.partition(":")[0] for line in mail.text.splitlines()}
        assert not own & {line.partition(":")[0] for line in english.text.splitlines()} - {
            "",
            "-- ",
            "A title",
            "A text.",
        }


def test_names_of_the_other_direction_are_kept_apart() -> None:
    shop = claimed(event_type="shop.sent", category="shop", label="Order sent", locale="ar")
    assert "«\u2068Order sent\u2069»" in one(shop).text
    assert "\u2068Acme\u2069" in one(shop).text
    assert "«ردّ جديد»" in one(claimed(locale="ar")).text
    assert "\u2068" not in one(claimed(locale="de", label="ردّ")).text


# Dates, times, money.


@pytest.mark.parametrize(
    ("locale", "value", "written"),
    [
        ("en", "2026-11-12", "12 November 2026"),
        ("en-US", "2026-11-12", "November 12, 2026"),
        ("de", "2026-01-12", "12. Januar 2026"),
        ("de-AT", "2026-01-12", "12. Jänner 2026"),
        ("ar", "2026-11-12", "12 نوفمبر 2026"),
        ("fr", "2026-11-12", "12 November 2026"),  # the frame's words are English
        ("en", "2026-11-12T18:00:00Z", "12 November 2026, 19:00"),
        ("en", "2026-07-12T18:00:00Z", "12 July 2026, 20:00"),
        ("en", datetime(2026, 11, 12, 18, tzinfo=UTC), "12 November 2026, 19:00"),
        ("en", "2026-11-12T18:00:00", "12 November 2026, 18:00"),
        ("en", "next Friday\n", "next Friday"),
        ("en", None, ""),
        ("en", ["2026-11-12"], ""),
        ("en", "9999-12-31T23:59:59Z", "31 December 9999, 23:59"),
    ],
)
def test_days_are_written_as_their_reader_writes_them(
    locale: str, value: object, written: str
) -> None:
    assert language_of(locale).day(value, BERLIN) == written


def test_a_time_without_a_zone_is_marked_as_utc() -> None:
    assert zone_of("Mars/Olympus") is zone_of(None) is zone_of("../etc/passwd") is None
    assert language_of("en").day("2026-11-12T19:00:00+01:00", None) == "12 November 2026, 18:00 UTC"


@pytest.mark.parametrize(
    ("locale", "amount", "currency", "written"),
    [
        ("en", 84.5, "EUR", "€84.50"),
        ("de", 1084.5, "EUR", "1.084,50\xa0€"),
        ("de-AT", 1084, "EUR", "€\xa01.084,00"),
        ("en", "84.50 francs", "EUR", "84.50 francs"),
        ("en", 84.5, None, "84.5"),
        ("en", 84.5, "euro", "84.5"),
        ("en", True, "EUR", ""),
        ("en", None, "EUR", ""),
        ("en", float("nan"), "EUR", ""),
        ("en", 10**400, "EUR", ""),
    ],
)
def test_sums_are_written_as_their_reader_writes_them(
    locale: str, amount: object, currency: object, written: str
) -> None:
    assert language_of(locale).money(amount, currency) == written


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=4,
    )
)
def test_whatever_apps_send_as_metadata_costs_no_mail(value: object) -> None:
    keys = ("amount", "currency", "due_at", "invoice_number", "topic_title")
    mail = one(of_type("billing.payment_due", "Due", metadata=dict.fromkeys(keys, value)))
    assert mail.subject == "Due"
