"""Tocsin: the notification engine for Python apps with a PostgreSQL."""
