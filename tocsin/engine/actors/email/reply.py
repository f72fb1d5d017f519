"""What an SMTP server's answer means: a pure function, tested as a table.

RFC 5321 section 4.2.1: 4yz may be tried again, 5yz may not. RFC 3463: the enhanced code says why.
"""

from __future__ import annotations

import re
from enum import StrEnum

from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown


class Step(StrEnum):
    """Where in the dialogue an answer came, or failed to come."""

    CONNECT = "connect"
    HELO = "helo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # the answer to the final dot


_BEFORE_MAIL = frozenset({Step.CONNECT, Step.HELO, Step.TLS, Step.AUTH})
_CREDENTIALS = frozenset({530, 534, 535, 538})  # RFC 4954 section 6: of ours, not of the address
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\d)")
_OF_THE_SENDER = frozenset(
    {"5.1.7", "5.1.8"}
)  # RFC 3463 section 3.2: class 5.1, but our own address
_NO_SUCH_USER = re.compile(
    r"user unknown|unknown user|unknown recipient|recipient unknown|no such (?:user|recipient|mailbox)"
    r"|(?:user|recipient|mailbox|address) (?:was )?not found|(?:user|mailbox) (?:does not|doesn't) exist",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"spam|block|list|polic|reputation|den(?:y|ied)|relay|auth|spf|dkim|dmarc|rate|quota|full",
    re.IGNORECASE,
)
_TOKEN = r"<?([\w.+=-]{4,64})(?![\w.+=@-])"  # no "@": an address is nothing to keep
_QUEUE_ID = re.compile(rf"(?:queued as|\bid=)\s*{_TOKEN}", re.IGNORECASE | re.ASCII)
_LAST_TOKEN = re.compile(rf"(?:^|\s){_TOKEN}>?\s*$", re.ASCII)


def classify(step: Step, code: int, text: str) -> SendResult:
    """What one answer other than "go on" means at a step; at the body, 2yz means accepted.

    An address is dead only where the server speaks of the recipient's mailbox: 5.1.x and 5.2.1 at
    RCPT or the body, and a bare 550 at RCPT that says in words that there is no such user. All
    other 5yz, 5.7.x (policy, reputation) above all, end the message and leave the address alone.
    Before MAIL nothing is about a message: whatever is refused there, is the provider or our
    credentials. The same goes for a refused MAIL, except for the size: a message that is refused
    for good there is rejected, and the breaker keeps the next ones from the same fate.
    """
    enhanced = _enhanced(code, text)
    reason = f"smtp_{code}_{enhanced}" if enhanced else f"smtp_{code}"
    if step is Step.BODY and 200 <= code < 300:
        return SendResult(Sent(queue_id(text)))
    if not 400 <= code < 600:
        outcome = Unknown if step is Step.BODY else Deferred
        return SendResult(
            outcome("smtp_protocol_error"), provider_failed=True, keep_connection=False
        )
    if step in _BEFORE_MAIL or code in _CREDENTIALS:
        return SendResult(Deferred(reason), provider_failed=True, keep_connection=False)
    if code == 421:  # RFC 5321 section 3.8: the service closes the channel, at any step
        return SendResult(Deferred(reason), provider_failed=True, keep_connection=False)
    ours = step is Step.MAIL and not _of_size(code, enhanced)
    if code < 500:
        return SendResult(Deferred(reason), provider_failed=ours)
    dead = _is_dead(step, code, enhanced, text)
    return SendResult(Rejected(reason, address_dead=dead), provider_failed=ours)


def lost(step: Step, how: str) -> SendResult:
    """What it means that no answer came: `how` is "disconnected", "timeout" or "protocol_error".

    After the final dot the server may have the message (RFC 5321 section 4.5.3.2.6).
    """
    outcome = Unknown if step is Step.BODY else Deferred
    return SendResult(outcome(f"smtp_{how}_{step}"), provider_failed=True, keep_connection=False)


def queue_id(text: str) -> str | None:
    """The server's own name for an accepted message, where its answer has something that looks like one."""
    line = text.strip().rpartition("\n")[2].removesuffix("- gsmtp")
    if found := _QUEUE_ID.search(line):
        return found[1]
    found = _LAST_TOKEN.search(line)
    return found[1] if found and any(char.isdigit() for char in found[1]) else None


def _enhanced(code: int, text: str) -> str | None:
    """The enhanced status code, where there is one of the answer's own class (RFC 2034)."""
    found = _ENHANCED.match(text.lstrip())
    return found[1] if found and found[1][0] == str(code)[0] else None


def _of_size(code: int, enhanced: str | None) -> bool:
    return code == 552 or enhanced in {"5.3.4", "5.2.3"}


def _is_dead(step: Step, code: int, enhanced: str | None, text: str) -> bool:
    if enhanced is not None:
        told = step in {Step.RCPT, Step.BODY} and enhanced not in _OF_THE_SENDER
        return told and (enhanced.startswith("5.1.") or enhanced == "5.2.1")
    bare = step is Step.RCPT and code == 550
    return bare and bool(_NO_SUCH_USER.search(text)) and not _POLICY.search(text)
