"""Why a person did, or did not, get something: the reasons of one notification as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from msgspec import Struct

from tocsin.engine.explain.reasons import (
    PUSH_REASONS,
    TOPIC_REASONS,
    WAITING_REASONS,
    decision_reason,
    delivery_reason,
)
from tocsin.engine.model import NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.notification import (
    AttemptRecord,
    Decisions,
    DeliveryRecord,
    DeviceRecord,
    MailEventRecord,
    why,
)

_CHANNELS = {
    "in_app": "the inbox",
    "email": "email",
    "push": "push",
    "web_push": "push in your browser",
    "webhook": "your webhook",
    "chat": "chat",
}
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PHONES = {"ios": "iPhone", "android": "Android phone"}


class ExplainedDelivery(Struct, frozen=True):
    """The state of one delivery; its address is masked."""

    state: str
    reason: str | None
    address: str | None
    attempts: list[AttemptRecord]
    mail_event: MailEventRecord | None = None  # the mail came back, or was marked as spam


class ExplainedChannel(Struct, frozen=True):
    """What was decided for a channel, and why."""

    channel: str
    decision: str  # on or off
    reason: str
    sentence: str
    deliveries: list[ExplainedDelivery]


class Explanation(Struct, frozen=True):
    """All channels of one notification."""

    channels: list[ExplainedChannel]


def explain(decided: Decisions) -> Explanation:
    """Returns sentences for each channel, and its deliveries with masked addresses."""
    records = msgspec.convert(decided.deliveries, list[DeliveryRecord])
    return Explanation(
        [
            _channel(decided, name, [record for record in records if record.channel == name])
            for name in decided.channels
        ]
    )


async def explain_in_lines(database: Database, notification_id: int) -> list[str]:
    """Returns the event and a line per channel, for an operator. Raises NotFound."""
    found = await why(database, [notification_id])
    if notification_id not in found:
        raise NotFound("There is no such notification.")
    decided = found[notification_id]
    what = f"{decided.title!r} ({decided.event_type}, event {decided.event_id})"
    return [
        f"{decided.recipient_id or decided.email}, {decided.created_at:%Y-%m-%d %H:%M:%S} UTC: {what}",
        *(f"{each.channel}: {each.sentence}" for each in explain(decided).channels),
    ]


def mask(address: str) -> str:
    """Returns `a***e@example.com`; of a device token its last six characters."""
    local, at, domain = address.rpartition("@")
    if not at:
        return f"***{address[-6:]}" if len(address) > 12 else "***"
    return f"{local[:1]}***{local[-1] if len(local) > 2 else ''}@{domain}"


def _channel(decided: Decisions, channel: str, records: list[DeliveryRecord]) -> ExplainedChannel:
    decision, reason, *scope = decided.decisions[channel]
    sentences = [_decision(decided, channel, scope[0] if scope else None)]
    if decision == "on" and decided.topic and decided.because in TOPIC_REASONS:
        cause = TOPIC_REASONS[decided.because].format(topic=decided.topic)
        sentences.insert(0, f"You get this because {cause}.")
    if channel == "in_app" and decision == "on":
        sentences.append(_inbox(decided))
        if decided.left_inbox is not None:
            decision, reason = "off", decided.left_inbox
    sentences += [
        undelivered_push(record) or _returned_mail(record) or _delivery(record)
        for record in records
    ]
    return ExplainedChannel(
        channel,
        decision,
        reason,
        " ".join(sentences),
        [
            ExplainedDelivery(
                record.state,
                record.reason,
                _shown(record),
                record.attempts,
                record.mail_event,
            )
            for record in records
        ],
    )


def _shown(record: DeliveryRecord) -> str | None:
    """Returns the address, masked unless it is the name of a target."""
    if record.address is None or record.by_name:
        return record.address
    return mask(record.address)


def _decision(decided: Decisions, channel: str, scope: str | None) -> str:
    decision, reason = decided.decisions[channel][:2]
    if reason == "no_device" and decided.disabled_devices:
        return _all_disabled(msgspec.convert(decided.disabled_devices, list[DeviceRecord]))
    if (decision, reason) == ("off", "preference") and scope in decided.complaints:
        return f"Email is off: you marked a mail about {_scope(decided, scope)} as spam."
    row = decision_reason(reason)
    name = _CHANNELS.get(channel, channel.replace("_", " "))
    sentence = row.sentence if row else "{Channel} is off: " + reason.replace("_", " ") + "."
    return sentence.format(
        channel=name,
        Channel=_start(name),
        decision=decision,
        scope=_scope(decided, scope),
        label=decided.event_type_label,
        topic=decided.topic or "it",
    )


def _scope(decided: Decisions, scope: str | None) -> str:
    if scope == "*":
        return "everything"
    if scope is not None and scope.endswith(".*"):
        return f"everything in {decided.category_label}"
    return decided.event_type_label


def _inbox(decided: Decisions) -> str:
    if row := decision_reason(decided.left_inbox or ""):
        return row.sentence
    return "You removed it since." if decided.archived else "It is in your inbox."


def _delivery(record: DeliveryRecord) -> str:
    row = delivery_reason(record.reason or "")
    clause = (row.clause if row else "") or (record.reason or "").replace("_", " ")
    match record.state:
        case "sent":
            return "The digest was sent." if record.digest else "It was sent."
        case "deferred" if record.reason in WAITING_REASONS and record.due_at is not None:
            return f"{_start(clause)}, until {record.due_at:%Y-%m-%d %H:%M} UTC."
        case "queued" | "sending":
            return "It is on its way."
        case "deferred":
            return f"It could not be sent yet ({clause or 'no answer'}) and is tried again."
        case "failed":
            return f"It could not be sent: {clause or 'no reason was given'}."
        case "cancelled":
            return f"{_start(clause or 'it was taken back')} before it was sent."
        case "expired":
            return "It was not sent: its time was over."
        case _:
            return f"It was not sent: {clause or 'no reason was given'}."


def _returned_mail(record: DeliveryRecord) -> str | None:
    """Returns a sentence on a mail that came back, or that the person marked as spam; None for any other delivery."""
    event = record.mail_event
    if event is None:
        return None
    row = delivery_reason(event.reason)
    clause = row.clause if row else "it came back"
    after = (
        ""
        if record.settled_at is None
        else f"{_span(event.at - record.settled_at)} after it was sent"
    )
    verb = "bounced " if event.kind == "bounce" else ""
    note = f"{verb}{after}".strip()
    return f"{_start(clause)}{f' ({note})' * bool(note)}."


def _span(span: timedelta) -> str:
    """Returns a span of time in words, such as "two minutes"."""
    for unit, seconds in _UNITS:
        if (n := round(span.total_seconds() / seconds)) >= 1:
            return f"{_NUMBERS[n] if n < len(_NUMBERS) else n} {unit}{'s' * (n != 1)}"
    return "less than a minute"


def undelivered_push(record: DeliveryRecord) -> str | None:
    """Returns a sentence on a push that its provider refused; None for any other delivery."""
    if record.channel != "push":
        return None
    device, reason = record.device, record.reason or ""
    if reason == "no_device" and device is not None and device.disabled_reason:
        return f"Your {_name(device)} gets no more: {provider_reason(device.disabled_reason)}."
    words = provider_reason(reason)
    if words is None or record.state not in ("failed", "deferred"):
        return None
    if record.state == "deferred":
        return f"Your {_name(device)} was not reached yet: {words}; it is tried again."
    ends = device is not None and device.disabled_reason == reason
    return f"Your {_name(device)} was not reached: {words}{'; it gets no more' * ends}."


def provider_reason(code: str) -> str | None:
    """Returns what a provider's reason means, with its own words in brackets; None if it is no provider's."""
    row = delivery_reason(code)
    if row is None or row not in PUSH_REASONS:
        return None
    return f"{row.clause} ({_plain(code.removeprefix('apns_').removeprefix('fcm_'))})"


def _all_disabled(devices: Sequence[DeviceRecord]) -> str:
    each = [f"your {_name(d)}: {provider_reason(d.disabled_reason or '')}" for d in devices]
    return f"Push is on, but no device of yours gets any more ({'; '.join(each)})."


def _plain(reason: str) -> str:
    """Returns `BadDeviceToken` and `404_unregistered` as words."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).replace("_", " ").lower()
    return re.sub(r"^\d{3} (?=\D)", "", apart)


def _name(device: DeviceRecord | None) -> str:
    """Returns a device's platform and the last six characters of its token, if it is still registered."""
    if device is None:
        return "device"
    end = f" …{device.token}" if device.token else ""
    return _PHONES.get(device.platform, "device") + end


def _start(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
