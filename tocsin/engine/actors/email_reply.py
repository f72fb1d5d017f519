"""What an SMTP server's replies mean: pure functions, tested as tables.

RFC 5321 section 4.2.1: 4yz may be retried, 5yz may not. RFC 3463: the enhanced code is the reason.
"""

from __future__ import annotations

import re
from enum import StrEnum

from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown


class Step(StrEnum):
    """The step of the SMTP dialogue to which a reply belongs."""

    CONNECT = "connect"
    HELO = "helo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # the reply to the final dot


_BEFORE_MAIL = frozenset({Step.CONNECT, Step.HELO, Step.TLS, Step.AUTH})
_CREDENTIALS = frozenset({530, 534, 535, 538})  # RFC 4954 section 6: ours, not the address
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\d)")
_OF_SENDER = frozenset({"5.1.7", "5.1.8"})  # RFC 3463 section 3.2: class 5.1, but our own address
_NO_SUCH_USER = re.compile(
    r"user unknown|unknown user|unknown recipient|recipient unknown|no such (?:user|recipient|mailbox)"
    r"|(?:user|recipient|mailbox|address) (?:was )?not found|(?:user|mailbox) (?:does not|doesn't) exist",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"spam|block|list|polic|reputation|den(?:y|ied)|relay|auth|spf|dkim|dmarc|rate|quota|full",
    re.IGNORECASE,
)
_TOKEN = r"<?([\w.+=-]{4,64})(?![\w.+=@-])"  # no "@": an address must not be stored
_QUEUE_ID = re.compile(rf"(?:queued as|\bid=)\s*{_TOKEN}", re.IGNORECASE | re.ASCII)
_LAST_TOKEN = re.compile(rf"(?:^|\s){_TOKEN}>?\s*$", re.ASCII)


def classify(step: Step, code: int, text: str) -> SendResult:
    """Returns what a reply means that ends the dialogue at a step; at the body, 2yz means accepted.

    An address is dead only by a code about the recipient's mailbox: 5.1.x and 5.2.1 at RCPT or the body, and a 550
    without such a code at RCPT whose text is that there is no such user. Any other 5yz, such as 5.7.x (policy,
    reputation), ends the message and does not change the address. A refusal before MAIL concerns the provider or our
    credentials. So does a refused MAIL, except for the size: the message is rejected if the refusal is permanent, and
    the breaker counts it.
    """
    if step is Step.BODY and 200 <= code < 300:
        return SendResult(Sent(queue_id(text)))
    enhanced = _enhanced(code, text)
    reason = f"smtp_{code}_{enhanced}" if enhanced else f"smtp_{code}"
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


def classify_no_reply(step: Step, reason: str) -> SendResult:
    """Returns what it means that no reply came: `reason` is "disconnected", "timeout" or "protocol_error".

    After the final dot the server may have the message (RFC 5321 section 4.5.3.2.6).
    """
    outcome = Unknown if step is Step.BODY else Deferred
    return SendResult(outcome(f"smtp_{reason}_{step}"), provider_failed=True, keep_connection=False)


def queue_id(text: str) -> str | None:
    """Returns the server's own name for an accepted message, if the reply seems to have one."""
    line = text.strip().rpartition("\n")[2].removesuffix("- gsmtp")
    if found := _QUEUE_ID.search(line):
        return found[1]
    found = _LAST_TOKEN.search(line)
    return found[1] if found and any(char.isdigit() for char in found[1]) else None


def is_dead_mailbox(enhanced: str | None) -> bool:
    """Returns whether an enhanced status code (RFC 3463) is about a mailbox that must not be mailed again."""
    if enhanced is None or enhanced in _OF_SENDER:
        return False
    return enhanced.startswith("5.1.") or enhanced == "5.2.1"


def _enhanced(code: int, text: str) -> str | None:
    """Returns the enhanced status code, if it is of the same class as the reply (RFC 2034)."""
    found = _ENHANCED.match(text.lstrip())
    return found[1] if found and found[1][0] == str(code)[0] else None


def _of_size(code: int, enhanced: str | None) -> bool:
    return code == 552 or enhanced in {"5.3.4", "5.2.3"}


def _is_dead(step: Step, code: int, enhanced: str | None, text: str) -> bool:
    if enhanced is not None:
        return step in {Step.RCPT, Step.BODY} and is_dead_mailbox(enhanced)
    bare = step is Step.RCPT and code == 550
    return bare and bool(_NO_SUCH_USER.search(text)) and not _POLICY.search(text)
