"""The tag of a mail: its delivery with a proof that only this service can make, by which a report is tied to it.

It is in the Message-ID, in the header X-Tocsin-Delivery, and in the return path where that has a place for it. So a
report of a mail that came back names its delivery, and nobody can invent one.
"""

from __future__ import annotations

import hmac
import re

HEADER = "X-Tocsin-Delivery"
POSTMARK_TAG = "X-PM-Metadata-tocsin"
"""The header by which Postmark returns the tag, as its metadata `tocsin`; it replaces the Message-ID."""

_PROOF_CHARACTERS = 12
_TAG = re.compile(r"(?<![0-9A-Za-z])(\d{1,19})\.([0-9a-f]{12})(?![0-9A-Za-z])", re.ASCII)
_LAST_ID = 2**63 - 1
_MOST = 50  # tags that are verified of one text


def make_tag(key: bytes, delivery_id: int) -> str:
    """Returns the tag of a delivery: the same at each attempt; others can't guess it."""
    identity = f"message-id {delivery_id}".encode()
    proof = hmac.digest(key, identity, "sha256").hex()[:_PROOF_CHARACTERS]
    return f"{delivery_id}.{proof}"


def find_tagged_delivery(key: bytes, text: str) -> int | None:
    """Returns the delivery of the first genuine tag in a text, such as a Message-ID or a return path."""
    for count, found in enumerate(_TAG.finditer(text.lower())):
        if count >= _MOST:
            break
        delivery_id = int(found[1])
        if delivery_id <= _LAST_ID and hmac.compare_digest(make_tag(key, delivery_id), found[0]):
            return delivery_id
    return None
