"""One signed mail of every kind, as files; and a function that runs an external tool on them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import Struct

from tests.support.sample_mails import private_pem, received, sample_messages
from tocsin.engine.model import Mail

HERE = Path(__file__).parent
MESSAGES = sample_messages()
MAILS = {
    kind: message.content for kind, message in MESSAGES.items() if isinstance(message.content, Mail)
}
KINDS = tuple(MAILS)


class Arrived(Struct, frozen=True):
    """The mails by their kinds, and the private key that signed them."""

    files: dict[str, Path]
    key: Path


@pytest.fixture(scope="session")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Arrived:
    """Sent by the actor over SMTP, and stored as received."""
    folder = tmp_path_factory.mktemp("mails")
    key = folder / "dkim.pem"
    key.write_text(private_pem())
    mails = received(folder / "mailbox", MESSAGES, pem=key.read_text())
    files = {kind: folder / f"{kind.replace(' ', '-')}.eml" for kind in mails}
    for kind, content in mails.items():
        files[kind].write_bytes(content)
    return Arrived(files, key)


def output_lines(command: Sequence[str | Path]) -> list[str]:
    """Returns the lines that a tool prints; any complaint is an error."""
    asked = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.splitlines()
