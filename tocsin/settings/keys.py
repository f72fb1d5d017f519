"""Keys, certificates and accounts in settings: of people's tokens, DKIM, APNs, FCM and Web Push. A path or the content.

Settings that belong together are read by one function: it gets the texts by name, and raises a ValueError whose one
line names the setting at fault.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from msgspec import Struct

from tocsin.settings.addresses import is_untampered

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


T = TypeVar("T")

SHARED = frozenset({"HS256", "HS384", "HS512"})
PUBLIC = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
SECRET_BYTES = 32  # RFC 7518 §3.2: an HS256 key is at least as long as its hash
RSA_BITS = range(1024, 4096 + 1)  # what every verifier must take (RFC 8301 section 3.2)

_APNS = ("APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC")
_ACCOUNT_KEYS = ("project_id", "client_email", "private_key", "token_uri")
_NAME = re.compile(
    r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?)*"
)


class DkimKey(Struct, frozen=True):
    """A private key that signs mails. Its public half is at `selector._domainkey.domain`."""

    pem: str
    selector: str
    domain: str

    def __repr__(self) -> str:
        """Returns a text without the key."""
        return f"DkimKey(selector={self.selector!r}, domain={self.domain!r})"


class ApnsKey(Struct, frozen=True):
    """The credentials of an app's server at Apple."""

    pem: str
    key_id: str
    team_id: str
    topic: str

    def __repr__(self) -> str:
        """Returns a text without the key."""
        return f"ApnsKey(key_id={self.key_id!r}, team_id={self.team_id!r}, topic={self.topic!r})"


def read_jwt_keys(texts: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
    """Reads the key of people's tokens, of which there is at most one, and which algorithms go with it, by field."""
    given = [name for name in _JWT_KEYS if name in texts]
    if len(given) > 1:
        raise ValueError(f"TOCSIN_{given[1]} and TOCSIN_{given[0]} are both set: keep one")
    key = given[0] if given else None
    parsed = {name.lower(): _named(name, _JWT_KEYS[name], texts[name]) for name in given}
    return {**parsed, "jwt_algorithms": _algorithms(texts.get("JWT_ALGORITHMS"), key)}


def read_dkim_key(texts: Mapping[str, str], *, email_from: str) -> DkimKey | None:
    """Reads key, selector and domain; None where none of them is set."""
    if not texts.keys() & {"DKIM_KEY", "DKIM_SELECTOR", "DKIM_DOMAIN"}:
        return None
    for name in ("DKIM_KEY", "DKIM_SELECTOR"):
        if name not in texts:
            raise ValueError(
                f"TOCSIN_{name} is not set: DKIM needs TOCSIN_DKIM_KEY and TOCSIN_DKIM_SELECTOR"
            )
    return DkimKey(
        pem=_named("DKIM_KEY", _dkim_pem, texts["DKIM_KEY"]),
        selector=_named("DKIM_SELECTOR", to_dns_name, texts["DKIM_SELECTOR"]),
        domain=_dkim_domain(texts.get("DKIM_DOMAIN"), email_from),
    )


def read_apns_key(texts: Mapping[str, str]) -> ApnsKey | None:
    """Reads all four settings of APNs; None where none of them is set."""
    if not texts.keys() & set(_APNS):
        return None
    for name in _APNS:
        if name not in texts:
            raise ValueError(
                f"TOCSIN_{name} is not set: APNs needs {', '.join(f'TOCSIN_{each}' for each in _APNS)}"
            )
    pem, key_id, team_id, topic = (texts[name] for name in _APNS)
    return ApnsKey(_named("APNS_KEY", _apns_pem, pem), key_id, team_id, topic)


def read_content(text: str) -> str | None:
    """Returns the content of the file named `text`, or None where there is no such file; raises ValueError."""
    path = os.path.expanduser(text)
    if not os.path.isfile(path):  # unlike Path.is_file, False for a text too long for a path
        return None
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("names a file that can't be read as text") from None


def parse_metrics_token(text: str) -> str:
    """Returns the token that opens `/metrics`; raises ValueError."""
    token = _secret_text(text)
    if not (
        16 <= len(token) <= 200 and token.isascii() and token.isprintable() and " " not in token
    ):
        raise ValueError(
            "must be 16 to 200 ASCII characters without blanks: try openssl rand -hex 24"
        )
    return token


def parse_ca_file(text: str) -> Path:
    """Returns the path of a PEM file with certificates; raises ValueError."""
    file = Path(text).expanduser()
    try:
        holds_one = b"-----BEGIN CERTIFICATE-----" in file.read_bytes()
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror}): name a PEM file") from None
    if not holds_one:
        raise ValueError("holds no PEM certificate")
    return file


