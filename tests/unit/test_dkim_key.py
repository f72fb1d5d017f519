"""TOCSIN_DKIM_…: the settings have to fit each other and the sender."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.dsa import generate_private_key as dsa_key
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from tests.support.sample_mails import private_pem
from tocsin.settings import Settings, SettingsError, read_settings

PEM = private_pem()
GIVEN = {
    "DKIM_KEY": PEM,
    "DKIM_SELECTOR": "s2026",
    "EMAIL_FROM": "Example <notifications@mail.example.com>",
}


def pem_of(key: object, encryption: KeySerializationEncryption | None = None) -> str:
    pem: bytes = key.private_bytes(  # type: ignore[attr-defined]
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )
    return pem.decode()


def read(**values: str) -> Settings:
    return read_settings({f"TOCSIN_{name}": value for name, value in values.items()})


def test_the_domain_is_the_senders_unless_it_is_given() -> None:
    dkim = read(**GIVEN).dkim
    assert dkim is not None
    assert (dkim.selector, dkim.domain) == ("s2026", "mail.example.com")
    assert read().dkim is None


@pytest.mark.parametrize(
    "domain", ["example.com", "mail.example.com", "b.mail.example.com", "EXAMPLE.com"]
)
def test_the_domain_may_be_one_above_or_below(domain: str) -> None:
    dkim = read(**GIVEN, DKIM_DOMAIN=domain).dkim
    assert dkim is not None
    assert dkim.domain == domain.lower()


def test_a_domain_beyond_ascii_is_encoded() -> None:
    dkim = read(**GIVEN | {"EMAIL_FROM": "a@straße.example"}).dkim
    assert dkim is not None
    assert dkim.domain == "xn--strae-oqa.example"


def test_the_key_is_a_path_or_the_content_itself(tmp_path: Path) -> None:
    file = tmp_path / "dkim.pem"
    file.write_text(PEM)
    by_content = read(**GIVEN)
    assert read(**GIVEN | {"DKIM_KEY": str(file)}) == by_content
    assert read(**GIVEN | {"DKIM_KEY": PEM.replace("\n", "\\n")}) == by_content
    assert read(**GIVEN | {"DKIM_KEY": pem_of(Ed25519PrivateKey.generate())}).dkim is not None


def test_the_key_is_never_shown() -> None:
    assert "PRIVATE" not in repr(read(**GIVEN))
    assert PEM.splitlines()[1] not in repr(read(**GIVEN).dkim)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"DKIM_KEY": PEM}, "TOCSIN_DKIM_SELECTOR is not set"),
        ({"DKIM_SELECTOR": "s1"}, "TOCSIN_DKIM_KEY is not set"),
        ({"DKIM_DOMAIN": "example.com"}, "TOCSIN_DKIM_KEY is not set"),
        (GIVEN | {"DKIM_KEY": "/no/such/file"}, "TOCSIN_DKIM_KEY is neither"),
        (GIVEN | {"DKIM_KEY": "/etc"}, "TOCSIN_DKIM_KEY is neither"),
        (GIVEN | {"DKIM_KEY": "-----BEGIN no key"}, "TOCSIN_DKIM_KEY holds no private key"),
        (GIVEN | {"DKIM_KEY": pem_of(ec_key(SECP256R1()))}, "TOCSIN_DKIM_KEY is neither an RSA"),
        (GIVEN | {"DKIM_KEY": pem_of(dsa_key(1024))}, "TOCSIN_DKIM_KEY is neither an RSA"),
        (
            GIVEN
            | {"DKIM_KEY": pem_of(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x"))},
            "TOCSIN_DKIM_KEY is encrypted",
        ),
        (GIVEN | {"DKIM_SELECTOR": "a b"}, "TOCSIN_DKIM_SELECTOR is no name"),
        (GIVEN | {"DKIM_SELECTOR": "s1;d=x"}, "TOCSIN_DKIM_SELECTOR is no name"),
        (GIVEN | {"DKIM_DOMAIN": "other.com"}, "TOCSIN_DKIM_DOMAIN is other.com, but mails are"),
        (GIVEN | {"DKIM_DOMAIN": "ample.com"}, "TOCSIN_DKIM_DOMAIN is ample.com, but mails are"),
        (GIVEN | {"DKIM_DOMAIN": "com"}, "TOCSIN_DKIM_DOMAIN can't be com"),
        (GIVEN | {"DKIM_DOMAIN": "example.com\r\nx:"}, "TOCSIN_DKIM_DOMAIN is no name"),
        ({"DKIM_KEY": PEM, "DKIM_SELECTOR": "s1"}, "TOCSIN_DKIM_DOMAIN can't be localhost"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_named_in_one_line(given: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**given)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "PRIVATE KEY-----\n" not in str(caught.value)
