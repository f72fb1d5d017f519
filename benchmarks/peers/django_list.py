"""The inbox list of a Django app, for gunicorn: Django REST framework, stateless JWT, pagination by number or cursor.

`/list/` has numbers, which is DRF's default: a count of all rows, and an offset. `/cursor/` has CursorPagination.
Everything that costs time and is not needed is off: middleware, the browsable API, throttling, the user's row.
"""

from __future__ import annotations

import os

import django_inbox

django_inbox.setup(
    os.environ["PEER_DSN"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [
            "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication"
        ],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
        "PAGE_SIZE": 20,
        "UNAUTHENTICATED_USER": None,
    },
    SIMPLE_JWT={"USER_ID_CLAIM": "sub"},
)

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.generics import ListAPIView  # noqa: E402
from rest_framework.pagination import CursorPagination  # noqa: E402
from rest_framework.serializers import ModelSerializer  # noqa: E402

Notification = django_inbox.model()


class NotificationSerializer(ModelSerializer):  # type: ignore[misc]
    """As in the DRF tutorial."""

    class Meta:
        model = Notification
        fields = (
            "id",
            "event_type",
            "title",
            "body",
            "action_url",
            "metadata",
            "read",
            "created_at",
        )


class Inbox(ListAPIView):  # type: ignore[misc]
    """Newest first."""

    serializer_class = NotificationSerializer

    def get_queryset(self) -> object:
        mine = Notification.objects.filter(recipient=self.request.user.id)
        return mine.order_by("-created_at", "-id")


class ByTime(CursorPagination):  # type: ignore[misc]
    """By one field, which the index has; a second one would sort."""

    ordering = "-created_at"
    page_size = 20


class CursorInbox(Inbox):
    """The same by cursors."""

    pagination_class = ByTime

    def get_queryset(self) -> object:
        return Notification.objects.filter(recipient=self.request.user.id)


urlpatterns = [path("list/", Inbox.as_view()), path("cursor/", CursorInbox.as_view())]
application = WSGIHandler()
