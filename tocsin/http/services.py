"""What handlers work with, made once per app."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct

from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import Links
from tocsin.engine.store.database import Database
from tocsin.engine.store.health import ReadinessCheck
from tocsin.settings import Settings


class Services(Struct, frozen=True):
    """The dependency `services` of every handler."""

    settings: Settings
    database: Database
    hub: BadgeHub
    links: Links
    readiness: ReadinessCheck

    def url(self, path: str, query: dict[str, str] | None = None) -> str:
        """An address of this service, as the outside sees it (also behind a proxy's path prefix)."""
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in (query or {}).items())
        return f"{self.settings.public_url or ''}{path}{'?' + pairs if pairs else ''}"