def parse_service_account(text: str) -> dict[str, Any]:
    """Reads Google's JSON; raises ValueError, which never quotes any of it."""
    content = text if text.lstrip().startswith("{") else read_content(text)
    if content is None:
        raise ValueError("is neither a service account's JSON nor a file that is there")
    try:
        account = json.loads(content)
    except ValueError:
        raise ValueError("holds no JSON") from None
    if not isinstance(account, dict):
        raise ValueError("holds no JSON object")
    if missing := [key for key in _ACCOUNT_KEYS if not isinstance(account.get(key), str)]:
        raise ValueError(f"has no {missing[0]}: it must be a service account's JSON")
    from google.oauth2.service_account import Credentials  # takes a tenth of a second

    try:
        Credentials.from_service_account_info(account)
    except ValueError:
        raise ValueError("has a private_key that can't be read: download the JSON again") from None
    return account


def load_dkim_key(pem: str) -> RSAPrivateKey | Ed25519PrivateKey:
    """Returns the private key in `pem`; raises ValueError where DKIM does not know its kind."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = _private_key(pem, "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")
    if isinstance(key, RSAPrivateKey) and key.key_size not in RSA_BITS:
        raise ValueError(
            f"has {key.key_size} bits: RSA needs {RSA_BITS[0]} to {RSA_BITS[-1]}, best 2048"
        )
    if isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        return key
    raise ValueError("is neither an RSA nor an Ed25519 key")


def load_apns_key(pem: str) -> EllipticCurvePrivateKey:
    """Returns the private key in `pem`, which is Apple's .p8 file; raises ValueError."""
    key = _private_key(pem, "is not a private key in PEM form, as Apple's .p8 files are")
    if not _is_p256(key):
        raise ValueError("is not a P-256 key, as Apple's .p8 files hold")
    return cast("EllipticCurvePrivateKey", key)


def _private_key(pem: str, cure: str) -> Any:
    """Returns the private key in `pem`; raises ValueError with the cure."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem.strip().encode(), None)
    except TypeError:
        raise ValueError("is encrypted: give it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(cure) from None


def _is_p256(key: Any) -> bool:
    return getattr(getattr(key, "curve", None), "name", None) == "secp256r1"


def load_p256_public_key(text: str) -> EllipticCurvePublicKey:
    """Returns the public key in PEM, or in base64 as SendGrid shows it; raises ValueError."""
    cure = "is not a P-256 public key, in PEM or as SendGrid shows it"
    if "-----BEGIN" not in text:
        text = f"-----BEGIN PUBLIC KEY-----\n{''.join(text.split())}\n-----END PUBLIC KEY-----"
    key = _public_key_in(text, cure)
    if not _is_p256(key):
        raise ValueError(cure)
    return cast("EllipticCurvePublicKey", key)


def _public_key_in(pem: str, cure: str) -> PublicKeyTypes:
    """Returns the public key in `pem`; raises ValueError with the cure."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(cure) from None


def parse_p256_public_key(text: str) -> str:
    """Returns the text of such a key, or of the file that is named; raises ValueError."""
    content = read_content(text) or text.replace("\\n", "\n")
    load_p256_public_key(content)
    return content


def parse_shared_secret(text: str) -> str:
    """Returns a secret that a provider sends or signs with, or the content of the file that is named."""
    secret = _secret_text(text)
    if not (16 <= len(secret) <= 200 and secret.isascii() and secret.isprintable()):
        raise ValueError("must be 16 to 200 ASCII characters: try openssl rand -hex 24")
    return secret


def to_dns_name(text: str) -> str:
    """Returns a selector or a domain as DNS has it (IDNA 2008); raises ValueError."""
    import idna

    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("is no name of DNS") from None
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise ValueError("is no name of DNS")
    return name


def _named(name: str, parse: Callable[[str], T], text: str) -> T:
    """Returns what `parse` returns; its ValueError begins with the setting's name."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"TOCSIN_{name} {error}") from None


def _secret_text(text: str) -> str:
    """Returns the secret itself, or the content of the file that is named."""
    content = read_content(text)
    if content is None and text.startswith(("/", "./", "~/")):
        # A mistyped path, which anyone could guess, must not become the secret.
        raise ValueError("looks like a path, but there is no such file")
    return text if content is None else content


def _jwt_secret(text: str) -> str:
    secret = _secret_text(text)
    if len(secret.encode()) < SECRET_BYTES:
        raise ValueError(f"must be at least {SECRET_BYTES} bytes: try openssl rand -base64 48")
    return secret


def _public_key(text: str) -> str:
    pem = _pem(text, "a PEM public key")
    if "PRIVATE KEY" in pem:
        raise ValueError("is a private key: give its public half only")
    _public_key_in(pem, "holds no PEM public key (-----BEGIN PUBLIC KEY-----)")
    return pem


def _jwks_url(text: str) -> str:
    cure = "must be absolute, such as https://login.example.com/jwks.json"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(cure) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(cure)
    if not is_untampered(text):  # an attacker on the network could put in a key of their own
        raise ValueError(
            "must be https: plain http is for this machine alone (127.0.0.1, localhost)"
        )
    return text


_JWT_KEYS: Mapping[str, Callable[[str], str]] = {
    "JWT_SECRET": _jwt_secret,
    "JWT_PUBLIC_KEY": _public_key,
    "JWKS_URL": _jwks_url,
}


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


def _dkim_pem(text: str) -> str:
    pem = _pem(text, "a private key in PEM")
    load_dkim_key(pem)
    return pem


def _dkim_domain(text: str | None, email_from: str) -> str:
    """Returns the domain of the signature, aligned with the sender's as DMARC asks (RFC 7489 section 3.1.1)."""
    sender = _named("EMAIL_FROM", to_dns_name, parseaddr(email_from)[1].rpartition("@")[2])
    domain = _named("DKIM_DOMAIN", to_dns_name, text) if text else sender
    if "." not in domain:
        raise ValueError(
            f"TOCSIN_DKIM_DOMAIN can't be {domain}: DKIM needs a domain of DNS, such as that of TOCSIN_EMAIL_FROM"
        )
    if not f".{sender}".endswith(f".{domain}") and not domain.endswith(f".{sender}"):
        raise ValueError(
            f"TOCSIN_DKIM_DOMAIN is {domain}, but mails are from {sender} (TOCSIN_EMAIL_FROM):"
            " name that domain, or one above or below it"
        )
    return domain


