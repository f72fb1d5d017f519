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

from tocsin.engine.actors.machinery.outcome import Answer
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown

DEVICE_PAUSE = 60.0
"""Seconds until the next try for a device that got too much; Apple names none."""

SERVER_PAUSE = 15 * 60.0
"""Apple: what was answered 5xx can be retried after 15 minutes."""

_MOST_PAUSE = 86_400.0


class Fault(Enum):
    """Whose fault a refusal is, and so what is done."""

    DEAD = auto()  # the device has no such token any more
    CONTEXT = auto()  # the token may be good, but for another app or environment
    REQUEST = auto()  # this request of ours: never again
    SETTING = auto()  # what all requests of ours have in common: never again, and no further ones
    CREDENTIALS = auto()  # our key: later, all of them
    DEVICE = auto()  # this device: later
    CONNECTION = auto()  # this connection: again on another
    SERVER = auto()  # Apple's: later


FAULTS = {
    "BadCertificate": Fault.CREDENTIALS,
    "BadCertificateEnvironment": Fault.CREDENTIALS,
    "BadCollapseId": Fault.REQUEST,
    "BadDeviceToken": Fault.CONTEXT,
    "BadEnvironmentKeyIdInToken": Fault.CREDENTIALS,
    "BadExpirationDate": Fault.REQUEST,
    "BadMessageId": Fault.REQUEST,
    "BadPath": Fault.REQUEST,
    "BadPriority": Fault.REQUEST,
    "BadTopic": Fault.SETTING,
    "DeviceTokenNotForTopic": Fault.CONTEXT,
    "DuplicateHeaders": Fault.REQUEST,
    "ExpiredProviderToken": Fault.CREDENTIALS,
    "ExpiredToken": Fault.DEAD,
    "Forbidden": Fault.REQUEST,
    "IdleTimeout": Fault.CONNECTION,
    "InternalServerError": Fault.SERVER,
    "InvalidProviderToken": Fault.CREDENTIALS,
    "InvalidPushType": Fault.REQUEST,
    "MethodNotAllowed": Fault.REQUEST,
    "MissingDeviceToken": Fault.REQUEST,
    "MissingProviderToken": Fault.CREDENTIALS,
    "MissingTopic": Fault.SETTING,
    "PayloadEmpty": Fault.REQUEST,
    "PayloadTooLarge": Fault.REQUEST,
    "ServiceUnavailable": Fault.SERVER,
    "Shutdown": Fault.SERVER,
    "TooManyProviderTokenUpdates": Fault.CREDENTIALS,
    "TooManyRequests": Fault.DEVICE,
    "TopicDisallowed": Fault.SETTING,
    "Unregistered": Fault.DEAD,
    "UnrelatedKeyIdInToken": Fault.CREDENTIALS,
}
"""Every reason that Apple documents for a push to a device."""

_BY_STATUS = {
    400: Fault.REQUEST,
    403: Fault.CREDENTIALS,
    404: Fault.REQUEST,
    405: Fault.REQUEST,
    413: Fault.REQUEST,
    429: Fault.DEVICE,
}
"""Where the reason is missing or new. Not 410: no token dies without Apple's word for it."""

LOUD = frozenset({Fault.REQUEST, Fault.SETTING, Fault.CREDENTIALS})
"""What only an operator, or a developer, can mend."""


class Reply(Struct, frozen=True):
    """What APNs answered."""

    status: int
    reason: str = ""  # empty if the body had none that can be read
    timestamp: datetime | None = None
    retry_after: float | None = None


class Lost(Struct, frozen=True):
    """No answer came; `untouched` if it is certain that the server never took the request."""

    how: str
    untouched: bool = False


class _Body(Struct):
    reason: str = ""
    timestamp: Any = None  # milliseconds


def read(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> Reply:
    """Reads an answer; what can't be read of it counts as not said."""
    status = headers.get(b":status", b"")
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Body()
    return Reply(
        int(status) if status.isdigit() else 0,
        said.reason if said.reason.isascii() and said.reason.isalnum() else "",
        _to_time(said.timestamp),
        _to_seconds(headers.get(b"retry-after", b"")),
    )


def fault(status: int, reason: str) -> Fault | None:
    """Whose fault it is; None for what APNs doesn't answer."""
    if reason in FAULTS:
        return FAULTS[reason]
    return Fault.SERVER if 500 <= status < 600 else _BY_STATUS.get(status)


def classify(
    status: int,
    reason: str,
    timestamp: datetime | None = None,
    retry_after: float | None = None,
    *,
    apns_id: str | None = None,
) -> Answer:
    """What one answer means for the message, the device's token, the connection and the channel.

    A token is dead by Apple's word only, and only if it was registered no later than `timestamp`
    (`Rejected.dead_since`). Our credentials and Apple's own troubles count for the breaker, and no
    token is touched. `retry_after` is in seconds and lengthens a pause, never shortens it.
    """
    if status == 200:
        return Answer(Sent(apns_id))
    word = f"apns_{reason or status}"
    match fault(status, reason):
        case Fault.DEAD:
            return Answer(Rejected(word, address_dead=True, dead_since=timestamp))
        case Fault.CONTEXT:
            return Answer(Rejected(word, quarantine=True))
        case Fault.REQUEST:
            return Answer(Rejected(word))
        case Fault.SETTING:
            return Answer(Rejected(word), provider_failed=True)
        case transient:
            return _later(word, transient, retry_after)


def _later(word: str, transient: Fault | None, retry_after: float | None) -> Answer:
    pause = retry_after or 0.0
    match transient:
        case Fault.DEVICE:
            return Answer(Deferred(word, max(DEVICE_PAUSE, pause)))
        case Fault.CONNECTION:
            return Answer(Deferred(word, retry_after), keep=False)
        case Fault.SERVER:
            return Answer(Deferred(word, max(SERVER_PAUSE, pause)), provider_failed=True)
        case _:  # our credentials, or no answer of APNs at all
            return Answer(Deferred(word, retry_after), provider_failed=True, keep=False)


def lost(how: str, *, untouched: bool) -> Answer:
    """What it means that no answer came, once the request was sent."""
    outcome: Any = Deferred if untouched else Unknown
    return Answer(outcome(f"apns_{how}"), provider_failed=True, keep=False)


def _to_time(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _to_seconds(value: bytes) -> float | None:
    """Retry-After in seconds; its other form, a date, Apple doesn't use."""
    return min(float(value), _MOST_PAUSE) if value.isdigit() else None
