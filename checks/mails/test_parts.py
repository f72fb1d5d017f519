"""Debian's Email::MIME, a parser in Perl, reads the parts and headers that were rendered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from arrived import *  # noqa: F403 - a fixture
from arrived import HERE, KINDS, MAILS, Arrived, output_lines


@pytest.fixture(scope="module")
def read(arrived: Arrived) -> dict[str, Any]:
    lines = output_lines(["perl", HERE / "read_mime.pl", *arrived.files.values()])
    return dict(zip(arrived.files, map(msgspec.json.decode, lines), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_as_rendered(read: dict[str, Any], kind: str) -> None:
    mail, found = MAILS[kind], read[kind]
    assert found["type"] == "multipart/alternative"
    assert [part["type"] for part in found["parts"]] == [
        "text/plain; charset=utf-8",
        "text/html; charset=utf-8",
    ]
    text, html = (part["text"].replace("\r\n", "\n").rstrip("\n") for part in found["parts"])
    assert text == mail.text.rstrip("\n")
    assert html == mail.html.rstrip("\n")


@pytest.mark.parametrize("kind", KINDS)
def test_the_headers_are_as_rendered(read: dict[str, Any], kind: str) -> None:
    mail, found = MAILS[kind], read[kind]["headers"]
    assert found["subject"] == mail.subject
    assert found["message-id"] == mail.message_id
    assert found["from"] == "Example Club <notifications@example.com>"
    assert found["to"] == "alice@example.org"
    for name, value in mail.headers:
        assert found[name.lower()] == value
