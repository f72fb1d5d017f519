"""Why a phone was not reached, in plain English: what Apple and Google mean by their reasons (docs/delivery.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tocsin.engine.actors.apns_reply import FAULTS, Fault, fault
from tocsin.engine.store.notification import DeliveryRecord, DeviceRecord

_PHONES = {"ios": "iPhone", "android": "Android phone"}
_OURS = {
    "stale": "its app has not registered it anew for 270 days",
    "payload_too_large": "it is larger than a push may be",
    "payload_not_json": "its content can't be sent in a push",
    "invalid_text": "its text is broken",
    "render_failed": "it could not be written",
}
_APPLE = {
    "ExpiredToken": "Apple says that its token has expired",
    "BadDeviceToken": "Apple does not know its token, which may be one of the other environment",
    "DeviceTokenNotForTopic": "Apple says that its token is another app's",
    "PayloadTooLarge": "it is larger than Apple takes",
    "TooManyProviderTokenUpdates": "Apple wants no new token of this service yet",
    "invalid_token": "what was registered for it is no token of Apple's",
}
_FAULTS = {
    Fault.DEAD: "Apple says that the app was removed from it",
    Fault.CONTEXT: "Apple says that its token is not for here",
    Fault.REQUEST: "Apple refuses how it was sent",
    Fault.SETTING: "Apple refuses the app's id that this service has",
    Fault.CREDENTIALS: "Apple refuses the key of this service",
    Fault.DEVICE: "Apple says that it got too many",
    Fault.CONNECTION: "Apple closed the connection",
    Fault.SERVER: "Apple could not take it",
}
_GOOGLE = (
    (r"404_unregistered", "Google says that the app was removed from it"),
    (r"403_sender_id_mismatch", "Google says that its token is another project's"),
    (r"400_.*token|400_token", "Google does not know its token"),
    (r"413.*|400_.*|400", "Google refuses how it was sent"),
    (r"40[134].*|token_refused", "Google refuses the account of this service"),
    (r"429.*_device", "Google says that it got too many"),
    (r"429.*", "Google takes no more of this service for the moment"),
    (r"5\d\d.*", "Google could not take it"),
)


def unreached(record: DeliveryRecord) -> str | None:
    """A sentence on a push that did not arrive; None where the provider has no part in that."""
    if record.channel != "push":
        return None
    device, reason = record.device, record.reason or ""
    if reason == "no_device" and device is not None and device.disabled_reason:
        return f"Your {_name(device)} gets no more: {in_words(device.disabled_reason)}."
    words = in_words(reason)
    if words is None or record.state not in ("failed", "deferred"):
        return None
    if record.state == "deferred":
        return f"Your {_name(device)} was not reached yet: {words}; it is tried again."
    ends = device is not None and device.disabled_reason == reason
    return f"Your {_name(device)} was not reached: {words}{'; it gets no more' * ends}."


def none_left(devices: Sequence[DeviceRecord]) -> str:
    """A sentence on a person all of whose devices were disabled."""
    each = [f"your {_name(d)}: {in_words(d.disabled_reason or 'disabled')}" for d in devices]
    return f"Push is on, but no device of yours gets any more ({'; '.join(each)})."


def in_words(reason: str) -> str | None:
    """What a reason means, with its own words in brackets; None for what is no provider's."""
    kind, _, said = reason.partition("_")
    if said.endswith("_storm"):
        clause = "every device was refused just then, so that none is believed to be bad"
    elif kind == "apns":
        clause = _APPLE.get(said) or _apple(said)
    elif kind == "fcm":
        clause = next((text for form, text in _GOOGLE if re.fullmatch(form, said)), None) or (
            "Google did not take it"
        )
    elif reason in _OURS:
        clause, said = _OURS[reason], reason
    else:
        return None
    return f"{clause} ({_plain(said)})"


def _apple(said: str) -> str:
    known = FAULTS.get(said) or (fault(int(said), "") if said.isdigit() else None)
    return _FAULTS[known] if known else "Apple did not take it"


def _plain(said: str) -> str:
    """`BadDeviceToken` and `404_unregistered` as words."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", said).replace("_", " ").lower()
    return re.sub(r"^\d{3} (?=\D)", "", apart)


def _name(device: DeviceRecord | None) -> str:
    """By its platform and the last six characters of its token, where it is registered still."""
    if device is None:
        return "device"
    end = f" …{device.token}" if device.token else ""
    return _PHONES.get(device.platform, "device") + end
