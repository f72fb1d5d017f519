"""Lets a caught mail come back, as a mail server or a provider would report it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

ReturnKind = Literal["bounce", "complaint"]

_BOUNCE = """\
Reporting-MTA: dns; localhost

Final-Recipient: rfc822; {address}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 No such user here
"""
_COMPLAINT = """\
Feedback-Type: abuse
User-Agent: Tocsin's mail catcher
Version: 1
"""
_REPORT = """\
From: MAILER-DAEMON@localhost
To: {sender}
Subject: Report
Date: {date}
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="=report"

--=report
Content-Type: text/plain

This mail came back.

--=report
Content-Type: message/{kind}

{fields}
--=report
Content-Type: message/rfc822

"""


def returned(mail: bytes, kind: ReturnKind, *, sender: str, address: str) -> bytes:
    """Returns the report on a mail: that its mailbox does not exist (RFC 3464), or a complaint (RFC 5965)."""
    head = _REPORT.format(
        sender=sender,
        date=format_datetime(datetime.now(UTC)),
        kind="delivery-status" if kind == "bounce" else "feedback-report",
        fields=(_BOUNCE if kind == "bounce" else _COMPLAINT).format(address=address),
    )
    return head.replace("\n", "\r\n").encode() + mail + b"\r\n--=report--\r\n"
