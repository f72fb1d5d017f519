"""What APNs' answers mean: pure functions, tested as tables.

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
"""Seconds until the next try for a device that got too much; Apple names none."""

SERVER_PAUSE = 15 * 60.0
"""Apple: what was answered 5xx can be retried after 15 minutes."""

_MOST_PAUSE = 86_400.0


class RefusalKind(Enum):
    """Whose fault a refusal is, and so what is done."""

    DEAD = auto()  # the device has no such token any more
    CONTEXT = auto()  # the token may be good, but for another app or environment
    REQUEST = auto()  # this request of ours: never again
    SETTING = auto()  # what all requests of ours have in common: never again, and no further ones
    CREDENTIALS = auto()  # our key: later, all of them
    DEVICE = auto()  # this device: later
    CONNECTION = auto()  # this connection: again on another
    SERVER = auto()  # Apple's: later


REFUSALS = {
    "BadCertificate": RefusalKind.CREDENTIALS,
    "BadCertificateEnvironment": RefusalKind.CREDENTIALS,
    "BadCollapseId": RefusalKind.REQUEST,
    "BadDeviceToken": RefusalKind.CONTEXT,
    "BadEnvironmentKeyIdInToken": RefusalKind.CREDENTIALS,
    "BadExpirationDate": RefusalKind.REQUEST,
    "BadMessageId": RefusalKind.REQUEST,
    "BadPath": RefusalKind.REQUEST,
    "BadPriority": RefusalKind.REQUEST,
    "BadTopic": RefusalKind.SETTING,
    "DeviceTokenNotForTopic": RefusalKind.CONTEXT,
    "DuplicateHeaders": RefusalKind.REQUEST,
    "ExpiredProviderToken": RefusalKind.CREDENTIALS,
    "ExpiredToken": RefusalKind.DEAD,
    "Forbidden": RefusalKind.REQUEST,
    "IdleTimeout": RefusalKind.CONNECTION,
    "InternalServerError": RefusalKind.SERVER,
    "InvalidProviderToken": RefusalKind.CREDENTIALS,
    "InvalidPushType": RefusalKind.REQUEST,
    "MethodNotAllowed": RefusalKind.REQUEST,
    "MissingDeviceToken": RefusalKind.REQUEST,
    "MissingProviderToken": RefusalKind.CREDENTIALS,
    "MissingTopic": RefusalKind.SETTING,
    "PayloadEmpty": RefusalKind.REQUEST,
    "PayloadTooLarge": RefusalKind.REQUEST,
    "ServiceUnavailable": RefusalKind.SERVER,
    "Shutdown": RefusalKind.SERVER,
    "TooManyProviderTokenUpdates": RefusalKind.CREDENTIALS,
    "TooManyRequests": RefusalKind.DEVICE,
    "TopicDisallowed": RefusalKind.SETTING,
    "Unregistered": RefusalKind.DEAD,
    "UnrelatedKeyIdInToken": RefusalKind.CREDENTIALS,
}
"""Every reason that Apple documents for a push to a device."""

_BY_STATUS = {
    400: RefusalKind.REQUEST,
    403: RefusalKind.CREDENTIALS,
    404: RefusalKind.REQUEST,
    405: RefusalKind.REQUEST,
    413: RefusalKind.REQUEST,
    429: RefusalKind.DEVICE,
}
"""Where the reason is missing or new. Not 410: no token dies without Apple's word for it."""

LOUD = frozenset({RefusalKind.REQUEST, RefusalKind.SETTING, RefusalKind.CREDENTIALS})
"""What only an operator, or a developer, can mend."""


class ApnsResponse(Struct, frozen=True):
    """What APNs answered."""

    status: int
    reason: str = ""  # empty if the body had none that can be read
    timestamp: datetime | None = None
    retry_after: float | None = None


class _Body(Struct):
    reason: str = ""
    timestamp: Any = None  # milliseconds


def read(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> ApnsResponse:
    """Reads an answer; what can't be read of it counts as not said."""
    status = headers.get(b":status", b"")
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Body()
    return ApnsResponse(
        int(status) if status.isdigit() else 0,
        said.reason if said.reason.isascii() and said.reason.isalnum() else "",
        _to_time(said.timestamp),
        _to_seconds(headers.get(b"retry-after", b"")),
    )


def refusal_kind(status: int, reason: str) -> RefusalKind | None:
    """Whose fault it is; None for what APNs doesn't answer."""
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
    """What one answer means for the message, the device's token, the connection and the channel.

    A token is dead by Apple's word only, and only if it was registered no later than `timestamp`
    (`Rejected.dead_since`). Our credentials and Apple's own troubles count for the breaker, and no
    token is touched. `retry_after` is in seconds and lengthens a pause, never shortens it.
    """
    if status == 200:
        return SendResult(Sent(apns_id))
    word = f"apns_{reason or status}"
    match refusal_kind(status, reason):
        case RefusalKind.DEAD:
            return SendResult(Rejected(word, address_dead=True, dead_since=timestamp))
        case RefusalKind.CONTEXT:
            return SendResult(Rejected(word, quarantine=True))
        case RefusalKind.REQUEST:
            return SendResult(Rejected(word))
        case RefusalKind.SETTING:
            return SendResult(Rejected(word), provider_failed=True)
        case transient:
            return _later(word, transient, retry_after)


def _later(word: str, transient: RefusalKind | None, retry_after: float | None) -> SendResult:
    pause = retry_after or 0.0
    match transient:
        case RefusalKind.DEVICE:
            return SendResult(Deferred(word, max(DEVICE_PAUSE, pause)))
        case RefusalKind.CONNECTION:
            return SendResult(Deferred(word, retry_after), keep_connection=False)
        case RefusalKind.SERVER:
            return SendResult(Deferred(word, max(SERVER_PAUSE, pause)), provider_failed=True)
        case _:  # our credentials, or no answer of APNs at all
            return SendResult(
                Deferred(word, retry_after), provider_failed=True, keep_connection=False
            )


def lost(how: str, *, unprocessed: bool) -> SendResult:
    """What it means that no answer came, once the request was sent."""
    outcome: Any = Deferred if unprocessed else Unknown
    return SendResult(outcome(f"apns_{how}"), provider_failed=True, keep_connection=False)


def _to_time(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _to_seconds(value: bytes) -> float | None:
    """Retry-After in seconds; its other form, a date, Apple doesn't use."""
    return min(float(value), _MOST_PAUSE) if value.isdigit() else None
