"""The table of reasons: what each means for the person and for the operator, and what the operator does about it.

A decision is taken for each channel as an event is created; a delivery that is not sent, or not yet, has a reason of
its own. docs/delivery.md is generated from both tables (`make reasons`). In a code, `…` stands for any text, `yz` for
two digits and `.x` for a number; the first row that fits counts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from tocsin.engine.actors.apns.reply import REFUSALS, RefusalKind

_NOTHING = "Nothing."
_UNLESS_IT_STAYS = "Nothing, unless it continues."
_NO_PROVIDER = "Set TOCSIN_SMTP_URL, TOCSIN_APNS_KEY or TOCSIN_FCM_SERVICE_ACCOUNT for the workers."
_NETWORK = "Check the network, TOCSIN_CA_FILE and the provider's URL."
_THEIRS = "Nothing: it is the person's choice."
_ASK_FOR_ANOTHER = "The app can ask for another address."


class DecisionReason(Struct, frozen=True):
    """Why a channel is on or off. The sentence may use `channel`, `decision`, `scope`, `label` and `topic`."""

    code: str
    decision: str  # on, off, or both
    sentence: str  # for the person
    meaning: str  # for the operator
    cure: str


class DeliveryReason(Struct, frozen=True):
    """Why a delivery is in its state. `clause` continues "It was not sent: "; empty where the code is clear enough."""

    codes: tuple[str, ...]
    state: str
    clause: str  # for the person
    meaning: str  # for the operator
    cure: str

    @property
    def final(self) -> bool:
        """Whether the delivery has ended with this reason."""
        return self.state not in ("queued", "deferred")


DECISIONS = (
    DecisionReason(
        "default",
        "on, off",
        "{Channel} is {decision} for {label} by default.",
        "The event type's default.",
        "Set an override, or change the catalogue.",
    ),
    DecisionReason(
        "preference",
        "on, off",
        "You turned {channel} {decision} for {scope}.",
        "The person's override, for the type, its category or all.",
        _THEIRS,
    ),
    DecisionReason(
        "mandatory",
        "on",
        "{Channel} is always on for {label}: nobody can turn it off.",
        "The event type is mandatory on this channel.",
        "Change the catalogue if that is wrong.",
    ),
    DecisionReason(
        "no_provider",
        "off",
        "{Channel} is not set up on this service.",
        "No worker has a provider for this channel.",
        _NO_PROVIDER,
    ),
    DecisionReason(
        "no_device",
        "off",
        "Push is on, but no device of yours is registered.",
        "No device of the person is registered, or all were disabled; `why` has the reason.",
        "The app registers one.",
    ),
    DecisionReason(
        "no_address",
        "off",
        "Email is on, but there is no email address of yours.",
        "The person has no email address.",
        "The app can give one by `upsert_recipient`.",
    ),
    DecisionReason(
        "suppressed",
        "off",
        "Email is on, but your address must not be mailed any more: mail to it came back, or was declined.",
        "The address must not be mailed: it does not exist, or was unsubscribed without an account.",
        _ASK_FOR_ANOTHER,
    ),
    DecisionReason(
        "digest",
        "off",
        "It waits for your digest and does not come as a mail of its own.",
        "The person's digest covers it.",
        _THEIRS,
    ),
    DecisionReason("muted", "off", "You muted {topic}.", "The person muted the topic.", _THEIRS),
    DecisionReason(
        "not_mentioned",
        "off",
        "You follow {topic} for mentions only, and you were not mentioned.",
        "The person follows the topic for mentions only, and was not mentioned.",
        _THEIRS,
    ),
    DecisionReason(
        "invited",
        "on",
        "The address had no account, so it gets a mail.",
        "The address had no account, and a mail was requested.",
        _NOTHING,
    ),
    DecisionReason(
        "no_account",
        "off",
        "{Channel} needs an account, and the address had none.",
        "The address had no account.",
        "Nothing; the app calls `claim_email` after sign-up.",
    ),
    DecisionReason(
        "claimed",
        "on",
        "It came to an address of yours before you had this account.",
        "The inbox of the person who claimed the address.",
        _NOTHING,
    ),
    DecisionReason(
        "imported",
        "on, off",
        "{Channel} is {decision}: this was imported from an earlier inbox, and nothing was sent.",
        "It was imported from an earlier inbox, and nothing was sent.",
        _NOTHING,
    ),
    DecisionReason(
        "initiator",
        "off",
        "You caused it yourself.",
        "The person caused the event; kept with the event, in place of a notification.",
        _NOTHING,
    ),
)

TOPIC_REASONS = {
    "followed": "you follow {topic}",
    "replied": "you replied in {topic}",
    "mentioned": "you were mentioned in {topic}",
}
"""Why a person who was not named gets an event of a topic; continues "You get this because "."""


_WITH_A_ROW_OF_THEIR_OWN = frozenset(
    {"BadDeviceToken", "ExpiredToken", "PayloadTooLarge", "TooManyProviderTokenUpdates"}
)


def _apns(fault: RefusalKind) -> tuple[str, ...]:
    """Returns the codes of Apple's reasons of one kind."""
    names = (name for name, found in REFUSALS.items() if found is fault)
    return tuple(f"apns_{name}" for name in names if name not in _WITH_A_ROW_OF_THEIR_OWN)


