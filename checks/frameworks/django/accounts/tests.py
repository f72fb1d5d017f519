"""What a project writes itself; run by `manage.py test`, with and without migrations."""

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from accounts.models import Member
from accounts.views import place_order
from tocsin import unread_count


class PlacingAnOrder(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.alice = Member.objects.create_user("alice")

    def test_the_buyer_is_notified(self) -> None:
        place_order(self.alice.pk, 1)
        self.assertEqual(unread_count(connection, self.alice.pk), 1)

    def test_each_test_begins_without_notifications(self) -> None:
        self.assertEqual(unread_count(connection, self.alice.pk), 0)

    def test_the_call_is_counted(self) -> None:
        with self.assertNumQueries(4):  # savepoint, insert, notify, release
            place_order(self.alice.pk, 2)


class Committing(TransactionTestCase):
    def test_a_failed_order_notifies_nobody(self) -> None:
        alice = Member.objects.create_user("alice")
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            place_order(alice.pk, 1)
            _ = 1 / 0
        self.assertEqual(unread_count(connection, alice.pk), 0)

    def test_each_test_begins_with_empty_tables(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from tocsin.recipient")
            self.assertEqual(cursor.fetchone(), (0,))