def _apns_pem(text: str) -> str:
    pem = _pem(text, "a .p8 key")
    load_apns_key(pem)
    return pem


def _pem(text: str, what: str) -> str:
    # Some ways to set a variable can't hold a line break and write \n for it.
    pem = text.replace("\\n", "\n").strip() if "-----BEGIN" in text else read_content(text)
    if pem is None:
        raise ValueError(f"is neither {what} nor a file that is there")
    return pem


_RAW = re.compile(r"[A-Za-z0-9_-]{43}=?")
_CURE = "make one with `tocsin vapid-key`"


class VapidKey(Struct, frozen=True):
    """A P-256 private key as base64url, and the contact that push services may write to."""

    private: str
    subject: str

    def __repr__(self) -> str:
        """Returns a text without the key."""
        return f"VapidKey(subject={self.subject!r})"

    @property
    def public(self) -> str:
        """The public key as browsers take it (`applicationServerKey`): an uncompressed point in base64url."""
        return public_key(load_vapid_key(self.private))


def read_vapid_key(texts: Mapping[str, str], *, email_from: str) -> VapidKey | None:
    """Reads key and subject; None where there is no key. Raises ValueError with the setting's name."""
    if "VAPID_KEY" not in texts:
        if "VAPID_SUBJECT" in texts:
            raise ValueError(f"TOCSIN_VAPID_KEY is not set, but TOCSIN_VAPID_SUBJECT is: {_CURE}")
        return None
    try:
        key = load_vapid_key(texts["VAPID_KEY"])
    except ValueError as error:
        raise ValueError(f"TOCSIN_VAPID_KEY {error}") from None
    subject = texts.get("VAPID_SUBJECT") or f"mailto:{parseaddr(email_from)[1]}"
    if not _is_contact(subject):
        raise ValueError(
            "TOCSIN_VAPID_SUBJECT must be mailto: with an address, or an https:// page: "
            "push services write to it when something is wrong"
        )
    return VapidKey(private_key(key), subject)


def load_vapid_key(text: str) -> EllipticCurvePrivateKey:
    """Returns the key in a text, or in the file that it names; raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec

    content = text.replace("\\n", "\n").strip()
    if not _RAW.fullmatch(content) and "-----BEGIN" not in content:
        content = read_content(text) or ""
    cure = f"is neither a P-256 private key nor a file with one: {_CURE}"
    if not _RAW.fullmatch(content):
        key = _private_key(content, cure)
        if not _is_p256(key):
            raise ValueError(f"is not a P-256 key: {_CURE}")
        return cast("EllipticCurvePrivateKey", key)
    number = int.from_bytes(base64.urlsafe_b64decode(content.rstrip("=") + "="), "big")
    try:
        return ec.derive_private_key(number, ec.SECP256R1())
    except ValueError:
        raise ValueError(cure) from None


def new_vapid_key() -> str:
    """Returns a new private key as base64url."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return private_key(ec.generate_private_key(ec.SECP256R1()))


def private_key(key: EllipticCurvePrivateKey) -> str:
    """Returns a private key as base64url."""
    number = key.private_numbers().private_value
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")


def public_key(key: EllipticCurvePrivateKey) -> str:
    """Returns the public half of a key as browsers take it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).decode().rstrip("=")


def _is_contact(subject: str) -> bool:
    """Returns whether push services accept it as `sub` (RFC 8292 section 2.1)."""
    if not subject.isascii() or not subject.isprintable() or " " in subject:
        return False
    try:
        parts = urlsplit(subject)
    except ValueError:
        return False
    if parts.scheme == "mailto":
        name, _, domain = parts.path.partition("@")
        return bool(name and domain)
    return parts.scheme == "https" and bool(parts.hostname)