# What the engine itself decides, and what is the same for all providers.
_ENGINE = (
    DeliveryReason(("quiet_hours",), "deferred", "it waits for your quiet hours to end",
                   "The person's quiet hours have to end.", _NOTHING),
    DeliveryReason(("delayed",), "deferred", "it waits for you to read it first",
                   "The event type allows some time to read it in the inbox first.", _NOTHING),
    DeliveryReason(("changed",), "deferred", "", "The digest's content changed: it is rendered again.", _NOTHING),
    DeliveryReason(("replayed",), "queued", "", "An operator replayed it.", _NOTHING),
    DeliveryReason(("worker_lost",), "queued", "the process that was sending it went away",
                   "Its worker died or hung; it is tried again.", "Look at that worker's log."),
    DeliveryReason(("shutdown",), "deferred", "",
                   "Its worker stopped before it was sent. No attempt is counted.", _NOTHING),
    DeliveryReason(("circuit_open",), "deferred", "",
                   "The provider fails, and its circuit breaker is open. No attempt is counted.",
                   "See the actor's breaker for the cause."),
    DeliveryReason(("look_failed", "look_too_slow"), "deferred", "",
                   "The presend check failed or was late. No attempt is counted.",
                   "The database is slow or unavailable: look there."),
    DeliveryReason(("actor_crashed",), "deferred", "",
                   "A bug in an actor. Only the message that caused it spends an attempt.",
                   "The worker's log has type and place. Report it."),
    DeliveryReason(("timeout",), "deferred", "",
                   "Not done within 60 s. After the final dot of a mail the outcome is unknown.",
                   "The provider is slow: look there."),
    DeliveryReason(("cancelled",), "cancelled", "it was taken back", "The app cancelled the event.", _NOTHING),
    DeliveryReason(("expired",), "expired", "its time was over", "The event type's time to live was over.",
                   "If there is a backlog, see what waits."),
    DeliveryReason(("opted_out_since",), "skipped", "you turned it off in the meantime",
                   "The person turned it off, or follows the topic no longer.", _NOTHING),
    DeliveryReason(("muted",), "skipped", "you had muted the topic by then",
                   "The person muted the topic in the meantime.", _NOTHING),
    DeliveryReason(("already_read",), "skipped", "you had read it by then",
                   "The person had read it before it was sent.", _NOTHING),
    DeliveryReason(("no_address",), "skipped", "there was no address of yours by then",
                   "The person has no email address.", "The app can give one."),
    DeliveryReason(("suppressed",), "skipped", "your address must not be mailed any more",
                   "The address must not be mailed.", _ASK_FOR_ANOTHER),
    DeliveryReason(("no_provider",), "skipped", "", "No worker has a provider for it.", _NO_PROVIDER),
    DeliveryReason(("device_moved",), "skipped", "the device is somebody else's now, or was forgotten",
                   "The device was registered by another person, or was removed.", _NOTHING),
    DeliveryReason(("no_device",), "skipped", "the device was disabled in the meantime",
                   "The device was disabled or removed; a disabled one has its own reason.", _NOTHING),
    DeliveryReason(("claimed",), "skipped", "it was in your inbox by then",
                   "The address had an account by then: the notification is in that inbox.", _NOTHING),
    DeliveryReason(("erased",), "skipped", "you were erased here in the meantime", "The person was erased.", _NOTHING),
    DeliveryReason(("attempts_exhausted",), "failed", "it could not be delivered in all the tries that it has",
                   "Transient refusals until no attempt was left.",
                   "See the last attempt's reason; replay when its cause is corrected."),
    DeliveryReason(("render_failed",), "failed", "", "A template failed.",
                   "The worker's log has file and line. Correct it, restart the workers, replay."),
    DeliveryReason(("not_a_mail", "not_a_push", "apns_no_badge"), "failed", "",
                   "A bug: the message is not one for this actor.", "Report it."),
)  # fmt: skip

