"""Google's token endpoint: takes a service account's signed assertion (RFC 7523), gives access tokens that end."""

from __future__ import annotations

import json
import secrets
import time
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE = "https://oauth2.googleapis.com/token"
"""Whom google-auth addresses its assertions to, whatever the account's token_uri."""

_LONGEST_ASSERTION = 3600  # seconds, as Google has it


class TokenIssuer:
    """One throw-away service account with its own key, and the access tokens that it was given.

    `private_key` (PEM) is a key to keep over restarts; without, one is made. `lifetime` is that of the next token in
    seconds. `status` other than 200 is answered as it is, with `body`. Raises ValueError for a key that is none.
    """

    def __init__(self, project_id: str, private_key: str | None = None) -> None:
        self.project_id = project_id
        self.email = f"tocsin@{project_id}.iam.gserviceaccount.com"
        self.uri = ""  # known once the server listens
        self.lifetime = 3600.0
        self.status = 200
        self.body: str | None = None
        self.issued: list[str] = []
        self.revoked = False  # the account's key: no assertion of it is taken any more
        self._key = _loaded(private_key) if private_key else _throw_away_key()
        self._ends_at: dict[str, float] = {}

    @property
    def service_account(self) -> dict[str, str]:
        """What Google's console hands out as a JSON file."""
        return {
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": "throw-away",
            "private_key": _pem(self._key),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": self.uri,
        }

    def revoke_tokens(self) -> None:
        """Ends all access tokens that were given out."""
        self._ends_at.clear()

    def knows(self, authorization: str) -> bool:
        """Whether an Authorization header bears a token that is good now."""
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and self._ends_at.get(token, 0.0) > time.monotonic()

    async def answer(self, request: web.Request) -> web.Response:
        """Handles POST on the token address."""
        form = await request.post()
        if self.status != 200 or self.body is not None:
            return web.Response(status=self.status, text=self.body or "")
        fault = self._fault(str(form.get("grant_type")), str(form.get("assertion")))
        if fault:
            error = {"error": "invalid_grant", "error_description": fault}
            return web.json_response(error, status=400)
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self.issued.append(token)
        self._ends_at[token] = time.monotonic() + self.lifetime
        return web.json_response(
            {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}
        )

    def _fault(self, grant: str, assertion: str) -> str | None:
        """What is wrong with an assertion."""
        if grant != GRANT:
            return f"grant_type must be {GRANT}"
        if self.revoked:
            return "Invalid JWT Signature."
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=[GOOGLE, self.uri],
                issuer=self.email,
                options={"require": ["iss", "aud", "exp", "iat", "scope"]},
            )
        except jwt.PyJWTError as error:
            return f"Invalid JWT: {error}"
        if claims["exp"] - claims["iat"] > _LONGEST_ASSERTION:
            return "Invalid JWT: Token must be a short-lived token (60 minutes)."
        if SCOPE not in claims["scope"].split():
            return "Invalid scope."
        return None


def as_json(service_account: dict[str, str]) -> str:
    """The account as TOCSIN_FCM_SERVICE_ACCOUNT takes it, in one line."""
    return json.dumps(service_account)


def new_private_key() -> str:
    """A service account's key as PEM, to be kept."""
    return _pem(_throw_away_key())


def _loaded(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("The key of a service account is an RSA key")
    return key


@cache
def _throw_away_key() -> RSAPrivateKey:
    """One for all servers of this process: making it takes a tenth of a second."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
