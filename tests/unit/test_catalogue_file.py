"""What is wrong with a catalogue file: each fault with its line, its key, what is allowed and the nearest to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tocsin.engine.store.catalogue_file import CatalogueError, default_catalogue, parse_catalogue
from tocsin.event_types import read_constants
from tocsin.sql.install import catalogue

FILE = """replace = "yes"
[categorys]
[categories]
Shop = "x"
shop = "a\\u2028b"
[event_types]
"shop.a" = { label = "A", chanels = ["email"] }
"shop.b" = { label = "B", channels = ["email"], priority = "hihg", time_to_live = "3 days" }
"shop.c" = { label = "C", channels = ["email"], mandatory = ["push"], max_attempts = 100 }
"shop.d" = { label = "D", channels = ["email"], mandatory = ["push"], delay = { email = "9d" } }
shop = 1
[event_types."shop.e"]
label = "E"
channels = "email"
unread_retention = "12h"
[event_types."shop.f"]
label = "F"
channels = ["emial", "email", "email"]
delay = { fax = "1m" }
"""

FAULTS = [
    ("2: categorys: ", "did you mean categories?", "event_types, categories, replace"),
    ("1: replace: ", "true or false"),
    ("4: categories.Shop: ", "lower-case letters"),
    ("5: categories.shop: ", "1 to 100 characters in one line"),
    ('7: event_types."shop.a".chanels: ', "did you mean channels?", "label, channels, mandatory"),
    ('7: event_types."shop.a": ', "channels is required"),
    ('8: event_types."shop.b".priority: ', "did you mean high?", "low, normal, high"),
    ('8: event_types."shop.b".time_to_live: ', "one of s, m, h, d"),
    ('9: event_types."shop.c".max_attempts: ', "<= 50"),
    ('10: event_types."shop.d": ', "push is mandatory"),
    ('10: event_types."shop.d": ', "make that longer"),
    (": event_types.shop: ", "category.name"),
    ('14: event_types."shop.e".channels: ', "Expected array"),
    ('15: event_types."shop.e".unread_retention: ', "a number of days"),
    (
        '16: event_types."shop.f": ',
        "channels has emial",
        "did you mean email?",
        "in_app, email, push",
    ),
    ('16: event_types."shop.f": ', "channels has email several times", "name it once"),
    ('16: event_types."shop.f": ', "delay has fax", "in_app, email, push"),
]


def test_all_that_is_wrong_is_named_with_its_place_and_cure() -> None:
    with pytest.raises(CatalogueError) as caught:
        parse_catalogue(FILE, "shop.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(FAULTS)
    for line, (place, *parts) in zip(lines, FAULTS, strict=True):
        assert line.startswith("shop.toml:"), line
        assert place in line, line
        assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    "text", ["a = ", "[event_types", "event_types = 1", "", "[event_types]\na = "]
)
def test_what_is_no_catalogue_at_all_is_named_too(text: str) -> None:
    with pytest.raises(CatalogueError, match=r"shop\.toml"):
        parse_catalogue(text, "shop.toml")


def test_an_app_reads_the_names_of_its_own_event_types_without_the_service(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[event_types]\n"shop.order_sent" = { label = "Sent", channels = ["email"] }')
    assert read_constants(file) == {"SHOP_ORDER_SENT": "shop.order_sent"}


def test_apps_and_the_service_read_the_same_of_the_default_file() -> None:
    """Apps read it for their test databases and migrations, without the service's packages."""
    assert catalogue() == default_catalogue().in_order()
