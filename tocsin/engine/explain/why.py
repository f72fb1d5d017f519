"""Why somebody did (not) get something, in plain English."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Struct

from tocsin.engine.explain.reasons import none_left, unreached
from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.notification import Decisions, DeliveryRecord, DeviceRecord, why

# Why somebody is told what happens in a topic, or is not, in words for people.

_BECAUSE = {
    "followed": "you follow {topic}",
    "replied": "you replied in {topic}",
    "mentioned": "you were mentioned in {topic}",
}
_NOT_TOLD = {
    "muted": "You muted {topic}.",
    "not_mentioned": "You follow {topic} for mentions only, and you were not mentioned.",
}


def why_told(because: str | None, topic: str | None) -> str | None:
    """`you replied in forum.thread:42`, to go after "because"; None where it is no topic's doing."""
    words = _BECAUSE.get(because or "")
    return None if words is None or topic is None else words.format(topic=topic)


def why_not_told(because: str | None, topic: str | None) -> str | None:
    """A sentence; None where it is no topic's doing."""
    words = _NOT_TOLD.get(because or "")
    return None if words is None or topic is None else words.format(topic=topic)


_CHANNELS = {"in_app": "the inbox", "email": "email", "push": "push"}
_OFF = {
    "no_provider": "{Channel} is not set up on this service.",
    "no_address": "Email is on, but there is no email address of yours.",
    "no_device": "Push is on, but no device of yours is registered.",
    "suppressed": "Email is on, but your address must not be mailed any more: mail to it came back, or was declined.",
    "digest": "It waits for your digest and does not come as a mail of its own.",
    "initiator": "You caused it yourself.",
    "muted": "You muted it.",
    "no_account": "{Channel} needs an account, and the address had none.",
}
_ON = {
    "invited": "The address had no account, so it gets a mail.",
    "claimed": "It came to an address of yours before you had this account.",
}
_UNSENT = {
    "opted_out_since": "you turned it off in the meantime",
    "already_read": "you had read it by then",
    "suppressed": "your address must not be mailed any more",
    "no_address": "there was no address of yours by then",
    "no_device": "the device was disabled in the meantime",
    "device_moved": "the device is somebody else's now, or was forgotten",
    "claimed": "it was in your inbox by then",
    "erased": "you were erased here in the meantime",
    "cancelled": "it was taken back",
    "expired": "its time was over",
    "attempts_exhausted": "it could not be delivered in all the tries that it has",
    "throttled": "there were too many just then",
    "muted": "you had muted the topic by then",
    "worker_lost": "the process that was sending it went away",
}
_WAITS = {
    "quiet_hours": "It waits for your quiet hours to end,",
    "delayed": "It waits for you to read it first,",
}


class ExplainedAttempt(Struct, frozen=True):
    """One try."""

    at: datetime
    outcome: str
    reason: str | None


class ExplainedDelivery(Struct, frozen=True):
    """What became of one delivery; its address is masked."""

    state: str
    reason: str | None
    address: str | None
    attempts: list[ExplainedAttempt]


class ExplainedChannel(Struct, frozen=True):
    """What was decided for a channel, and why."""

    channel: str
    decision: str  # on or off
    reason: str
    sentence: str
    deliveries: list[ExplainedDelivery]


class Explanation(Struct, frozen=True):
    """The whole answer."""

    channels: list[ExplainedChannel]


async def explanation(database: Database, notification_id: int) -> list[str]:
    """Who was told what and when, and a line per channel; for an operator. Raises NotFound."""
    decided = await why(database, [notification_id])
    if notification_id not in decided:
        raise NotFound("There is no such notification.")
    told = decided[notification_id]
    what = f"{told.title!r} ({told.event_type}, event {told.event_id})"
    return [
        f"{told.recipient_id or told.email}, {told.created_at:%Y-%m-%d %H:%M:%S} UTC: {what}",
        *(f"{each.channel}: {each.sentence}" for each in explain(told).channels),
    ]


