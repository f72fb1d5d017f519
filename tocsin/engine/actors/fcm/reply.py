"""What an answer of FCM's HTTP v1 API means: a pure function, tested as a table.

https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, and what the API was seen to answer: it names a
bad token in words only, and a project's used-up quota without an error code of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown

SHORTEST_WAIT = 10.0
"""Seconds before any retry, as Google asks."""

QUOTA_WAIT = 60.0
"""Seconds to pause for where a 429 says nothing of it."""

_CODE = re.compile(r"[A-Z][A-Z_]{1,39}")
_NAME = re.compile(r"projects/[\w.:-]{1,100}/messages/[\w.:%-]{1,200}", re.ASCII)
_FIELD = re.compile(r"(?:message|validate_only)\b[\w.\[\]]{0,80}", re.ASCII)
_TOKEN_FIELD = "message.token"
_TOKEN_WORDS = re.compile(r"\bregistration token\b", re.IGNORECASE)
_OTHER_APP = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})  # Apple's, through FCM
_ONE_DEVICE = re.compile(r"\bdevice\b", re.IGNORECASE)


def classify(
    status: int, error_code: str | None, details: Sequence[str], retry_after: float | None
) -> SendResult:
    """What one answer means; `details` are the fields, reasons and words that came with an error.

    A token dies by UNREGISTERED alone: a 404 without it is a wrong URL or project. What may be a good token of
    another app or sender is put in quarantine. Credentials and configuration of ours fail the provider as a
    whole and touch no token. Only a quota of one device leaves the others their way.
    """
    reason = f"fcm_{status}_{error_code.lower()}" if error_code else f"fcm_{status}"
    wait = max(SHORTEST_WAIT, retry_after or 0.0)
    if 200 <= status < 300:
        return SendResult(Sent(_name(details)))
    if status == 404 and error_code == "UNREGISTERED":
        return SendResult(Rejected(reason, address_dead=True))
    if status == 403 and error_code == "SENDER_ID_MISMATCH":
        return SendResult(Rejected(reason, quarantine=True))
    if status in {400, 413}:
        return _of_our_request(reason, details)
    if status == 429:
        return _slower(reason, details, retry_after)
    if status >= 500:
        paused = wait if status == 503 and retry_after is not None else None
        return SendResult(Deferred(reason, wait), provider_failed=True, pause=paused)
    return SendResult(Deferred(reason, wait), provider_failed=True)


def unreadable(status: int) -> SendResult:
    """What it means that a 2xx says nothing of FCM's: some proxy's page, or a message that did go through."""
    return SendResult(
        Unknown(f"fcm_{status}_unreadable"), provider_failed=True, keep_connection=False
    )


def read(body: bytes) -> tuple[str | None, tuple[str, ...]] | None:
    """Error code and details of an answer, or the name of the message; None where it isn't FCM's."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # too deep is garbage too
        return None
    if not isinstance(answer, dict):
        return None
    if isinstance(name := answer.get("name"), str):
        return None, (name,)
    error = answer.get("error")
    if not isinstance(error, dict):
        return None
    entries = error.get("details")
    found = (
        [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    )
    codes = [each.get("errorCode") for each in found] + [error.get("status")]
    code = next((each for each in codes if isinstance(each, str) and _CODE.fullmatch(each)), None)
    words = [word for each in found for word in _words(each)]
    return code, (*words, str(error.get("message", ""))[:500])


def fields(details: Sequence[str]) -> list[str]:
    """The fields at fault: all that may be logged of the details, whose words may hold a token."""
    return [each for each in details if _FIELD.fullmatch(each)]


def _of_our_request(reason: str, details: Sequence[str]) -> SendResult:
    """A 400 is the payload's fault or the token's; the token's only where nothing else is named."""
    at_fault = fields(details)
    named = _TOKEN_FIELD in at_fault or any(_TOKEN_WORDS.search(each) for each in details)
    of_token = named and all(each == _TOKEN_FIELD for each in at_fault)
    if of_token or _OTHER_APP & set(details):
        return SendResult(Rejected(f"{reason}_token", quarantine=True))
    return SendResult(Rejected(reason))


def _slower(reason: str, details: Sequence[str], retry_after: float | None) -> SendResult:
    """A quota is used up: the project's, or that of a single device."""
    wait = max(SHORTEST_WAIT, QUOTA_WAIT if retry_after is None else retry_after)
    if any(_ONE_DEVICE.search(each) for each in details):
        return SendResult(Deferred(f"{reason}_device", wait))
    return SendResult(Deferred(reason, wait), pause=wait)


def _words(detail: Mapping[str, Any]) -> Iterator[str]:
    """What one detail says: an ApnsError's or ErrorInfo's reason, a BadRequest's fields, a QuotaFailure's quota."""
    kinds = ("fieldViolations", "violations")
    entries = [
        entry for kind in kinds for entry in detail.get(kind) or () if isinstance(entry, dict)
    ]
    for entry in (detail, *entries):
        for key in ("reason", "field", "subject", "description"):
            if isinstance(word := entry.get(key), str):
                yield word[:500]


def _name(details: Sequence[str]) -> str | None:
    """FCM's own name for the message, where it looks like one."""
    return next((each for each in details if _NAME.fullmatch(each)), None)
