"""The test kit with pytest-django: the fixture needs no configuration, and sees the open transaction."""

from __future__ import annotations

from typing import Any

import pytest
from accounts.models import Member
from django.db import connection, transaction

from tocsin import notify
from tocsin.testing import Outbox, OutboxError


def send(user: Any) -> int:
    return notify(connection, recipient=user.pk, event_type="shop.order_sent", title="Sent")


def test_a_test_sees_its_own_notifications(tocsin_outbox: Outbox) -> None:
    alice = Member.objects.create_user("alice", "alice@example.com")
    tocsin_outbox.assert_nothing()

    send(alice)

    notification = tocsin_outbox.assert_notified(alice.pk, "shop.order_sent", channel="in_app")
    assert notification.recipient == str(alice.pk)
    with pytest.raises(AssertionError, match=r"was not notified of forum\.new_reply"):
        tocsin_outbox.assert_notified(alice.pk, "forum.new_reply")


def test_the_next_test_begins_with_an_empty_outbox(tocsin_outbox: Outbox) -> None:
    tocsin_outbox.assert_nothing()


@pytest.mark.django_db(transaction=True)
def test_a_test_that_commits_sees_what_it_committed(tocsin_outbox: Outbox) -> None:
    send(Member.objects.create_user("alice"))
    assert len(tocsin_outbox.events) == 1


def test_a_failed_transaction_names_the_cure(tocsin_outbox: Outbox) -> None:
    with pytest.raises(OutboxError, match="savepoint"):
        with transaction.atomic():
            with pytest.raises(Exception, match="upsert_recipient"):
                notify(connection, recipient=4242, event_type="shop.order_sent", title="Sent")
            tocsin_outbox.assert_nothing()


def test_channels_decide_as_where_workers_have_providers(tocsin_outbox: Outbox) -> None:
    bob = Member.objects.create_user("bob")
    notify(connection, recipient=bob.pk, event_type="forum.mention", title="Bob")
    (notification,) = tocsin_outbox.notifications(recipient=bob.pk)
    assert notification.decisions["push"].reason == "no_device"
    assert notification.decisions["email"].reason == "no_address"
