"""What the responses of FCM's HTTP v1 API mean: pure functions, tested as tables.

https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, and what the API was observed to return: it reports an
invalid token only in the text of a message, and an exhausted project quota without an error code of its own.
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
"""Seconds to pause where a 429 has no Retry-After."""

_CODE = re.compile(r"[A-Z][A-Z_]{1,39}")
_NAME = re.compile(r"projects/[\w.:-]{1,100}/messages/[\w.:%-]{1,200}", re.ASCII)
_FIELD = re.compile(r"(?:message|validate_only)\b[\w.\[\]]{0,80}", re.ASCII)
_TOKEN_FIELD = "message.token"
_TOKEN_TEXT = re.compile(r"\bregistration token\b", re.IGNORECASE)
_OTHER_APP = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})  # Apple's, through FCM
_ONE_DEVICE = re.compile(r"\bdevice\b", re.IGNORECASE)


def classify(
    status: int, error_code: str | None, details: Sequence[str], retry_after: float | None
) -> SendResult:
    """Returns what a response means; `details` are the fields, reasons and texts of an error.

    A token is dead only by UNREGISTERED: a 404 without it is a wrong URL or project. A token that may belong to
    another app or sender is put in quarantine. Refused credentials and wrong settings of ours count as a failure of the
    provider and change no token. A quota of one device does not delay the others.
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
        return _invalid_request(reason, details)
    if status == 429:
        return _over_quota(reason, details, retry_after)
    pause = wait if status == 503 and retry_after is not None else None
    return SendResult(Deferred(reason, wait), provider_failed=True, pause=pause)


def unreadable(status: int) -> SendResult:
    """Returns what a 2xx without FCM's JSON means: a proxy's page, or an accepted message."""
    return SendResult(
        Unknown(f"fcm_{status}_unreadable"), provider_failed=True, keep_connection=False
    )


def read(body: bytes) -> tuple[str | None, tuple[str, ...]] | None:
    """Returns error code and details of a response, or the name of the message; None if it is not from FCM."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested too deeply
        return None
    if not isinstance(fields, dict):
        return None
    if isinstance(name := fields.get("name"), str):
        return None, (name,)
    error = fields.get("error")
    if not isinstance(error, dict):
        return None
    entries = error.get("details")
    found = (
        [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    )
    codes = [each.get("errorCode") for each in found] + [error.get("status")]
    code = next((each for each in codes if isinstance(each, str) and _CODE.fullmatch(each)), None)
    texts = [text for each in found for text in _texts(each)]
    return code, (*texts, str(error.get("message", ""))[:500])


def invalid_fields(details: Sequence[str]) -> list[str]:
    """Returns the invalid fields, which is all that may be logged of the details: a text may contain a token."""
    return [each for each in details if _FIELD.fullmatch(each)]


def _invalid_request(reason: str, details: Sequence[str]) -> SendResult:
    """Returns what a 400 means: an invalid payload, or an invalid token if nothing else is reported as invalid."""
    invalid = invalid_fields(details)
    reported = _TOKEN_FIELD in invalid or any(_TOKEN_TEXT.search(each) for each in details)
    of_token = reported and all(each == _TOKEN_FIELD for each in invalid)
    if of_token or _OTHER_APP & set(details):
        return SendResult(Rejected(f"{reason}_token", quarantine=True))
    return SendResult(Rejected(reason))


def _over_quota(reason: str, details: Sequence[str], retry_after: float | None) -> SendResult:
    """Returns what an exhausted quota means: that of the project, or that of a single device."""
    wait = max(SHORTEST_WAIT, QUOTA_WAIT if retry_after is None else retry_after)
    if any(_ONE_DEVICE.search(each) for each in details):
        return SendResult(Deferred(f"{reason}_device", wait))
    return SendResult(Deferred(reason, wait), pause=wait)


def _texts(detail: Mapping[str, Any]) -> Iterator[str]:
    """Yields the texts of one detail: the reason of an ApnsError or ErrorInfo, fields of a BadRequest, a quota."""
    kinds = ("fieldViolations", "violations")
    entries = [
        entry for kind in kinds for entry in detail.get(kind) or () if isinstance(entry, dict)
    ]
    for entry in (detail, *entries):
        for key in ("reason", "field", "subject", "description"):
            if isinstance(text := entry.get(key), str):
                yield text[:500]


def _name(details: Sequence[str]) -> str | None:
    """Returns FCM's own name for the message, if there is a valid one."""
    return next((each for each in details if _NAME.fullmatch(each)), None)
