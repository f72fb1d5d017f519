"""What APNs' responses mean: pure functions, tested as tables.

Apple: "Handling notification responses from APNs".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

import msgspec
from msgspec import Struct

from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown

DEVICE_PAUSE = 60.0
"""Seconds until the next try for a device that got too many; Apple gives no number."""

SERVER_PAUSE = 15 * 60.0
"""Apple: a request with a 5xx response can be retried after 15 minutes."""

_MOST_PAUSE = 86_400.0


class RefusalKind(Enum):
    """What a refusal is about, which decides what is done."""

    DEAD = auto()  # the token, which is no longer valid
    CONTEXT = auto()  # the token, which may be valid for another app or environment
    REQUEST = auto()  # this request: not retried
    SETTING = auto()  # a setting that all requests share: not retried, and the breaker counts it
    CREDENTIALS = auto()  # our key: all requests are retried later
    DEVICE = auto()  # this device: retried later
    CONNECTION = auto()  # this connection: retried on another one
    SERVER = auto()  # the server: retried later


_REASONS = {
    RefusalKind.DEAD: "ExpiredToken Unregistered",
    RefusalKind.CONTEXT: "BadDeviceToken DeviceTokenNotForTopic",
    RefusalKind.REQUEST: (
        "BadCollapseId BadExpirationDate BadMessageId BadPath BadPriority "
        "DuplicateHeaders Forbidden InvalidPushType MethodNotAllowed "
        "MissingDeviceToken PayloadEmpty PayloadTooLarge"
    ),
    RefusalKind.SETTING: "BadTopic MissingTopic TopicDisallowed",
    RefusalKind.CREDENTIALS: (
        "BadCertificate BadCertificateEnvironment BadEnvironmentKeyIdInToken "
        "ExpiredProviderToken InvalidProviderToken MissingProviderToken "
        "TooManyProviderTokenUpdates UnrelatedKeyIdInToken"
    ),
    RefusalKind.DEVICE: "TooManyRequests",
    RefusalKind.CONNECTION: "IdleTimeout",
    RefusalKind.SERVER: "InternalServerError ServiceUnavailable Shutdown",
}
REFUSALS = {reason: kind for kind, reasons in _REASONS.items() for reason in reasons.split()}
"""Every reason that Apple documents for a push to a device."""

_BY_STATUS = {
    400: RefusalKind.REQUEST,
    403: RefusalKind.CREDENTIALS,
    404: RefusalKind.REQUEST,
    405: RefusalKind.REQUEST,
    413: RefusalKind.REQUEST,
    429: RefusalKind.DEVICE,
}
"""For a missing or unknown reason. Without 410: a token is dead only by a reason that Apple documents."""


class NoResponse(Struct, frozen=True):
    """No response, or none that can be read.

    `reason` is a stable word; `unprocessed` if it is certain that the provider did not process the request.
    """

    reason: str
    unprocessed: bool = False


class ApnsResponse(Struct, frozen=True):
    """A response of APNs."""

    status: int
    reason: str = ""  # empty if the body has none that can be read
    timestamp: datetime | None = None
    retry_after: float | None = None


class _Body(Struct):
    reason: str = ""
    timestamp: Any = None  # milliseconds


def read(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> ApnsResponse:
    """Returns a response; fields that can't be read are empty."""
    status = headers.get(b":status", b"")
    try:
        fields = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fields = _Body()
    return ApnsResponse(
        int(status) if status.isdigit() else 0,
        fields.reason if fields.reason.isascii() and fields.reason.isalnum() else "",
        _to_time(fields.timestamp),
        _to_seconds(headers.get(b"retry-after", b"")),
    )


def refusal_kind(status: int, reason: str) -> RefusalKind | None:
    """Returns what a refusal is about; None for a response that APNs does not document."""
    if reason in REFUSALS:
        return REFUSALS[reason]
    return RefusalKind.SERVER if 500 <= status < 600 else _BY_STATUS.get(status)


def classify(
    status: int,
    reason: str,
    timestamp: datetime | None = None,
    retry_after: float | None = None,
    *,
    apns_id: str | None = None,
) -> SendResult:
    """Returns what a response means for the message, the device's token, the connection and the provider.

    A token is dead only if Apple reports so, and only if it was registered no later than `timestamp`
    (`Rejected.dead_since`). Refused credentials and failures of the server count for the breaker, and change no token.
    `retry_after` is in seconds and makes a pause longer, never shorter.
    """
    if status == 200:
        return SendResult(Sent(apns_id))
    code = f"apns_{reason or status}"
    match refusal_kind(status, reason):
        case RefusalKind.DEAD:
            return SendResult(Rejected(code, address_dead=True, dead_since=timestamp))
        case RefusalKind.CONTEXT:
            return SendResult(Rejected(code, quarantine=True))
        case RefusalKind.REQUEST:
            return SendResult(Rejected(code))
        case RefusalKind.SETTING:
            return SendResult(Rejected(code), provider_failed=True)
        case transient:
            return _retried(code, transient, retry_after)


def _retried(code: str, kind: RefusalKind | None, retry_after: float | None) -> SendResult:
    pause = retry_after or 0.0
    match kind:
        case RefusalKind.DEVICE:
            return SendResult(Deferred(code, max(DEVICE_PAUSE, pause)))
        case RefusalKind.CONNECTION:
            return SendResult(Deferred(code, retry_after), keep_connection=False)
        case RefusalKind.SERVER:
            outcome = Deferred(code, max(SERVER_PAUSE, pause))
            return SendResult(outcome, provider_failed=True, pause=retry_after)
        case _:  # our credentials, or a response that is not from APNs
            return SendResult(
                Deferred(code, retry_after), provider_failed=True, keep_connection=False
            )


def classify_no_response(loss: NoResponse) -> SendResult:
    """Returns what it means that no response came, once the request was sent."""
    outcome: Any = Deferred if loss.unprocessed else Unknown
    return SendResult(outcome(f"apns_{loss.reason}"), provider_failed=True, keep_connection=False)


def _to_time(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _to_seconds(value: bytes) -> float | None:
    """Returns Retry-After in seconds; Apple does not use its other form, a date."""
    return min(float(value), _MOST_PAUSE) if value.isdigit() else None


# The payload: JSON within Apple's limit ("Generating a remote notification").
