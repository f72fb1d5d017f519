"""One frozen Settings, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct


class SettingsError(Exception):
    """One line that names the setting at fault and what to do."""


class Settings(Struct, frozen=True, kw_only=True):
    """What TOCSIN_… says; see docs/settings.md."""

    database_url: str | None = None
    data_dir: Path = Path(".tocsin")
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    smtp_url: str | None = None
    email_from: str | None = None
    jwt_secret: str | None = None
    jwt_public_key: str | None = None
    jwks_url: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    ca_file: Path | None = None
    retention_days: int = 90
    metrics_public: bool = False
    log_level: str = "INFO"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads TOCSIN_… and validates it; raises SettingsError with one line."""
    raise NotImplementedError
