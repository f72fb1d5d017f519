"""A mail's DKIM signature (RFC 6376), over its whole body and the headers that people and mail servers rely on.

Made with `cryptography`, since dkimpy takes 20 ms of the event loop for a mail (ADR 0014).
Both canonicalizations are "relaxed": relays may fold headers and trim spaces.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from datetime import datetime
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from tocsin.settings.keys import load_dkim_key

SEALED = ("from", "to", "cc", "reply-to", "subject", "date", "message-id")
"""Signed once more than they occur, so that another one can't be added: readers trust these."""

SIGNED = (
    *SEALED,
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "in-reply-to",
    "references",
    "list-id",
    "list-unsubscribe",  # RFC 8058 section 4: this and the next must be signed
    "list-unsubscribe-post",
    "auto-submitted",
    "feedback-id",
)
"""Signed if they occur."""

_FOLD = re.compile(rb"\r\n(?=[ \t])")


class Signer:
    """Signs with one private key (PEM), whose public key is at `selector._domainkey.domain`.

    Raises ValueError for a key that DKIM does not support.
    """

    def __init__(self, *, pem: str, selector: str, domain: str) -> None:
        self._key = load_dkim_key(pem)
        algorithm = "rsa-sha256" if isinstance(self._key, RSAPrivateKey) else "ed25519-sha256"
        self._tags = f"v=1; a={algorithm}; c=relaxed/relaxed; d={domain};\r\n\ts={selector}"

    def sign(self, message: bytes, *, now: datetime) -> bytes:
        """Returns the header to put before a complete message, whose lines end in CRLF."""
        head, _, body = message.partition(b"\r\n\r\n")
        names, lines = _canonical_headers(head)
        body_hash = base64.b64encode(sha256(_canonical_body(body)).digest()).decode()
        unsigned = (
            f"DKIM-Signature: {self._tags}; t={int(now.timestamp())};\r\n\th={_in_lines(names)};\r\n"
            f"\tbh={body_hash};\r\n\tb="
        ).encode()
        signature = base64.b64encode(self._sign(lines + _canonical_header(unsigned)))
        pieces = (signature[at : at + 72] for at in range(0, len(signature), 72))
        return unsigned + b"\r\n\t ".join(pieces) + b"\r\n"

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(data, PKCS1v15(), SHA256())
        return self._key.sign(sha256(data).digest())  # RFC 8463 section 3: of the hash


def _canonical_headers(head: bytes) -> tuple[list[str], bytes]:
    """Returns the names to sign, each as often as it is signed, and the signed lines (section 5.4.2)."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for line in _FOLD.sub(b"", head).split(b"\r\n"):
        header = _canonical_header(line)
        found[header.partition(b":")[0].decode("ascii")].append(header + b"\r\n")
    names: list[str] = []
    signed: list[bytes] = []
    for name in SIGNED:
        names += [name] * (len(found[name]) + (name in SEALED))
        signed += reversed(found[name])  # the last one first
    return names, b"".join(signed)


def _canonical_header(header: bytes) -> bytes:
    """Returns a header by section 3.4.2, without its line ending."""
    name, _, value = _FOLD.sub(b"", header).partition(b":")
    return name.strip().lower() + b":" + _single_spaces(value).strip(b" ")


def _canonical_body(body: bytes) -> bytes:
    """Returns a body by section 3.4.4."""
    lines = _single_spaces(body).replace(b" \r\n", b"\r\n").rstrip(b"\r\n")
    return lines + b"\r\n" if lines else b""


def _single_spaces(text: bytes) -> bytes:
    """Returns each run of spaces and tabs as one space; a regular expression takes several times as long."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _in_lines(names: list[str]) -> str:
    """Returns names with colons between them, folded."""
    rows = (names[at : at + 5] for at in range(0, len(names), 5))
    return ":\r\n\t ".join(":".join(row) for row in rows)
