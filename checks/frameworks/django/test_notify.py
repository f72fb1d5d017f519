"""notify() in Django's transactions: atomic, savepoints, views of both kinds, errors, captured queries."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from accounts.models import Member, Order
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, connection, connections, transaction
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext

from tocsin import InvalidArgument, UnknownEventType, UnknownRecipient, notify, unread_count


@pytest.fixture
def alice(db: None) -> Member:
    return Member.objects.create_user("alice", "alice@example.com", first_name="Alice")


def send(user: Any, **options: Any) -> int:
    return notify(
        connection, recipient=user.pk, event_type="shop.order_sent", title="Sent", **options
    )


def test_a_committed_block_notifies_a_user_by_their_integer_key(alice: Member) -> None:
    with transaction.atomic():
        assert send(alice) > 0
    assert unread_count(connection, alice.pk) == 1


def test_a_block_that_is_rolled_back_notifies_nobody(alice: Member) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send(alice)
        _ = 1 / 0
    assert unread_count(connection, alice.pk) == 0


def test_a_savepoint_that_is_rolled_back_takes_its_notifications_along(alice: Member) -> None:
    with transaction.atomic():
        send(alice)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send(alice)
            _ = 1 / 0
    assert unread_count(connection, alice.pk) == 1


def test_a_refused_call_is_an_error_of_django_and_leaves_the_outer_block_usable(
    alice: Member,
) -> None:
    with transaction.atomic():
        try:
            with transaction.atomic():
                notify(connection, recipient=alice.pk, event_type="shop.ordersent", title="Sent")
        except DatabaseError as error:
            assert isinstance(error, UnknownEventType)
            assert "shop.order_sent" in str(error)
        Order.objects.create(number=1)
    assert Order.objects.count() == 1


def test_an_unknown_user_is_an_error_that_names_the_cure(db: None) -> None:
    with pytest.raises(UnknownRecipient, match="upsert_recipient"), transaction.atomic():
        notify(connection, recipient=424242, event_type="shop.order_sent", title="Sent")


def test_the_call_is_among_the_captured_queries(alice: Member) -> None:
    with CaptureQueriesContext(connection) as captured:
        send(alice)
    assert len(captured) == 1
    assert "tocsin.notify" in captured[0]["sql"]


def test_metadata_may_hold_what_djangos_json_encoder_knows(alice: Member) -> None:
    assert send(alice, metadata={"order": uuid.uuid4(), "member": alice.date_joined}) > 0


def test_a_queryset_of_keys_is_a_list_of_recipients(alice: Member) -> None:
    bob = Member.objects.create_user("bob")
    keys = Member.objects.values_list("pk", flat=True)
    notify(connection, recipient=keys, event_type="shop.order_sent", title="Sent")
    assert unread_count(connection, bob.pk) == unread_count(connection, alice.pk) == 1


@pytest.mark.django_db(databases=["default", "local"])
def test_a_connection_to_another_kind_of_database_is_refused_with_the_cure() -> None:
    with pytest.raises(InvalidArgument, match="PostgreSQL"):
        notify(connections["local"], recipient=1, event_type="shop.order_sent", title="Sent")


@pytest.mark.django_db(databases=["default", "archive"])
def test_on_a_database_without_the_schema_the_error_names_the_cure() -> None:
    with pytest.raises(DatabaseError) as failed, transaction.atomic(using="archive"):
        notify(connections["archive"], recipient=1, event_type="shop.order_sent", title="Sent")
    assert "tocsin migrate" in " ".join(getattr(failed.value, "__notes__", []))


def test_a_sync_view_notifies_in_its_transaction(alice: Member) -> None:
    response = Client().post("/order/", {"user": alice.pk, "number": 7})
    assert response.json()["event"] > 0
    assert unread_count(connection, alice.pk) == 1


@pytest.mark.django_db(transaction=True)
def test_a_sync_view_that_fails_notifies_nobody() -> None:
    alice = Member.objects.create_user("alice")
    Order.objects.create(number=7)
    with pytest.raises(DatabaseError):
        Client().post("/order/", {"user": alice.pk, "number": 7})
    assert unread_count(connection, alice.pk) == 0


@pytest.mark.django_db(transaction=True)
def test_an_async_view_notifies_in_its_transaction() -> None:
    alice = Member.objects.create_user("alice")

    async def call() -> tuple[int, int]:
        response = await AsyncClient().post("/order/async/", {"user": alice.pk, "number": 8})
        count = await sync_to_async(unread_count)(connection, alice.pk)
        return response.json()["event"], count

    event, count = async_to_sync(call)()
    assert event > 0
    assert count == 1
