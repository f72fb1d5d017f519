"""People's JWTs, by which the Tocsin service knows who they are."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from tocsin.contrib.django.conf import options
from tocsin.contrib.django.people import recipient_id


def token_for(user: Any) -> str:
    """A JWT for a user, valid for TOCSIN["TOKEN_LIFETIME"]. Raises ImproperlyConfigured without a signing key."""
    chosen = options()
    if not isinstance(chosen.signing_key, str) or not chosen.signing_key:
        raise ImproperlyConfigured(
            'TOCSIN["SIGNING_KEY"] is not set: set it to the TOCSIN_JWT_SECRET of the Tocsin service.'
        )
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": recipient_id(user),
        "iat": now,
        "exp": now + int(chosen.token_lifetime.total_seconds()),
    }
    if chosen.audience is not None:
        claims["aud"] = chosen.audience
    if chosen.issuer is not None:
        claims["iss"] = chosen.issuer
    return _sign(claims, chosen.signing_key, chosen.signing_algorithm)


def _sign(claims: dict[str, Any], key: str, algorithm: str) -> str:
    if not algorithm.startswith("HS"):
        try:
            import jwt
        except ImportError:
            raise ImproperlyConfigured(
                f'TOCSIN["SIGNING_ALGORITHM"] {algorithm} needs PyJWT: pip install "pyjwt[crypto]".'
            ) from None
        return jwt.encode(claims, key, algorithm)
    header = {"alg": algorithm, "typ": "JWT"}
    text = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.digest(key.encode(), text, getattr(hashlib, f"sha{algorithm[2:]}"))
    return (text + b"." + _encoded(signature)).decode()


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
