"""Users with UUIDs, who have an email and no name (run with project.settings_uuid)."""

from __future__ import annotations

import pytest
from accounts.models import UuidMember
from django.db import connection

from tocsin import notify, unread_count

pytestmark = pytest.mark.django_db


def test_a_uuid_is_an_id_and_a_function_maps_the_name() -> None:
    user = UuidMember(email="alice@example.com")
    user.save()
    with connection.cursor() as cursor:
        cursor.execute("select recipient_id, email, name from tocsin.recipient")
        assert cursor.fetchall() == [(str(user.pk), "alice@example.com", "alice")]
    notify(connection, recipient=user.pk, event_type="shop.order_sent", title="Sent")
    assert unread_count(connection, user.pk) == 1


def test_the_system_checks_accept_a_model_without_names() -> None:
    from tocsin.contrib.django.checks import check_settings

    assert check_settings() == []
