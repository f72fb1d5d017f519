"""Users and recipients in step: saves, deletes, what can't be kept, bulk imports."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from accounts.models import Member
from django.core.management import call_command
from django.db import connection, transaction

COLUMNS = "recipient_id, email, name, locale, timezone"


def recipients() -> list[tuple[str | None, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"select {COLUMNS} from tocsin.recipient order by recipient_id")
        return list(cursor.fetchall())


pytestmark = pytest.mark.django_db


def test_a_saved_user_is_a_recipient_with_the_mapped_attributes() -> None:
    user = Member.objects.create_user(
        "alice", "alice@example.com", first_name="Alice", last_name="Ada", language="de-AT",
        zone="Europe/Vienna",
    )  # fmt: skip
    expected = (str(user.pk), "alice@example.com", "Alice Ada", "de-AT", "Europe/Vienna")
    assert recipients() == [expected]


def test_a_changed_user_changes_the_recipient_and_a_sign_in_does_nothing() -> None:
    user = Member.objects.create_user("alice", "alice@example.com")
    user.email = "ada@example.com"
    user.save()
    assert recipients()[0][1] == "ada@example.com"
    with connection.execute_wrapper(_refuse):
        user.save(update_fields=["last_login"])


def _refuse(execute: object, sql: str, *rest: object) -> object:
    assert "tocsin" not in sql
    return execute(sql, *rest)  # type: ignore[operator]


def test_a_save_that_is_rolled_back_leaves_no_recipient() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Member.objects.create_user("alice")
        _ = 1 / 0
    assert recipients() == []


def test_a_deleted_user_is_erased_also_by_a_queryset() -> None:
    Member.objects.create_user("alice")
    Member.objects.create_user("bob").delete()
    assert len(recipients()) == 1
    Member.objects.all().delete()
    assert recipients() == []


def test_what_tocsin_refuses_of_a_user_is_left_out_and_the_user_is_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "tocsin.django"):
        user = Member.objects.create_user("alice", "not an address", zone="Mars/Olympus")
    assert Member.objects.filter(pk=user.pk).exists()
    assert recipients() == [(str(user.pk), None, None, None, None)]
    assert "email was left out" in caplog.text
    assert "timezone was left out" in caplog.text


def test_users_of_a_bulk_import_become_recipients_by_the_command() -> None:
    Member.objects.bulk_create(
        Member(username=f"u{n}", email=f"u{n}@example.com" if n != 1300 else "broken")
        for n in range(2500)
    )
    assert recipients() == []
    out, err = StringIO(), StringIO()
    call_command("tocsin_sync_users", batch=1000, stdout=out, stderr=err)
    assert "2500 users are recipients, 1 values were left out." in out.getvalue()
    assert err.getvalue().count("email was left out") == 1
    found = recipients()
    assert len(found) == 2500
    assert sum(email is None for _, email, *_ in found) == 1
    call_command("tocsin_sync_users", stdout=StringIO(), stderr=StringIO())
    assert recipients() == found


def test_fixtures_make_recipients_too(tmp_path: object) -> None:
    user = Member.objects.create_user("alice", "alice@example.com")
    out = StringIO()
    call_command("dumpdata", "accounts.Member", stdout=out)
    user.delete()
    path = f"{tmp_path}/people.json"
    with open(path, "w") as file:
        file.write(out.getvalue())
    call_command("loaddata", path, verbosity=0)
    assert recipients()[0][1] == "alice@example.com"


def test_without_sync_users_recipients_are_left_to_the_project(settings: object) -> None:
    settings.TOCSIN = {**settings.TOCSIN, "SYNC_USERS": False}  # type: ignore[attr-defined]
    Member.objects.create_user("alice").delete()
    assert recipients() == []
