"""The admin page: decisions and reasons of an event or a person, for staff who may see them."""

from __future__ import annotations

import pytest
from accounts.models import Member
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from tocsin import notify

pytestmark = pytest.mark.django_db
PAGE = "/admin/tocsin/decision/"


@pytest.fixture
def alice() -> Member:
    return Member.objects.create_user("alice", "alice@example.com")


def staff(**fields: bool) -> Client:
    client = Client()
    client.force_login(Member.objects.create_user("boss", is_staff=True, **fields))
    return client


def test_a_search_by_person_shows_each_channel_with_its_reason(alice: Member) -> None:
    event = notify(connection, recipient=alice.pk, event_type="forum.mention", title="Bob & you")
    client = staff(is_superuser=True)
    by_person = client.get(PAGE, {"recipient": alice.pk}).content.decode()
    by_event = client.get(PAGE, {"event": event}).content.decode()
    for text in (by_person, by_event):
        assert "Bob &amp; you" in text
        assert "<code>default</code>" in text
        assert "<code>no_device</code>" in text
        assert "<strong>queued</strong>" in text
        assert f"event {event}," in text.replace("\n", " ")
    assert "Why was a person notified?" in client.get(PAGE).content.decode()
    assert "There is no such notification." in client.get(PAGE, {"event": 999_999}).content.decode()


def test_the_page_is_listed_and_cannot_add_anything() -> None:
    client = staff(is_superuser=True)
    assert PAGE in client.get("/admin/").content.decode()
    assert client.get(f"{PAGE}add/").status_code == 403


def test_staff_need_the_permission() -> None:
    client = staff()
    assert client.get(PAGE).status_code == 403
    member = Member.objects.get(username="boss")
    member.user_permissions.add(Permission.objects.get(codename="view_decision"))
    assert client.get(PAGE).status_code == 200
