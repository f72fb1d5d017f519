"""A mail's DKIM signature (RFC 6376): over all of its body and the headers that say what it is.

By `cryptography`, since the library that there is takes 20 ms of the event loop for a mail (ADR 0014).
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
"""Signed once more than they are there, so that nobody can add one: readers trust what these show."""

SIGNED = (
    *SEALED,
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "in-reply-to",
    "references",
    "list-id",
    "list-unsubscribe",  # RFC 8058 section 4: it and the next must be covered
    "list-unsubscribe-post",
    "auto-submitted",
    "feedback-id",
)
"""Signed where they are there."""

_FOLD = re.compile(rb"\r\n(?=[ \t])")


class Signer:
    """Signs with one private key (PEM), whose public half is at `selector._domainkey.domain`.

    It is read once; raises ValueError for one that DKIM does not know.
    """

    def __init__(self, *, pem: str, selector: str, domain: str) -> None:
        self._key = load_dkim_key(pem)
        algorithm = "rsa-sha256" if isinstance(self._key, RSAPrivateKey) else "ed25519-sha256"
        self._tags = f"v=1; a={algorithm}; c=relaxed/relaxed; d={domain};\r\n\ts={selector}"

    def sign(self, message: bytes, *, now: datetime) -> bytes:
        """The header to put before a finished message, which has CRLF at each line's end."""
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
    """The names to sign, each as often as it is signed, and what is signed of them (section 5.4.2)."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for line in _FOLD.sub(b"", head).split(b"\r\n"):
        header = _canonical_header(line)
        found[header.partition(b":")[0].decode("ascii")].append(header + b"\r\n")
    names: list[str] = []
    signed: list[bytes] = []
    for name in SIGNED:
        names += [name] * (len(found[name]) + (name in SEALED))
        signed += reversed(found[name])  # the lowest first
    return names, b"".join(signed)


def _canonical_header(header: bytes) -> bytes:
    """Section 3.4.2, without the line's end."""
    name, _, value = _FOLD.sub(b"", header).partition(b":")
    return name.strip().lower() + b":" + _single_spaces(value).strip(b" ")


def _canonical_body(body: bytes) -> bytes:
    """Section 3.4.4."""
    lines = _single_spaces(body).replace(b" \r\n", b"\r\n").rstrip(b"\r\n")
    return lines + b"\r\n" if lines else b""


def _single_spaces(text: bytes) -> bytes:
    """Each run of spaces and tabs as one space; a regular expression takes several times as long."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _in_lines(names: list[str]) -> str:
    """Names with colons between them, folded."""
    rows = (names[at : at + 5] for at in range(0, len(names), 5))
    return ":\r\n\t ".join(":".join(row) for row in rows)
