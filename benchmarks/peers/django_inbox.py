"""A typical `notifications` app in a Django project: one table, a partial index, a read flag.

`setup()` configures Django; `create_table()` creates the table, and `copy_stock()` fills it with Tocsin's own rows of
the same database, so that both sides read the same data. Models can only be imported after `setup()`.
"""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

SECRET = "a secret of at least thirty-two bytes, for benchmarks"


def setup(dsn: str, **more: Any) -> None:
    """Configures Django with the database at `dsn`, with one persistent connection per thread."""
    parts = conninfo_to_dict(dsn)
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "USER": parts["user"],
                "PASSWORD": parts["password"],
                "HOST": parts["host"],
                "PORT": parts["port"],
                "CONN_MAX_AGE": None,
            }
        },
        **{"INSTALLED_APPS": []} | more,
    )
    django.setup()


def model() -> Any:
    """Returns the notification; imported late, since models need `setup()`."""
    from django.db import models

    class Notification(models.Model):
        recipient = models.CharField(max_length=200)
        event_type = models.CharField(max_length=100)
        title = models.TextField()
        body = models.TextField()
        action_url = models.TextField(null=True)
        metadata = models.JSONField(default=dict)
        read = models.BooleanField(default=False)
        created_at = models.DateTimeField()

        class Meta:
            app_label = "inbox"
            db_table = "inbox_notification"
            indexes = (
                models.Index(fields=["recipient", "-created_at"], name="inbox_recipient"),
                models.Index(
                    fields=["recipient"], name="inbox_unread", condition=models.Q(read=False)
                ),
            )

    return Notification


def create_table(notification: Any) -> None:
    """Creates its table again."""
    with connection.cursor() as cursor:
        cursor.execute("drop table if exists inbox_notification")
    with connection.schema_editor() as editor:
        editor.create_model(notification)


def copy_stock() -> None:
    """Copies Tocsin's inboxes, with the same churn of a third of the rows, and statistics but no vacuum."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            insert into inbox_notification (
                recipient, event_type, title, body, action_url, metadata, read, created_at
            )
            select
                n.recipient_id, n.event_type, e.title, e.body, e.action_url, e.metadata,
                n.read_at is not null, n.created_at
            from tocsin.notification n
            join tocsin.event e using (event_id)
            where n.in_inbox and n.archived_at is null
            order by n.notification_id
            """
        )
        cursor.execute("update inbox_notification set read = read where id % 3 = 0")
        cursor.execute("analyze inbox_notification")
