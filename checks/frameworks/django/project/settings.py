"""A project with a custom user model, a second database of another kind, and Tocsin."""

import os
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

_server = conninfo_to_dict(os.environ["FRAMEWORKS_DSN"])  # of a role that may create databases

SECRET_KEY = "a" * 50
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "project.urls"
AUTH_USER_MODEL = "accounts.Member"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "accounts",
    "tocsin.contrib.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
_postgres = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": _server["host"],
    "PORT": _server["port"],
    "USER": _server["user"],
    "PASSWORD": _server.get("password", ""),
}
DATABASES = {
    "default": _postgres | {"NAME": os.environ.get("FRAMEWORKS_DATABASE", "django_checks")},
    "archive": _postgres | {"NAME": "django_archive"},
    "local": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
TOCSIN = {
    "SERVICE_URL": "https://notify.example.com",
    "SIGNING_KEY": "the secret that the service has as TOCSIN_JWT_SECRET",
    "EVENT_TYPES": Path(__file__).parent / "event_types.toml",
    "USER": {"locale": "language", "timezone": "profile.zone"},
}