_EMAIL = (
    DeliveryReason(("smtp_…_storm",), "deferred", "",
                   "Every address is refused, so none is believed to be invalid: none is suppressed, and no attempt is "
                   "counted.",
                   "Check TOCSIN_SMTP_URL, and what that server relays and where to; restart the workers if it was "
                   "changed."),
    DeliveryReason(("invalid_address", "invalid_header"), "failed", "",
                   "No mail can be made with this address or header.", "Correct the person's address, then replay."),
    DeliveryReason(("invalid_sender",), "failed", "", "No mail can be made with this sender.",
                   "Correct TOCSIN_EMAIL_FROM; restart the workers, then replay."),
    DeliveryReason(("smtp_connect_…", "smtp_host_unknown", "smtp_timeout_connect"), "deferred", "",
                   "The mail server can't be reached.", "Is it running? Check TOCSIN_SMTP_URL and the network."),
    DeliveryReason(("smtp_tls_…",), "deferred", "", "TLS is required and could not be established.",
                   "Check its certificate, TOCSIN_CA_FILE, and ?starttls= of TOCSIN_SMTP_URL."),
    DeliveryReason(("smtp_530…", "smtp_534…", "smtp_535…", "smtp_538…", "smtp_auth_…"), "deferred", "",
                   "The mail server refuses the login.",
                   "Check user name and password in TOCSIN_SMTP_URL; restart the workers."),
    DeliveryReason(("smtp_4yz…",), "deferred", "", "The mail server asks to try again later.",
                   "Look at its log or status page, if it continues."),
    DeliveryReason(("smtp_5yz_5.7.x", "smtp_5yz_5.1.7", "smtp_5yz_5.1.8"), "failed", "",
                   "Refused by policy, or for the sender's reputation.",
                   "Check SPF, DKIM, block lists and the provider's console."),
    DeliveryReason(("smtp_5yz_5.1.x", "smtp_5yz_5.2.1"), "failed", "",
                   "The mailbox does not exist; the address is suppressed.", _ASK_FOR_ANOTHER),
    DeliveryReason(("smtp_5yz…",), "failed", "", "The mail server refused it permanently.",
                   "Read that server's documentation."),
    DeliveryReason(("smtp_disconnected…", "smtp_timeout…", "smtp_protocol_error…"), "deferred", "",
                   "The dialogue with the mail server broke off. After the body the outcome is unknown.",
                   _UNLESS_IT_STAYS),
    DeliveryReason(("smtputf8_unsupported",), "failed", "", "The address has letters that this server can't take.",
                   "Use another server."),
)  # fmt: skip

