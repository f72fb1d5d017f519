"""The unread count of a Django app, for gunicorn: Django REST framework, stateless JWT, with a cache and without.

`/cached/` keeps each person's count for 30 s in the process, `/count/` counts each time. Everything that costs time and
is not needed is off: middleware, the browsable API, throttling, the user's row.
"""

from __future__ import annotations

import os

import django_inbox

django_inbox.setup(
    os.environ["COUNT_DSN"],
    # simplejwt imports models of these
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},  # its 300 would be too few for so many people
        }
    },
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [
            "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication"
        ],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    SIMPLE_JWT={"USER_ID_CLAIM": "sub"},
)

from django.core.cache import cache  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

SECONDS = 30

Notification = django_inbox.model()


class Count(APIView):
    """Counts each time."""

    def get(self, request: Request) -> Response:
        return Response({"count": count(request.user.id)})


class CachedCount(APIView):
    """Is up to 30 s behind."""

    def get(self, request: Request) -> Response:
        who = request.user.id
        return Response({"count": cache.get_or_set(who, lambda: count(who), SECONDS)})


def count(recipient: str) -> int:
    return int(Notification.objects.filter(recipient=recipient, read=False).count())


urlpatterns = [path("count/", Count.as_view()), path("cached/", CachedCount.as_view())]
application = WSGIHandler()