def explain(decided: Decisions) -> Explanation:
    """Sentences for each channel, and its deliveries with masked addresses."""
    records = msgspec.convert(decided.deliveries, list[DeliveryRecord])
    return Explanation(
        [
            _channel(decided, name, [record for record in records if record.channel == name])
            for name in decided.channels
        ]
    )


def mask(address: str) -> str:
    """`a***e@example.com`; of a device token its last six characters."""
    local, at, domain = address.rpartition("@")
    if not at:
        return f"***{address[-6:]}" if len(address) > 12 else "***"
    return f"{local[:1]}***{local[-1] if len(local) > 2 else ''}@{domain}"


def _channel(decided: Decisions, channel: str, records: list[DeliveryRecord]) -> ExplainedChannel:
    decision, reason, *scope = decided.decisions[channel]
    sentences = [_decision(decided, channel, scope[0] if scope else None)]
    cause = why_told(decided.because, decided.topic)
    if cause is not None and decision == "on":
        sentences.insert(0, f"You get this because {cause}.")
    if channel == "in_app" and decision == "on":
        sentences.append(_inbox(decided))
    sentences += [unreached(record) or _delivery(record) for record in records]
    return ExplainedChannel(
        channel,
        decision,
        reason,
        " ".join(sentences),
        [
            ExplainedDelivery(
                record.state,
                record.reason,
                None if record.address is None else mask(record.address),
                [ExplainedAttempt(a.at, a.outcome, a.reason) for a in record.attempts],
            )
            for record in records
        ],
    )


def _decision(decided: Decisions, channel: str, scope: str | None) -> str:
    decision, reason = decided.decisions[channel][:2]
    name = _CHANNELS.get(channel, channel.replace("_", " "))
    if reason == "preference":
        return f"You turned {name} {decision} for {_scope(decided, scope)}."
    if reason == "mandatory":
        return (
            f"{_start(name)} is always on for {decided.event_type_label}: nobody can turn it off."
        )
    if reason == "default":
        return f"{_start(name)} is {decision} for {decided.event_type_label} by default."
    if (sentence := _special(decided, reason)) is not None:
        return sentence
    if reason in _ON:
        return _ON[reason]
    known = _OFF.get(reason, "{Channel} is off: " + reason.replace("_", " ") + ".")
    return known.format(Channel=_start(name))


def _special(decided: Decisions, reason: str) -> str | None:
    """Where there is more to say than the reason: of the topic, of the devices that were disabled."""
    if reason == "no_device" and decided.disabled_devices:
        return none_left(msgspec.convert(decided.disabled_devices, list[DeviceRecord]))
    return why_not_told(reason, decided.topic)


def _scope(decided: Decisions, scope: str | None) -> str:
    if scope == "*":
        return "everything"
    if scope is not None and scope.endswith(".*"):
        return f"everything in {decided.category_label}"
    return decided.event_type_label


def _inbox(decided: Decisions) -> str:
    if decided.cancelled:
        return "It was taken back since."
    return "You removed it since." if decided.archived else "It is in your inbox."


def _delivery(record: DeliveryRecord) -> str:
    cause = _UNSENT.get(record.reason or "", (record.reason or "").replace("_", " "))
    match record.state:
        case "sent":
            return "The digest was sent." if record.digest else "It was sent."
        case "deferred" if record.reason in _WAITS and record.due_at is not None:
            return f"{_WAITS[record.reason]} until {record.due_at:%Y-%m-%d %H:%M} UTC."
        case "queued" | "sending":
            return "It is on its way."
        case "deferred":
            return f"It could not be sent yet ({cause or 'no answer'}) and is tried again."
        case "failed":
            return f"It could not be sent: {cause or 'no reason was given'}."
        case "cancelled":
            return "It was taken back before it was sent."
        case "expired":
            return "It was not sent: its time was over."
        case _:
            return f"It was not sent: {cause or 'no reason was given'}."


def _start(name: str) -> str:
    return name[:1].upper() + name[1:]
