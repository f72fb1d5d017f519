"""manage.py check: each fault of the settings with its cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project

from tocsin.contrib.django.checks import check_database, check_settings

KEY = project.TOCSIN["SIGNING_KEY"]


@pytest.mark.parametrize(
    ("tocsin", "fault", "cure"),
    [
        ({"SIGNING_KEYS": KEY}, "no key 'SIGNING_KEYS'", "Did you mean SIGNING_KEY?"),
        ({}, 'no "SIGNING_KEY"', "TOCSIN_JWT_SECRET"),
        ({"SIGNING_KEY": "short"}, "too short", "32 bytes"),
        ({"SIGNING_KEY": KEY, "SIGNING_ALGORITHM": "ES256"}, "no private key", "PEM"),
        ({"SIGNING_KEY": KEY, "SIGNING_ALGORITHM": "none"}, "SIGNING_ALGORITHM", "HS256"),
        ({"SIGNING_KEY": KEY, "TOKEN_LIFETIME": 60}, "TOKEN_LIFETIME", "timedelta"),
        ({"SIGNING_KEY": KEY, "SERVICE_URL": "notify"}, "SERVICE_URL", "https://"),
        ({"SIGNING_KEY": KEY, "USER": {"mail": "email"}}, "no key 'mail'", "timezone"),
        ({"SIGNING_KEY": KEY, "USER": {"name": "nick"}}, "has no 'nick'", "user model"),
        ({"SIGNING_KEY": KEY, "DATABASE": "other"}, "'other'", "default"),
        ({"SIGNING_KEY": KEY, "DATABASE": "local"}, "sqlite", "postgresql"),
        ({"SIGNING_KEY": KEY, "EVENT_TYPES": "/no/such.toml"}, "EVENT_TYPES", "/no/such.toml"),
        ("tocsin", "not a dictionary", "TOCSIN = {"),
    ],
)
def test_each_fault_has_its_cure(settings: Any, tocsin: Any, fault: str, cure: str) -> None:
    settings.TOCSIN = tocsin
    messages = check_settings()
    assert len(messages) >= 1
    assert any(fault in each.msg and cure in (each.hint or "") for each in messages), messages


def test_a_project_that_makes_no_tokens_is_reported(settings: Any) -> None:
    settings.TOCSIN = {"SIGNING_KEY": None}
    assert check_settings() == []


def test_a_key_of_an_event_type_that_is_not_known_is_named(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "types.toml"
    file.write_text('[event_types]\n"shop.a" = { label = "A", chanels = ["email"] }')
    settings.TOCSIN = {"SIGNING_KEY": None, "EVENT_TYPES": file}
    assert "shop.a has no key 'chanels'" in check_settings()[0].msg


def test_psycopg2_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db.backends.postgresql import psycopg_any

    monkeypatch.setattr(psycopg_any, "is_psycopg3", False)
    assert "psycopg[binary]" in (check_settings()[0].hint or "")


@pytest.mark.django_db
def test_schemas_that_are_behind_are_a_warning_that_names_migrate() -> None:
    from django.db import connection

    assert check_database(databases=["default"]) == []
    with connection.cursor() as cursor:
        cursor.execute("delete from tocsin.migration where name like 'functions %'")
    (warning,) = check_database(databases=["default"])
    assert "behind" in warning.msg
    assert warning.hint == "Run manage.py migrate."
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into tocsin.migration (name, checksum) values ('9999_later.sql', '')"
        )
    (warning,) = check_database(databases=["default"])
    assert "pip install -U tocsin" in (warning.hint or "")
