"""Debian's SpamAssassin accepts each mail by its own rules, without the network."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from arrived import *  # noqa: F403 - a fixture
from arrived import HERE, KINDS, Arrived, output_lines

LESS_THAN = 1.0
RECEIVED = (  # as the receiving server adds it
    "Received: from worker.example.com (worker.example.com [93.184.215.14])\r\n"
    "\tby mx.example.org (Postfix) with ESMTPS id 4ABC123\r\n"
    f"\tfor <alice@example.org>; {format_datetime(datetime.now(UTC))}\r\n"
).encode()
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

Verdicts = dict[str, tuple[float, str]]


def judge(mails: dict[str, bytes], folder: Path) -> Verdicts:
    """Returns the score of each mail, and the matching rules."""
    files = {str(folder / f"{number}.eml"): kind for number, kind in enumerate(mails)}
    for file, kind in files.items():
        Path(file).write_bytes(mails[kind])
    lines = output_lines(["perl", HERE / "spamassassin.pl", folder, *files])
    rows = [line.split("\t") for line in lines]
    return {files[file]: (float(score), rules) for file, score, rules in rows}


@pytest.fixture(scope="module")
def verdicts(arrived: Arrived, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    mails = {kind: RECEIVED + file.read_bytes() for kind, file in arrived.files.items()}
    return judge(mails, tmp_path_factory.mktemp("judged"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mail_looks_like_spam(verdicts: Verdicts, kind: str) -> None:
    score, rules = verdicts[kind]
    assert score < LESS_THAN, rules


def test_the_rules_that_matched_are_reported(
    verdicts: Verdicts, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        for (score, rules), mails in sorted(Counter(verdicts.values()).items()):
            print(f"\nSpamAssassin: {mails} mails with {score:.1f}: {rules}", end=" ")


def test_the_judge_knows_spam(arrived: Arrived, tmp_path: Path) -> None:
    mail = arrived.files["no body"].read_bytes()
    spam = mail.replace(b"\r\n\r\n", b"\r\n\r\n" + GTUBE + b"\r\n", 2)
    score, _ = judge({"spam": RECEIVED + spam}, tmp_path)["spam"]
    assert score > 100
