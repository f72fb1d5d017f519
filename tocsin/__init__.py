"""Tocsin: the notification engine for Python apps with a PostgreSQL."""

from tocsin.client import *  # noqa: F403 - all that it names in its __all__ is public here too
