"""The token by which push services recognise this service (RFC 8292): one for each origin, used for hours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import jwt
from yarl import URL

from tocsin.settings.keys import VapidKey, load_vapid_key

VALID_FOR = timedelta(hours=12)
"""Of a token; push services refuse one that is valid for more than 24 hours."""

RENEWED = timedelta(hours=1)
"""Before its end, since a push service's clock may be another one."""

MOST_ORIGINS = 1_000
"""Whose tokens are kept: there are four large push services, and people may run their own."""


class VapidTokens:
    """Makes and keeps the Authorization header for each push service."""

    def __init__(self, key: VapidKey, now: Callable[[], datetime]) -> None:
        self._key = load_vapid_key(key.private)
        self._public = key.public
        self._subject = key.subject
        self._now = now
        self._kept: dict[str, tuple[datetime, str]] = {}

    def authorization(self, endpoint: str) -> str:
        """Returns the header for the push service of an endpoint."""
        origin, now = str(URL(endpoint).origin()), self._now()
        ends_at, header = self._kept.get(origin, (now, ""))
        if ends_at - now <= RENEWED:
            ends_at = now + VALID_FOR
            header = f"vapid t={self._token(origin, ends_at)}, k={self._public}"
            self._kept.pop(origin, None)
            if len(self._kept) >= MOST_ORIGINS:
                del self._kept[next(iter(self._kept))]
            self._kept[origin] = (ends_at, header)
        return header

    def _token(self, origin: str, ends_at: datetime) -> str:
        claims = {"aud": origin, "exp": int(ends_at.timestamp()), "sub": self._subject}
        return jwt.encode(claims, self._key, "ES256")
