"""What a delivery's reason means, and what an operator does about it: docs/delivery.md in a line each. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tocsin.engine.actors.apns.reply import REFUSALS, RefusalKind, refusal_kind
from tocsin.engine.store.notification import DeliveryRecord, DeviceRecord

# Why a phone was not reached, in plain English: what Apple and Google mean by their reasons (docs/delivery.md).

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
    RefusalKind.DEAD: "Apple says that the app was removed from it",
    RefusalKind.CONTEXT: "Apple says that its token is not for here",
    RefusalKind.REQUEST: "Apple refuses how it was sent",
    RefusalKind.SETTING: "Apple refuses the app's id that this service has",
    RefusalKind.CREDENTIALS: "Apple refuses the key of this service",
    RefusalKind.DEVICE: "Apple says that it got too many",
    RefusalKind.CONNECTION: "Apple closed the connection",
    RefusalKind.SERVER: "Apple could not take it",
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
    known = REFUSALS.get(said) or (refusal_kind(int(said), "") if said.isdigit() else None)
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


_NOTHING = "Nothing."
_PASSES = "Nothing, unless it stays."
_APNS_KEY = "Check TOCSIN_APNS_KEY, its id and team, and the clock; restart the workers."
_FCM_ACCOUNT = (
    "Check TOCSIN_FCM_SERVICE_ACCOUNT, and the API in Google's console; restart the workers."
)

# the first that fits the whole reason
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        "smtp_.*_storm",
        "Every address is refused, so none is believed to be dead.",
        "Check TOCSIN_SMTP_URL, and what that server relays and where to; restart the workers if it changed.",
    ),
    (
        r".*_storm",
        "Every device is refused, so none is believed to be bad.",
        "Check topic, URL and environment (APNs) or the project of the service account (FCM); restart the workers.",
    ),
    ("quiet_hours", "It waits for the person's quiet hours to end.", _NOTHING),
    ("delayed", "The event type waits for it to be read first.", _NOTHING),
    ("replayed", "An operator replayed it.", _NOTHING),
    ("changed", "It is rendered anew: what it says changed.", _NOTHING),
    ("circuit_open", "The provider fails, and rests.", "See the actor's breaker for why."),
    ("shutdown", "Its worker stopped before it was sent.", _NOTHING),
    ("worker_lost", "Its worker died or hung.", "Look at that worker's log."),
    (
        "look_failed|look_too_slow",
        "The presend check got no answer in time.",
        "The database is slow or away: look there.",
    ),
    (
        "actor_crashed",
        "A bug in an actor.",
        "The worker's log has type and place. Report it.",
    ),
    ("timeout", "Not done within 60 s.", "The provider is slow: look there."),
    ("expired", "Its time to live was over.", "A backlog? See what waits."),
    ("cancelled", "The app took it back.", _NOTHING),
    ("opted_out_since|muted", "The person turned it off meanwhile.", _NOTHING),
    ("already_read", "The person had read it by then.", _NOTHING),
    ("no_address", "The person has no email address.", "The app can give one."),
    ("suppressed", "The address must not be mailed.", "The app can ask for another one."),
    (
        "no_provider",
        "No worker has a provider for it.",
        "Set TOCSIN_SMTP_URL, TOCSIN_APNS_KEY or TOCSIN_FCM_SERVICE_ACCOUNT for the workers.",
    ),
    ("device_moved|no_device", "The device is gone, or somebody else's now.", _NOTHING),
    ("claimed", "The address had an account by then: it is in that inbox.", _NOTHING),
    ("erased", "The person was erased.", _NOTHING),
    (
        "attempts_exhausted",
        "Transient refusals until no attempt was left.",
        "See the last attempt's reason; replay when it is mended.",
    ),
    (
        "render_failed",
        "A template failed.",
        "The worker's log has file and line. Mend it, restart the workers, replay.",
    ),
    (
        "invalid_address|invalid_header",
        "No mail can be made with this address or header.",
        "Correct the person's address, then replay.",
    ),
    (
        "smtp_(connect_.*|host_unknown|timeout_connect)",
        "The mail server can't be reached.",
        "Is it up? Check TOCSIN_SMTP_URL and the network.",
    ),
    (
        "smtp_tls_.*",
        "No TLS, though it is needed.",
        "Check its certificate, TOCSIN_CA_FILE, and ?starttls= of TOCSIN_SMTP_URL.",
    ),
    (
        "smtp_(53[0-9]|auth_).*",
        "The mail server refuses the login.",
        "Check user name and password in TOCSIN_SMTP_URL; restart the workers.",
    ),
    (
        r"smtp_550_5\.1\..*|smtp_5\d\d_5\.1\.[0-6].*|smtp_5\d\d_5\.2\.1.*",
        "The mailbox does not exist.",
        "The app can ask for another address.",
    ),
    (r"smtp_4.*", "The mail server says: later.", "Look at its log or status page, if it stays."),
    (
        r"smtp_5\d\d_5\.7.*",
        "Refused by policy, or for our reputation.",
        "Check SPF, DKIM, block lists and the provider's console.",
    ),
    (r"smtp_5.*", "The mail server refused it for good.", "Read that server's documentation."),
    (
        r"smtp_(disconnected|timeout|protocol_error).*",
        "The dialogue with the mail server broke off.",
        _PASSES,
    ),
    (
        "smtputf8_unsupported",
        "The address has letters that this server can't take.",
        "Use another server.",
    ),
    (
        "apns_(Unregistered|ExpiredToken)|fcm_404_unregistered",
        "The app is gone from the device.",
        _NOTHING,
    ),
    (
        "apns_(BadDeviceToken|DeviceTokenNotForTopic)",
        "The token is of the other environment, or another app's.",
        "Check the environment that the app registers with, and TOCSIN_APNS_TOPIC.",
    ),
    (
        "fcm_403_sender_id_mismatch|fcm_400_.*token",
        "The token is another project's, or none.",
        "Does the app use the project of the service account?",
    ),
    (r"apns_(\w*ProviderToken|403.*|Forbidden)", "Apple refuses our key.", _APNS_KEY),
    (
        "apns_TooManyProviderTokenUpdates",
        "Apple wants no new token of us yet.",
        "Does something else sign tokens for this team? It passes.",
    ),
    (
        "apns_(BadTopic|MissingTopic|TopicDisallowed)",
        "Apple refuses the app's id.",
        "Check TOCSIN_APNS_TOPIC; restart the workers.",
    ),
    ("apns_TooManyRequests|fcm_429.*_device", "Too many for one device.", "Fewer pushes for it."),
    (
        "(apns|fcm)_(connect_.*|host_unknown|tls_.*|timeout_connect)",
        "The provider can't be reached.",
        "Check the network, TOCSIN_CA_FILE and the provider's URL.",
    ),
    (
        "apns_(InternalServerError|ServiceUnavailable|Shutdown|5.*)|fcm_(429|5).*",
        "The provider can't take it now.",
        "Nothing; see the provider's status page, if it stays.",
    ),
    (
        "fcm_token_(timeout|unreachable|unreadable|5.*)",
        "The account's token_uri can't be reached, or fails.",
        "Check the network and TOCSIN_CA_FILE.",
    ),
    (r"fcm_(401|403|404).*|fcm_token_refused", "Google refuses our account.", _FCM_ACCOUNT),
    (
        "apns_PayloadTooLarge|fcm_(400|413).*|payload_.*|invalid_t.*|apns_Bad.*|apns_Missing.*",
        "The request itself is refused.",
        "Less data in the event; else report it.",
    ),
    (r"(apns|fcm)_.*", "The provider did not answer as it should.", _PASSES),
)


def remedy(reason: str) -> tuple[str, str]:
    """What it means, and what to do; both empty for a reason of another actor."""
    for pattern, meaning, cure in _KNOWN:
        if re.fullmatch(pattern, reason):
            return meaning, cure
    return "", ""
