"""What tests share: a PostgreSQL of the project's own, and a database of each test's own."""

from __future__ import annotations
