"""Message encryption for Web Push (RFC 8291) in the content coding aes128gcm (RFC 8188), in one record.

Every primitive is cryptography's; docs/adr/0073-web-push.md has the reasons against a package of its own.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

MOST_BYTES = 3993
"""Of a plaintext: with header, delimiter and tag it is the 4,096 bytes that every push service accepts."""

RECORD_SIZE = 4096
SALT_BYTES, AUTH_BYTES, POINT_BYTES = 16, 16, 65

_LAST_RECORD = b"\x02"  # the delimiter of the only record, without padding (RFC 8188 section 2)


class ReceiverKeys(Struct, frozen=True):
    """The keys of one subscription: a point of P-256 and a shared secret of 16 bytes."""

    point: bytes
    auth: bytes


def read_receiver_keys(p256dh: str, auth: str) -> ReceiverKeys:
    """Returns the keys that a browser gave in base64url; raises ValueError."""
    point, secret = _decoded(p256dh), _decoded(auth)
    if len(point) != POINT_BYTES or len(secret) != AUTH_BYTES:
        raise ValueError("not the keys of a subscription")
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)  # is it on the curve?
    return ReceiverKeys(point, secret)


def encrypt(
    plaintext: bytes,
    keys: ReceiverKeys,
    *,
    salt: bytes | None = None,
    sender: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Returns the body of a push message. `salt` and `sender` are new for each message, but for a test vector."""
    salt = salt or os.urandom(SALT_BYTES)
    sender = sender or ec.generate_private_key(ec.SECP256R1())
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), keys.point)
    sent = sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = sender.exchange(ec.ECDH(), receiver)
    key, nonce = derive(shared, keys, sent, salt)
    header = salt + RECORD_SIZE.to_bytes(4, "big") + bytes([len(sent)]) + sent
    return header + AESGCM(key).encrypt(nonce, plaintext + _LAST_RECORD, None)


def derive(shared: bytes, keys: ReceiverKeys, sent: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Returns the key and the nonce of a message (RFC 8291 section 3.4); `sent` is the sender's point."""
    info = b"WebPush: info\0" + keys.point + sent
    secret = HKDF(SHA256(), 32, keys.auth, info).derive(shared)
    key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
    nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
    return key, nonce


def _decoded(text: str) -> bytes:
    """Returns the bytes of base64url, with or without its padding; raises ValueError."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", True)
    except binascii.Error:
        raise ValueError("not base64url") from None
