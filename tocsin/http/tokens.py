"""People's tokens: the host app's JWTs (RFC 7519, by the advice of RFC 8725)."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any

import jwt
from jwt import PyJWK
from jwt.exceptions import InvalidSubjectError, PyJWTError
from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.http.errors import Unauthorized
from tocsin.http.jwks import KeySet
from tocsin.settings import Settings
from tocsin.settings.running_instance import ALGORITHM, KEY_ID, sign_token

_LONGEST = 8192  # characters; servers refuse longer headers anyway
_REMEMBERED = 20_000  # tokens
_TRUSTED_FOR = 300.0  # seconds; then a key that its provider withdrew no longer counts
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOREVER = 253402300799.0  # the end of the year 9999
_LEEWAY = 30.0  # seconds that clocks may differ by, for nbf and iat; exp has none, since streams end at it
_TYPES = frozenset({"jwt", "at+jwt"})  # of RFC 7519 and RFC 9068


class UnknownType(jwt.InvalidTokenError):
    """The header's `typ` is of something else that is signed, such as an ID token's logout token."""


class CriticalExtension(jwt.InvalidTokenError):
    """The header has `crit`, and no extension is known here."""


class Token(Struct, frozen=True):
    """What a verified token says: who, and until when (a POSIX time)."""

    recipient_id: str
    expires_at: float


class TokenVerifier:
    """Verifies tokens, and remembers those it verified: a signature costs twenty times a look-up."""

    def __init__(self, settings: Settings, development_key: str | None = None) -> None:
        self._settings = settings
        self._development_key = development_key  # under `tocsin up` alone
        self._fixed = settings.jwt_secret or settings.jwt_public_key
        self._key_set = (
            KeySet(settings.jwks_url, ca_file=settings.ca_file) if settings.jwks_url else None
        )
        # the least recently used first
        self._verified: OrderedDict[str, tuple[Token, float]] = OrderedDict()

    async def verify(self, text: str) -> Token:
        """What the token says; raises Unauthorized, or Unavailable when its key can't be had."""
        known = self.remembered(text)
        if known is not None:
            return known
        now = time.time()
        if len(text) > _LONGEST:
            raise Unauthorized("The token is too long.", error="invalid_token")
        try:
            token = _read(await self._decode(text))
        except (PyJWTError, ArithmeticError, ValueError, RecursionError) as error:
            # beside its own errors, what a hostile header or claim makes of Python's JSON and numbers
            raise Unauthorized(_reason(error), error="invalid_token") from None
        self._remember(text, token, now)
        return token

    def remembered(self, text: str) -> Token | None:
        """What a token said that was verified a while ago and still counts."""
        known = self._verified.get(text)
        if known is None or time.time() >= known[1]:
            return None
        self._verified.move_to_end(text)
        return known[0]

    def sign_for_development(self, recipient_id: str) -> str:
        """A token that this process accepts; raises NotFound where it does not run under `tocsin up`."""
        if self._development_key is None:
            raise NotFound("Nobody is signed in here: that is for `tocsin up` alone.")
        return sign_token(self._settings, recipient_id, development_key=self._development_key)

    async def _decode(self, text: str) -> dict[str, Any]:
        settings = self._settings
        header = jwt.get_unverified_header(text)
        _check_header(header)
        key: str | PyJWK | None = self._fixed
        allowed = settings.jwt_algorithms
        if header.get("kid") == KEY_ID and self._development_key is not None:
            key, allowed = self._development_key, (ALGORITHM,)
        if header.get("alg") not in allowed:
            raise jwt.InvalidAlgorithmError
        if self._key_set is not None and key is None:
            key = await self._key_set.key(header.get("kid"))
        if key is None:
            raise jwt.InvalidSignatureError
        return jwt.decode(
            text,
            key,
            algorithms=list(allowed),
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            leeway=_LEEWAY,
            # an `aud` is refused where no audience is configured: RFC 7519, section 4.1.3
            options={"require": ["exp", "sub"]},
        )

    def _remember(self, text: str, token: Token, now: float) -> None:
        trusted_for = _TRUSTED_FOR
        if self._key_set is not None:
            trusted_for = min(trusted_for, self._key_set.fresh_for)
        self._verified[text] = token, min(token.expires_at, now + trusted_for)
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)


def _check_header(header: dict[str, Any]) -> None:
    """Refuses what is signed but no access token, and extensions (RFC 7515, sections 4.1.9 and 4.1.11)."""
    if "crit" in header:
        raise CriticalExtension
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise UnknownType


def _is_text(subject: str) -> bool:
    """False for half a surrogate pair, which JSON can hold and no database."""
    return subject.isascii() or subject.encode("utf-8", "replace").decode() == subject


def _read(claims: dict[str, Any]) -> Token:
    subject = claims["sub"]
    if not 1 <= len(subject) <= 200 or _CONTROL.search(subject) or not _is_text(subject):
        raise InvalidSubjectError
    expires_at = min(float(claims["exp"]), _FOREVER)
    if expires_at <= time.time():  # PyJWT has allowed it the leeway
        raise jwt.ExpiredSignatureError
    return Token(subject, expires_at)


def _reason(error: Exception) -> str:
    """What is wrong, without a word from the token itself."""
    for kind, reason in (
        (jwt.ExpiredSignatureError, "The token has expired: sign in again."),
        (
            jwt.ImmatureSignatureError,
            "The token is not valid yet: its nbf or iat is more than 30 s ahead of this service's clock.",
        ),
        (
            jwt.InvalidAudienceError,
            "The token is for another audience: its aud is not the one of TOCSIN_JWT_AUDIENCE.",
        ),
        (UnknownType, "The token's typ is neither JWT nor at+jwt."),
        (CriticalExtension, "The token's crit names an extension that is not known here."),
        (jwt.InvalidIssuerError, "The token is from another issuer."),
        (
            jwt.MissingRequiredClaimError,
            "The token needs the claims sub and exp (and aud, iss where they are set).",
        ),
        (InvalidSubjectError, "The token's sub is not a person's id of 1 to 200 characters."),
        (jwt.InvalidAlgorithmError, "The token's algorithm is not one that is allowed here."),
    ):
        if isinstance(error, kind):
            return reason
    return "The token is not one of ours: its signature or form is wrong."