_PUSH = (
    DeliveryReason(("apns_…_storm", "fcm_…_storm"), "deferred",
                   "every device was refused just then, so that none is believed to be bad",
                   "Every device is refused, so none is believed to be invalid: none is disabled, and no attempt is "
                   "counted.",
                   "Check topic, URL and environment (APNs) or the project of the service account (FCM); restart the "
                   "workers."),
    DeliveryReason(("payload_too_large",), "failed", "it is larger than a push may be",
                   "The push is too large.", "Less data in the event."),
    DeliveryReason(("payload_not_json",), "failed", "its content can't be sent in a push",
                   "The content can't be written as JSON.", "Correct the data of the event."),
    DeliveryReason(("invalid_text",), "failed", "its text is broken",
                   "The text can't be written in UTF-8.", "Correct the data of the event."),
    DeliveryReason(("stale",), "disabled", "its app has not registered it again for 270 days",
                   "A device that was not registered again for 270 days.", _NOTHING),
)  # fmt: skip

_APNS = (
    DeliveryReason(("apns_ExpiredToken",), "failed", "Apple reports that its token has expired",
                   "The token expired; it is dead unless it was registered again since.", _NOTHING),
    DeliveryReason(_apns(RefusalKind.DEAD), "failed", "Apple reports that the app was removed from it",
                   "The app is gone from the device; the token is dead unless it was registered again since Apple's "
                   "timestamp.",
                   _NOTHING),
    DeliveryReason(("apns_BadDeviceToken",), "failed",
                   "Apple does not know its token, which may be one of the other environment",
                   "The token is of the other environment; it is put in quarantine.",
                   "Check the environment that the app registers with."),
    DeliveryReason(_apns(RefusalKind.CONTEXT), "failed", "Apple reports that its token is another app's",
                   "The token is another app's; it is put in quarantine.", "Check TOCSIN_APNS_TOPIC."),
    DeliveryReason(("apns_invalid_token",), "failed", "what was registered for it is no token of Apple's",
                   "The token is not one of Apple's; the device is disabled.", "The app registers the right one."),
    DeliveryReason(("apns_TooManyProviderTokenUpdates",), "deferred",
                   "Apple wants no new token of this service yet", "Apple accepts no new provider token yet.",
                   "Does something else sign tokens for this team? It passes."),
    DeliveryReason((*_apns(RefusalKind.CREDENTIALS), "apns_403"), "deferred", "Apple refuses the key of this service",
                   "Apple refuses our key: the channel pauses, and no device is disabled.",
                   "Check TOCSIN_APNS_KEY, its id and team, and the clock; restart the workers."),
    DeliveryReason(_apns(RefusalKind.SETTING), "failed", "Apple refuses the app's id that this service has",
                   "Apple refuses the app's id.", "Check TOCSIN_APNS_TOPIC; restart the workers."),
    DeliveryReason((*_apns(RefusalKind.DEVICE), "apns_429"), "deferred", "Apple reports that it got too many",
                   "Too many for this one device.", "Send fewer pushes to it."),
    DeliveryReason(_apns(RefusalKind.CONNECTION), "deferred", "Apple closed the connection",
                   "Apple closed the connection.", _UNLESS_IT_STAYS),
    DeliveryReason((*_apns(RefusalKind.SERVER), "apns_5yz"), "deferred", "Apple could not take it",
                   "Apple can't take it now.", "Nothing; see Apple's status page, if it continues."),
    DeliveryReason(("apns_PayloadTooLarge",), "failed", "it is larger than Apple takes",
                   "The push is too large.", "Less data in the event."),
    DeliveryReason((*_apns(RefusalKind.REQUEST), "apns_400", "apns_404", "apns_405", "apns_413"), "failed",
                   "Apple refuses how it was sent", "The request itself is refused; the worker's log has the reason.",
                   "Less data in the event; else report it."),
    DeliveryReason(("apns_connect_…", "apns_host_unknown", "apns_tls_…", "apns_timeout_connect"), "deferred",
                   "Apple did not take it", "APNs can't be reached.", _NETWORK),
    DeliveryReason(("apns_…",), "deferred", "Apple did not take it",
                   "No response, or an unknown one. The outcome is unknown unless nothing was sent.", _UNLESS_IT_STAYS),
)  # fmt: skip

