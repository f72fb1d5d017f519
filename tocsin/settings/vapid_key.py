"""The VAPID key in settings: by it the push services of browsers recognise this service (RFC 8292).

A path, or the content itself: a PEM, or the 43 characters of base64url in which tools for web push write a private key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from email.utils import parseaddr
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from tocsin.settings.keys import read_content

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

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
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = text.replace("\\n", "\n").strip()
    if not _RAW.fullmatch(content) and "-----BEGIN" not in content:
        content = read_content(text) or ""
    try:
        if _RAW.fullmatch(content):
            number = int.from_bytes(base64.urlsafe_b64decode(content.rstrip("=") + "="), "big")
            return ec.derive_private_key(number, ec.SECP256R1())
        key = load_pem_private_key(content.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"is neither a P-256 private key nor a file with one: {_CURE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError(f"is not a P-256 key: {_CURE}")
    return key


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
