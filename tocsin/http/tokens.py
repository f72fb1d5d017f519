"""People's tokens: the host app's JWTs (RFC 7519, by the advice of RFC 8725), and the keys that verify them.

PyJWT takes 50 µs for a token that a shared secret signed, of which the hash takes 2, and clients call thousands of
times a second. `SharedSecret` either accepts such a token, by PyJWT's rules or stricter ones, or returns None, and
PyJWT decides. So it refuses nothing, and each refusal has PyJWT's reason.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import ssl
import time
from binascii import a2b_base64, b2a_base64
from collections import OrderedDict
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import jwt
import msgspec
import structlog
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import InvalidKeyError, InvalidSubjectError, PyJWKSetError, PyJWTError
from msgspec import Struct

from tocsin.engine.model import NotFound, Unavailable
from tocsin.http.errors import Unauthorized
from tocsin.settings import Settings
from tocsin.settings.addresses import is_untampered
from tocsin.settings.keys import SHARED
from tocsin.settings.running_instance import ALGORITHM, KEY_ID, sign_token

_LONGEST = 8192  # characters; servers refuse longer headers anyway
_REMEMBERED = 20_000  # tokens
_TRUSTED_FOR = 300.0  # seconds; then a key that its provider withdrew is no longer accepted
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOREVER = 253402300799.0  # the end of the year 9999
_LEEWAY = 30.0  # seconds that clocks may differ by, for nbf and iat; exp has none, since streams end at it
_TYPES = frozenset({"jwt", "at+jwt"})  # of RFC 7519 and RFC 9068
_HASHES = {name: f"sha{name.removeprefix('HS')}" for name in SHARED}
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # "!" is refused, as what base64url does not have


class UnknownType(jwt.InvalidTokenError):
    """The header's `typ` is of something else that is signed, such as an ID token's logout token."""


class CriticalExtension(jwt.InvalidTokenError):
    """The header has `crit`, and no extension is known here."""


class Token(Struct, frozen=True):
    """The claims of a verified token: the person, and its end (a POSIX time)."""

    recipient_id: str
    expires_at: float


class TokenVerifier:
    """Verifies tokens, and remembers those it verified: a signature costs 10 to 300 times as much as a look-up."""

    def __init__(self, settings: Settings, development_key: str | None = None) -> None:
        self._settings = settings
        self._development_key = development_key  # under `tocsin up` alone
        self._fixed = settings.jwt_secret or settings.jwt_public_key
        self._shared = _shared_secret(settings) if development_key is None else None
        self._key_set = (
            KeySet(settings.jwks_url, ca_file=settings.ca_file) if settings.jwks_url else None
        )
        # the least recently used first
        self._verified: OrderedDict[str, tuple[Token, float]] = OrderedDict()

    async def verify(self, text: str) -> Token:
        """Returns the claims; raises Unauthorized, or Unavailable when its key can't be read."""
        known = self.verify_at_once(text)
        if known is not None:
            return known
        now = time.time()
        if len(text) > _LONGEST:
            raise Unauthorized("The token is too long.", error="invalid_token")
        try:
            claims = await self._decode(text)
            token = _read(claims["sub"], claims["exp"])
        except (PyJWTError, ArithmeticError, ValueError, RecursionError) as error:
            # besides its own errors, those that a hostile header or claim causes in Python's JSON and numbers
            raise Unauthorized(_reason(error), error="invalid_token") from None
        self._remember(text, token, now)
        return token

    def verify_at_once(self, text: str) -> Token | None:
        """Returns the claims of a token that is valid beyond doubt; None where `verify` has to decide."""
        known = self.remembered(text)
        if known is not None or self._shared is None or len(text) > _LONGEST:
            return known
        now = time.time()
        claims = self._shared.accept(text, now)
        if claims is None:
            return None
        try:
            token = _read(claims.sub, claims.exp)
        except (PyJWTError, ArithmeticError):
            return None
        self._remember(text, token, now)
        return token

    def remembered(self, text: str) -> Token | None:
        """Returns the claims of a token that was verified a while ago and is still valid, or None."""
        known = self._verified.get(text)
        if known is None or time.time() >= known[1]:
            return None
        self._verified.move_to_end(text)
        return known[0]

    def sign_for_development(self, recipient_id: str) -> str:
        """Returns a token that this process accepts; raises NotFound where it does not run under `tocsin up`."""
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


def _shared_secret(settings: Settings) -> SharedSecret | None:
    if settings.jwt_secret is None:
        return None
    return SharedSecret(
        settings.jwt_secret,
        settings.jwt_algorithms,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        leeway=_LEEWAY,
    )


def _check_header(header: dict[str, Any]) -> None:
    """Refuses what is signed but no access token, and extensions (RFC 7515, sections 4.1.9 and 4.1.11)."""
    if "crit" in header:
        raise CriticalExtension
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise UnknownType


def _is_text(subject: str) -> bool:
    """Returns false for half a surrogate pair, which JSON can hold and a database cannot."""
    return subject.isascii() or subject.encode("utf-8", "replace").decode() == subject


def _read(subject: str, end: float) -> Token:
    if not 1 <= len(subject) <= 200 or _CONTROL.search(subject) or not _is_text(subject):
        raise InvalidSubjectError
    expires_at = min(float(end), _FOREVER)
    if expires_at <= time.time():  # PyJWT has allowed it the leeway
        raise jwt.ExpiredSignatureError
    return Token(subject, expires_at)


