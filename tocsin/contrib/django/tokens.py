"""People's JWTs, by which the Tocsin service knows who they are."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from tocsin.contrib.bell import person_token
from tocsin.contrib.django.conf import options
from tocsin.contrib.django.people import recipient_id


def token_for(user: Any) -> str:
    """Returns a JWT for a user, for TOCSIN["TOKEN_LIFETIME"]. Raises ImproperlyConfigured without a signing key."""
    chosen = options()
    if not isinstance(chosen.signing_key, str) or not chosen.signing_key:
        raise ImproperlyConfigured(
            'TOCSIN["SIGNING_KEY"] is not set: set it to the TOCSIN_JWT_SECRET of the Tocsin service.'
        )
    try:
        return person_token(
            recipient_id(user),
            chosen.signing_key,
            algorithm=chosen.signing_algorithm,
            lifetime=chosen.token_lifetime,
            audience=chosen.audience,
            issuer=chosen.issuer,
        )
    except ImportError:
        raise ImproperlyConfigured(
            f'TOCSIN["SIGNING_ALGORITHM"] {chosen.signing_algorithm} needs PyJWT: pip install "pyjwt[crypto]".'
        ) from None