_FCM = (
    DeliveryReason(("fcm_404_unregistered",), "failed", "Google reports that the app was removed from it",
                   "The app is gone from the device; the token is dead unless it was registered again since.",
                   _NOTHING),
    DeliveryReason(("fcm_403_sender_id_mismatch",), "failed", "Google reports that its token is another project's",
                   "The token is another project's; it is put in quarantine.",
                   "Does the app use the project of the service account?"),
    DeliveryReason(("fcm_400_…token", "fcm_400_token"), "failed", "Google does not know its token",
                   "The token is not one of FCM's; it is put in quarantine.",
                   "Does the app use the project of the service account?"),
    DeliveryReason(("fcm_400…", "fcm_413…"), "failed", "Google refuses how it was sent",
                   "The request itself is refused; the worker's log has the fields.",
                   "Less data in the event; else report it."),
    DeliveryReason(("fcm_401…", "fcm_403…", "fcm_404…", "fcm_token_refused"), "deferred",
                   "Google refuses the account of this service",
                   "Google refuses our account, or its project; no device is disabled.",
                   "Check TOCSIN_FCM_SERVICE_ACCOUNT, the clock, and the API and Apple's key in Google's console; "
                   "restart the workers."),
    DeliveryReason(("fcm_token_timeout", "fcm_token_unreachable", "fcm_token_unreadable", "fcm_token_5yz"), "deferred",
                   "Google did not take it", "The account's token_uri can't be reached, or fails.",
                   "Check the network and TOCSIN_CA_FILE."),
    DeliveryReason(("fcm_429…_device",), "deferred", "Google reports that it got too many",
                   "Too many for this one device.", "Send fewer pushes to it, or collapse them."),
    DeliveryReason(("fcm_429…",), "deferred", "Google takes no more of this service for the moment",
                   "FCM takes no more now: the quota is used up.", _UNLESS_IT_STAYS),
    DeliveryReason(("fcm_5yz…",), "deferred", "Google could not take it", "FCM can't take it now.",
                   "Nothing; see Google's status page, if it continues."),
    DeliveryReason(("fcm_connect_…", "fcm_host_unknown", "fcm_tls_…", "fcm_timeout_connect"), "deferred",
                   "Google did not take it", "FCM can't be reached.", _NETWORK),
    DeliveryReason(("fcm_…",), "deferred", "Google did not take it",
                   "No response, or an unknown one. The outcome is unknown unless nothing was sent.", _UNLESS_IT_STAYS),
)  # fmt: skip

PUSH_REASONS = (*_PUSH, *_APNS, *_FCM)
DELIVERIES = (*_ENGINE, *_EMAIL, *PUSH_REASONS)

_DECISIONS = {each.code: each for each in DECISIONS}


def _pattern(code: str) -> str:
    return re.escape(code).replace("…", ".*").replace("yz", r"\d\d").replace(r"\.x", r"\.\d+")


_PATTERNS = [(re.compile("|".join(map(_pattern, each.codes))), each) for each in DELIVERIES]


def decision_reason(code: str) -> DecisionReason | None:
    """Returns the row of a decision's reason; None if it is not known."""
    return _DECISIONS.get(code)


@lru_cache(maxsize=1024)
def delivery_reason(code: str) -> DeliveryReason | None:
    """Returns the row of a delivery's or device's reason; None if it is another actor's."""
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(code)), None)


def meaning_and_cure(code: str) -> tuple[str, str]:
    """Returns what a delivery's reason means and what an operator does; both empty if it is another actor's."""
    row = delivery_reason(code)
    return (row.meaning, row.cure) if row else ("", "")