def _reason(error: Exception) -> str:
    """Returns what is wrong, without a word from the token itself."""
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


_FRESH = 300.0  # seconds until the set is read again
_PAUSE = 10.0  # between two reads, so that tokens with invented key ids do not cause many requests to the provider
_TIMEOUT = 5
_LARGEST = 1_000_000  # bytes of a key set

log = structlog.get_logger("tocsin.http")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows no redirect to plain http, where anybody on the way could put in a key of their own."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not is_untampered(newurl):
            raise URLError("a redirect to plain http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class KeySet:
    """The keys behind one JWKS address."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        self._url = url
        self._opener = build_opener(
            _SafeRedirects, HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))
        )
        self._keys: dict[str | None, PyJWK] = {}
        self._tried_at = -_FRESH
        self._readable = False
        self._reading = asyncio.Lock()

    @property
    def fresh_for(self) -> float:
        """Seconds until the set is read again: a key that its provider withdrew is accepted no longer than that."""
        return max(0.0, self._tried_at + _FRESH - time.monotonic())

    async def key(self, key_id: str | None) -> PyJWK | None:
        """Returns the key of that id, or None; raises Unavailable where the provider of keys is down."""
        age = time.monotonic() - self._tried_at
        found = self._find(key_id)
        if age > _FRESH or (found is None and age > _PAUSE):
            await self._refresh()
            found = self._find(key_id)
        if found is None and not self._readable:
            raise Unavailable("the key set can't be read")
        return found

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        before = self._tried_at
        async with self._reading:
            if self._tried_at != before:  # another call has just read it
                return
            try:
                self._keys = await asyncio.to_thread(self._read)
                self._readable = True
            except (PyJWTError, ValueError, OSError, HTTPException) as error:
                self._readable = False
                log.warning(
                    "the JWKS can't be read", error=type(error).__name__, kept=len(self._keys)
                )
            self._tried_at = time.monotonic()

    def _read(self) -> dict[str | None, PyJWK]:
        data = self._fetch()
        if not isinstance(data, dict):
            raise PyJWKSetError("not a key set")
        return {
            key.key_id: key
            for key in PyJWKSet.from_dict(data).keys
            if key.public_key_use in (None, "sig")
        }

    def _fetch(self) -> object:
        with self._opener.open(self._url, timeout=_TIMEOUT) as response:
            text = response.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise PyJWKSetError("the key set is too large")
        found: object = json.loads(text)
        return found


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The header of an ordinary access token: nothing else is expected in it."""

    alg: str
    typ: Literal["JWT", "jwt", "at+jwt"] = "JWT"
    kid: str = ""


class Claims(Struct, frozen=True):
    """The claims that are checked; one of another type, such as an `aud` that is a list, leaves the token to PyJWT."""

    sub: str
    exp: int | float
    nbf: int | float = 0
    iat: int | float = 0
    aud: str | None = None
    iss: str | None = None
    jti: str = ""


_header = msgspec.json.Decoder(Header).decode
_claims = msgspec.json.Decoder(Claims).decode


class SharedSecret:
    """Accepts the tokens of one secret, with these algorithms, this audience and this issuer."""

    def __init__(
        self,
        secret: str,
        algorithms: tuple[str, ...],
        *,
        audience: str | None,
        issuer: str | None,
        leeway: float,
    ) -> None:
        self._key = secret.encode()
        self._hashes = {name: _HASHES[name] for name in algorithms if _is_usable(name, secret)}
        self._audience, self._issuer, self._leeway = audience, issuer, leeway

    def accept(self, text: str, now: float) -> Claims | None:
        """Returns the claims of a token that is valid beyond doubt; None where PyJWT has to decide."""
        try:
            header, body, signature = text.encode("ascii").split(b".")
            name = self._hashes.get(_header(_decoded(header)).alg)
            if name is None:
                return None
            digest = hmac.digest(self._key, b"%b.%b" % (header, body), name)
            if not hmac.compare_digest(_encoded(digest), signature):
                return None
            claims = _claims(_decoded(body))
        except (ValueError, RecursionError):
            return None
        return claims if self._are_valid(claims, now) else None

    def _are_valid(self, claims: Claims, now: float) -> bool:
        return (
            claims.exp > now
            and claims.nbf <= now + self._leeway
            and claims.iat <= now + self._leeway
            and claims.aud == self._audience
            and (self._issuer is None or claims.iss == self._issuer)
        )


def _is_usable(algorithm: str, secret: str) -> bool:
    """Returns false for an algorithm without a secret, and for a public key as a secret, which PyJWT refuses."""
    if algorithm not in _HASHES:
        return False
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(secret)
    except InvalidKeyError:
        return False
    return True


def _decoded(segment: bytes) -> str:
    """Returns the text of base64url without padding; raises ValueError for any other way to write it."""
    text = segment.translate(_FROM_URL) + b"=" * (-len(segment) % 4)
    content = a2b_base64(text, strict_mode=True)
    if b2a_base64(content, newline=False) != text:  # bits that are set beyond the last byte
        raise ValueError
    return content.decode()


def _encoded(content: bytes) -> bytes:
    return b2a_base64(content, newline=False).translate(_TO_URL).rstrip(b"=")
