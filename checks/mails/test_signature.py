"""Debian's Mail::DKIM verifies each mail, with the key's record made as docs/mail.md describes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from arrived import *  # noqa: F403 - a fixture
from arrived import HERE, KINDS, Arrived, output_lines

from tests.support.sample_mails import DOMAIN, SELECTOR

ROOT = HERE.parent.parent


def record(key: Path) -> str:
    """Returns the output of the docs' command for a key."""
    page = (ROOT / "docs" / "mail.md").read_text(encoding="utf-8")
    command = re.findall(r"^ *(openssl pkey .*-A)$", page, re.MULTILINE)[0]
    printed = subprocess.run(
        ["sh", "-c", command.replace("dkim.pem", f"'{key}'")],
        capture_output=True,
        text=True,
        check=True,
    )
    return f"v=DKIM1; k=rsa; p={printed.stdout.strip()}"


def verify(key: Path, *files: Path) -> list[str]:
    """Returns the result for each file, in a word or two."""
    name = f"{SELECTOR}._domainkey.{DOMAIN}"
    lines = output_lines(["perl", HERE / "verify_dkim.pl", name, record(key), *files])
    return [line.partition("\t")[2] for line in lines]


@pytest.fixture(scope="module")
def results(arrived: Arrived) -> dict[str, str]:
    return dict(zip(arrived.files, verify(arrived.key, *arrived.files.values()), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_mail_is_verified(results: dict[str, str], kind: str) -> None:
    assert results[kind] == "pass"


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"List-Unsubscribe: <https://", b"List-Unsubscribe: <https://evil."),
        (b"List-Unsubscribe-Post: ", b"List-Unsubscribe-Post: x"),
        (b"List-Unsubscribe: ", b"X-List-Unsubscribe: "),
        (b"To: alice@", b"To: bob@"),
        (b"From: ", b"From: x"),
        (b"Subject: ", b"Subject: Re: "),
        (b"Message-ID: <", b"Message-ID: <x"),
        (b"Saturday", b"Sunday"),
        (b"DKIM-Signature: ", b"From: eve@example.net\r\nDKIM-Signature: "),
    ],
)  # fmt: skip
def test_a_change_is_noticed(arrived: Arrived, tmp_path: Path, was: bytes, becomes: bytes) -> None:
    mail = arrived.files["forum.new_reply"].read_bytes()
    assert was in mail
    changed = tmp_path / "changed.eml"
    changed.write_bytes(mail.replace(was, becomes))
    [result] = verify(arrived.key, changed)
    assert result.startswith("fail")
