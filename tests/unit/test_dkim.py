"""DKIM: mails sent over real SMTP, verified by dkimpy, which has no code in common with the signer."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tests.support.sample_mails import DOMAIN, SELECTOR, private_pem, received, sample_messages
from tocsin.engine.actors.email_mime import SEALED, SIGNED, Signer

RSA = private_pem()
ED25519 = (
    Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
MESSAGES = sample_messages()
NOT_THERE = {"cc", "reply-to", "references", "in-reply-to", "content-transfer-encoding"}


def record(pem: str) -> bytes:
    """What the operator writes into DNS for a key."""
    public = load_pem_private_key(pem.encode(), None).public_key()
    if pem == ED25519:
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def verifies(mail: bytes, pem: str = RSA) -> bool:
    def look_up(name: bytes, timeout: int = 5) -> bytes:
        assert name == f"{SELECTOR}._domainkey.{DOMAIN}.".encode()
        return record(pem)

    return bool(dkim.verify(mail, dnsfunc=look_up))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return received(tmp_path_factory.mktemp("rsa"), MESSAGES, pem=RSA)


@pytest.fixture
def mail(signed: dict[str, bytes]) -> bytes:
    return signed["forum.new_reply"]


def tags(mail: bytes) -> dict[str, str]:
    """The tags of the signature, without white space."""
    header = re.split(rb"\r\n(?![ \t])", mail)[0].decode()
    name, _, value = header.partition(":")
    assert name == "DKIM-Signature"
    return dict(re.sub(r"\s", "", tag).split("=", 1) for tag in value.split(";"))


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_kind_of_mail_is_verified(signed: dict[str, bytes], kind: str) -> None:
    assert verifies(signed[kind])


@pytest.mark.parametrize("kind", ["forum.new_reply", "mandatory", "digest", "long lines"])
def test_so_it_is_with_ed25519(tmp_path: Path, kind: str) -> None:
    [mail] = received(tmp_path, {kind: MESSAGES[kind]}, pem=ED25519).values()
    assert verifies(mail, ED25519)
    assert tags(mail)["a"] == "ed25519-sha256"
    assert not verifies(mail.replace(b"Subject: ", b"Subject: x"), ED25519)


def test_the_signature_lists_what_it_covers(mail: bytes) -> None:
    found = tags(mail)
    assert (found["v"], found["a"], found["c"]) == ("1", "rsa-sha256", "relaxed/relaxed")
    assert (found["d"], found["s"]) == (DOMAIN, SELECTOR)
    assert "l" not in found
    covered = found["h"].split(":")
    assert {
        *("from", "to", "subject", "date", "message-id", "mime-version", "content-type"),
        *("list-id", "list-unsubscribe", "list-unsubscribe-post", "feedback-id", "auto-submitted"),
    } <= set(covered)
    assert covered.count("from") == 2
    assert max(map(len, mail.split(b"\r\n\r\n")[0].split(b"\r\n")[:12])) <= 78


@pytest.mark.parametrize("header", sorted({*SIGNED} - NOT_THERE))
def test_a_changed_header_is_noticed(mail: bytes, header: str) -> None:
    head, gap, body = mail.partition(b"\r\n\r\n")
    changed, times = re.subn(rb"(?im)^(" + header.encode() + rb": )", rb"\1x", head)
    assert times == 1
    assert not verifies(changed + gap + body)


@pytest.mark.parametrize("header", SEALED)
def test_a_header_that_readers_trust_can_not_be_added(mail: bytes, header: str) -> None:
    assert not verifies(header.encode() + b": eve@example.net\r\n" + mail)


def test_a_changed_body_is_noticed(mail: bytes) -> None:
    assert not verifies(mail.replace(b"Saturday", b"Sunday"))
    assert not verifies(mail + b"P.S.\r\n")


def folded_again(mail: bytes) -> bytes:
    head, gap, body = mail.partition(b"\r\n\r\n")
    head = re.sub(rb"\r\n[ \t]+", b" ", head)
    return head.replace(b"; ", b";\r\n\t") + gap + body


@pytest.mark.parametrize(
    "relay",
    [
        lambda mail: b"Received: from a by b; Sun, 1 Nov 2026 12:00:00 +0000\r\n" + mail,
        lambda mail: b"Return-Path: <bounce@example.com>\r\nX-Spam-Status: No\r\n" + mail,
        lambda mail: mail + b"\r\n\r\n",
        lambda mail: mail.replace(b"\r\nSubject: ", b"\r\nSUBJECT:   "),
        folded_again,
    ],
)
def test_what_relays_do_breaks_nothing(mail: bytes, relay: Callable[[bytes], bytes]) -> None:
    assert relay(mail) != mail
    assert verifies(relay(mail))


@pytest.mark.parametrize("kind", MESSAGES)
def test_no_relay_has_a_reason_to_encode_it_again(signed: dict[str, bytes], kind: str) -> None:
    """A body of 7 bits with short lines needs no 8BITMIME; no bare CR or LF is to be replaced (RFC 6376 5.3)."""
    mail = signed[kind]
    assert mail.isascii()
    assert max(map(len, mail.split(b"\r\n"))) <= 998
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|[\x00\x7f]", mail)
    body = mail.partition(b"\r\n\r\n")[2]
    assert not re.search(rb"[ \t]\r\n", body)
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert (
        re.findall(rb"(?im)^content-transfer-encoding: (.*)\r$", mail) == [b"quoted-printable"] * 2
    )


def test_the_address_of_the_presend_check_is_signed_also_beyond_ascii(tmp_path: Path) -> None:
    one = {"one": MESSAGES["emoji"]}
    mail = received(tmp_path, one, pem=RSA, to="jürgen@straße.example")["one"]
    assert "\r\nTo: jürgen@xn--strae-oqa.example\r\n".encode() in mail
    assert mail.partition(b"\r\n\r\n")[2].isascii()  # so that SMTPUTF8 touches headers alone
    assert verifies(mail)
    assert not verifies(mail.replace("jürgen".encode(), b"eve"))


def test_without_a_key_nothing_is_signed(tmp_path: Path) -> None:
    [mail] = received(tmp_path, {"one": MESSAGES["emoji"]}).values()
    assert b"DKIM-Signature" not in mail


@pytest.mark.parametrize("bits", [1024, 4096])
def test_short_and_long_keys_sign_too(mail: bytes, bits: int) -> None:
    key = generate_private_key(public_exponent=65537, key_size=bits)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    bare = mail[re.search(rb"\r\n(?![ \t])", mail).end() :]  # type: ignore[union-attr]
    signer = Signer(pem=pem, selector=SELECTOR, domain=DOMAIN)
    assert verifies(signer.sign(bare, now=datetime.now(UTC)) + bare, pem)
