"""The keys that people's tokens are verified with: one kind of key, and only its own algorithms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from tocsin.settings.addresses import is_untampered

SHARED = frozenset({"HS256", "HS384", "HS512"})
PUBLIC = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
SECRET_BYTES = 32  # RFC 7518 §3.2: an HS256 key is at least as long as its hash


class JwtKeys(Struct, frozen=True):
    """At most one of the three, and the algorithms that go with it."""

    secret: str | None
    public_key: str | None
    jwks_url: str | None
    algorithms: tuple[str, ...]


def read_jwt_keys(value: Callable[[str], str | None]) -> JwtKeys:
    """Reads TOCSIN_JWT_… and TOCSIN_JWKS_URL through `value(name)`; ValueError is one line with the name in it."""
    given = [name for name in ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL") if value(name)]
    if len(given) > 1:
        raise ValueError(f"TOCSIN_{given[1]} and TOCSIN_{given[0]} are both set: keep one")
    secret, public_key, jwks_url = map(value, ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL"))
    return JwtKeys(
        _secret(secret) if secret else None,
        _public_key(public_key) if public_key else None,
        _jwks_url(jwks_url) if jwks_url else None,
        _algorithms(value("JWT_ALGORITHMS"), given[0] if given else None),
    )


def _secret(text: str) -> str:
    secret = _content("TOCSIN_JWT_SECRET", text)
    if secret is None and text.startswith(("/", "./", "~/")):
        # A mistyped path, which anyone could guess, must not become the secret.
        raise ValueError("TOCSIN_JWT_SECRET looks like a path, but there is no such file")
    secret = text if secret is None else secret
    if len(secret.encode()) < SECRET_BYTES:
        raise ValueError(
            f"TOCSIN_JWT_SECRET must be at least {SECRET_BYTES} bytes: try openssl rand -base64 48"
        )
    return secret


def _public_key(text: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    # Some ways to set a variable can't hold a line break and write \n for it.
    pem = (
        text.replace("\\n", "\n")
        if "-----BEGIN" in text
        else _content("TOCSIN_JWT_PUBLIC_KEY", text)
    )
    if pem is None:
        raise ValueError(
            "TOCSIN_JWT_PUBLIC_KEY is neither a PEM public key nor a file that is there"
        )
    if "PRIVATE KEY" in pem:
        raise ValueError("TOCSIN_JWT_PUBLIC_KEY is a private key: give its public half only")
    try:
        load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "TOCSIN_JWT_PUBLIC_KEY holds no PEM public key (-----BEGIN PUBLIC KEY-----)"
        ) from None
    return pem


def _content(name: str, text: str) -> str | None:
    try:
        return read_content(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def read_content(text: str) -> str | None:
    """What the file named `text` holds, or None when there is no such file; raises ValueError."""
    path = os.path.expanduser(text)
    if not os.path.isfile(
        path
    ):  # unlike Path.is_file, False also for what is too long to be a path
        return None
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("names a file that can't be read as text") from None


def _jwks_url(text: str) -> str:
    cure = "TOCSIN_JWKS_URL must be absolute, such as https://login.example.com/jwks.json"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(cure) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(cure)
    if not is_untampered(text):  # an attacker on the network could put in a key of their own
        raise ValueError(
            "TOCSIN_JWKS_URL must be https: plain http is for this machine alone (127.0.0.1, localhost)"
        )
    return text


def _algorithms(text: str | None, key: str | None) -> tuple[str, ...]:
    allowed = PUBLIC | SHARED if key is None else SHARED if key == "JWT_SECRET" else PUBLIC
    if text is None:
        return ("HS256",) if key == "JWT_SECRET" else ("RS256", "ES256") if key else ()
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    for name in names:
        if name not in SHARED | PUBLIC:
            raise ValueError(
                f"TOCSIN_JWT_ALGORITHMS has {name[:20]!r}: use {', '.join(sorted(SHARED | PUBLIC))}"
            )
        if name not in allowed:
            raise ValueError(
                f"TOCSIN_JWT_ALGORITHMS has {name}, which does not go with TOCSIN_{key}"
            )
    if SHARED & set(names) and PUBLIC & set(names):
        # A public key would then be taken as the shared secret of a forged HS256 token.
        raise ValueError("TOCSIN_JWT_ALGORITHMS mixes HS… with RS… or ES…: keep one kind")
    return names
