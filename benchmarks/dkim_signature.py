"""Milliseconds for which a DKIM signature blocks the event loop: ours and dkimpy's, RSA-2048 and Ed25519, interleaved.

The mails are a single one as tests/support/sample_mails.py has it, and the longest, a digest. dkimpy reads its key for
each mail.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import dkim
from bench import cpu_limit
from bench.record import Goal, Record, keep
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tocsin.engine.actors.email_mime import SEALED, SIGNED, Signer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROUNDS, MAILS = 9, 20

Sign = Callable[[bytes], object]


def signers() -> dict[str, Sign]:
    """Returns each signing method, by its name."""
    from tests.support.sample_mails import private_pem

    rsa, edwards = private_pem(), Ed25519PrivateKey.generate()
    pem = edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    seed = base64.b64encode(edwards.private_bytes_raw())

    def ours(pem: str) -> Sign:
        signer = Signer(pem=pem, selector="s", domain="example.com")
        return lambda mail: signer.sign(mail, now=NOW)

    def theirs(key: bytes, algorithm: bytes) -> Sign:
        return lambda mail: dkim.DKIM(mail, signature_algorithm=algorithm).sign(
            b"s",
            b"example.com",
            key,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=COVERED,
        )

    return {
        "tocsin, RSA-2048": ours(rsa),
        "tocsin, Ed25519": ours(pem),
        "dkimpy, RSA-2048": theirs(rsa.encode(), b"rsa-sha256"),
        "dkimpy, Ed25519": theirs(seed, b"ed25519-sha256"),
    }


COVERED = [name.encode() for name in (*SIGNED, *SEALED)]


def milliseconds(sign: Sign, mail: bytes) -> float:
    begun = time.perf_counter()
    for _ in range(MAILS):
        sign(mail)
    return (time.perf_counter() - begun) / MAILS * 1000


def main() -> None:
    parser = cpu_limit.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.support.sample_mails import received, sample_messages

    kinds = {"single": "forum.new_reply", "digest": "digest"}
    messages = sample_messages()
    with TemporaryDirectory() as folder:
        mails = received(Path(folder), {kind: messages[name] for kind, name in kinds.items()})
    ways = signers()
    spent: dict[tuple[str, str], list[float]] = {(way, kind): [] for way in ways for kind in mails}
    for _ in range(rounds):
        for (way, kind), times in spent.items():
            times.append(milliseconds(ways[way], mails[kind]))
    keep(
        Record(
            name="dkim",
            title="A DKIM signature",
            unit="ms a mail",
            measured={f"{way}, {kind}": times for (way, kind), times in spent.items()},
            goals=[
                Goal(f"tocsin, {key}, {kind}", f"dkimpy, {key}, {kind}", at_most=1.0)
                for key in ("RSA-2048", "Ed25519")
                for kind in mails
            ],
            facts={f"size of the {kind} (bytes)": len(mail) for kind, mail in mails.items()},
            versions={"dkimpy": version("dkimpy")},
        )
    )


if __name__ == "__main__":
    main()
