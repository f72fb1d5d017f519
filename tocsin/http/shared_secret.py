"""The quick check of a token that a shared secret signed.

PyJWT takes 50 µs for such a token, of which the hash takes 2, and clients call thousands of times a second. Here a
token is either accepted, by PyJWT's rules or stricter ones, or None is returned and PyJWT decides. So nothing is
refused here, and each refusal has PyJWT's reason.
"""

from __future__ import annotations

import hmac
from binascii import a2b_base64, b2a_base64
from typing import Literal

import jwt
import msgspec
from jwt.exceptions import InvalidKeyError
from msgspec import Struct

from tocsin.settings.keys import SHARED

_HASHES = {name: f"sha{name.removeprefix('HS')}" for name in SHARED}
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # "!" is refused, as what base64url does not have


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
