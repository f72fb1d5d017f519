"""The title of several notifications as one, in each language."""

from __future__ import annotations

from typing import Any

import pytest

from tocsin.engine.store.catalogue_file import CatalogueError, default_catalogue, parse_catalogue
from tocsin.engine.text import GroupFacts, TitleMany, group_title

REPLIES = default_catalogue().event_types["forum.new_reply"].title_many
MESSAGES = default_catalogue().event_types["messages.new_dm"].title_many
TITLE = "New reply in 'Spring Formal Planning'"


def titled(forms: Any, locale: str | None = None, **facts: Any) -> str:
    named: dict[str, Any] = {"count": 5, "title": TITLE, "initiator": "Alice", "others": 4} | facts
    return group_title(forms, locale, GroupFacts(**named))


def test_a_title_names_one_person_the_number_of_others_and_the_thing() -> None:
    assert titled(REPLIES) == "Alice and 4 others replied to 'Spring Formal Planning'"
    assert titled(REPLIES, others=1) == "Alice and 1 other replied to 'Spring Formal Planning'"
    assert titled(REPLIES, others=999, capped=True).startswith("Alice and 999+ others replied")


@pytest.mark.parametrize(
    ("title", "about", "expected"),
    [
        ("New reply", None, "Alice and 4 others replied"),
        ("New reply", "Hall", "Alice and 4 others replied to 'Hall'"),
        ("Bob replied in \u201cHall\u201d", None, "Alice and 4 others replied to 'Hall'"),
        ("Antwort auf \u201eHalle\u201c", None, "Alice and 4 others replied to 'Halle'"),
        ("R\u00e9ponse \u00e0 \u00ab Salle \u00bb", None, "Alice and 4 others replied to 'Salle'"),
        ("Bob's and Carol's reply", None, "Alice and 4 others replied"),
    ],
)
def test_the_thing_is_that_of_the_metadata_or_what_the_title_quotes(
    title: str, about: str | None, expected: str
) -> None:
    assert titled(REPLIES, title=title, about=about) == expected


@pytest.mark.parametrize(
    "facts",
    [{"count": 1}, {"others": 0}, {"initiator": None}],
    ids=["one", "one person", "no name"],
)
def test_a_group_that_no_text_fits_has_the_title_of_its_newest(facts: dict[str, Any]) -> None:
    assert titled(REPLIES, **facts) == TITLE


def test_a_text_that_names_one_person_is_not_used_for_several() -> None:
    assert titled(MESSAGES, others=0) == "5 new messages from Alice"
    assert titled(MESSAGES, others=1) == TITLE


@pytest.mark.parametrize(
    ("locale", "others", "expected"),
    [
        ("de-AT", 1, "Alice und eine weitere Person haben"),
        ("de", 2, "Alice und 2 weitere Personen haben"),
        ("ar", 1, "\u2068Alice\u2069 وشخص آخر ردّوا"),
        ("ar", 2, "\u2068Alice\u2069 وشخصان آخران ردّوا"),
        ("ar_EG", 3, "\u2068Alice\u2069 و3 أشخاص آخرين ردّوا"),
        ("ar", 11, "\u2068Alice\u2069 و11 شخصًا آخر ردّوا"),
        ("ar", 100, "\u2068Alice\u2069 و100 شخص آخر ردّوا"),
        ("fi", 2, "Alice and 2 others replied"),
    ],
)
def test_each_language_has_its_plural_forms(locale: str, others: int, expected: str) -> None:
    assert titled(REPLIES, locale, others=others).startswith(expected)


def test_every_text_of_the_default_catalogue_is_there_in_each_language() -> None:
    for name, entry in default_catalogue().event_types.items():
        if entry.title_many:
            assert list(entry.title_many) == ["en", "de", "ar"], name
            for language in entry.title_many:
                for number in (2, 3, 11, 100):
                    facts = {"count": number, "others": number if "others" in str(entry) else 0}
                    assert titled(entry.title_many, language, **facts) != TITLE, name


def test_text_of_another_direction_is_isolated() -> None:
    forms: TitleMany = {"en": {"other": "{count} from {initiator}"}}
    assert titled(forms, others=0, initiator="ليلى") == "5 from \u2068ليلى\u2069"


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ('en = { one = "a" }', "no text for other"),
        ('en = { other = "{who} wrote" }', "{who} is no placeholder; there are {initiator}"),
        ('en = { other = "{count wrote" }', "a brace is not part of a placeholder"),
        ('en = { other = "a [b" }', "a bracket has no counterpart"),
        ('xx = { other = "a" }', "no language with known plural rules"),
        ('en = { other = "a", some = "b" }', "can't be used"),
    ],
)
def test_a_wrong_text_is_refused_with_the_cure(texts: str, fault: str) -> None:
    file = f'[event_types]\n"a.b" = {{ label = "A", channels = [], title_many = {{ {texts} }} }}'
    with pytest.raises(CatalogueError) as error:
        parse_catalogue(file, "shop.toml")
    assert fault in str(error.value)
