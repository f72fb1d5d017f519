"""Under `tocsin up` alone: tokens signed with a key of their own, for a service that only this machine reaches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from tocsin.settings import Settings, SettingsError
from tocsin.settings.loopback import is_loopback

DEVELOPMENT_KEY = "development_key"  # its name among the data directory's secrets
KEY_ID = "tocsin-development"  # `kid` in the header of a token that it signed
ALGORITHM = "HS256"
_DAY = timedelta(days=1)


def check_bind(settings: Settings) -> None:
    """Raises SettingsError where others could reach the pages that sign anybody in."""
    if not is_loopback(settings.host):
        raise SettingsError(
            f"TOCSIN_HOST {settings.host} can be reached from other machines, and the pages of `make up` sign anybody "
            "in: leave it unset (127.0.0.1), or run `tocsin serve` and `tocsin worker` in place of `make up`"
        )


def sign_token(settings: Settings, recipient_id: str, *, development_key: str | None = None) -> str:
    """A JWT for a day with the claims that the service asks for, by the development key or else TOCSIN_JWT_SECRET."""
    now = datetime.now(UTC)
    claims: dict[str, Any] = {"sub": recipient_id, "iat": now, "exp": now + _DAY}
    claims |= {"aud": settings.jwt_audience} if settings.jwt_audience else {}
    claims |= {"iss": settings.jwt_issuer} if settings.jwt_issuer else {}
    if development_key is not None:
        return jwt.encode(claims, development_key, ALGORITHM, headers={"kid": KEY_ID})
    if settings.jwt_secret is None:
        raise SettingsError(
            "TOCSIN_JWT_SECRET is not set: only your host app can sign tokens here."
        )
    return jwt.encode(claims, settings.jwt_secret, settings.jwt_algorithms[0])
