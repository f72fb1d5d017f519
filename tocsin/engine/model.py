"""The nouns of the engine: frozen structs and enums, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from msgspec import Struct

# A time zone by PostgreSQL's rules, by which everything is due: a mail shows the hour at which it comes.


class Zone(Struct, frozen=True, eq=False):
    """`starts` are the seconds since 1970 at which the clock is changed, `utc_offsets` what holds from each on."""

    name: str
    starts: tuple[int, ...]
    utc_offsets: tuple[int, ...]

    def local(self, at: datetime) -> datetime:
        """Returns the same moment by the zone's clock; raises OverflowError in the years 1 and 9999."""
        place = max(bisect_right(self.starts, at.timestamp()) - 1, 0)
        return at.astimezone(timezone(timedelta(seconds=self.utc_offsets[place])))

    def has_rules_of(self, other: Zone) -> bool:
        """Returns whether both have the same rules."""
        return (self.starts, self.utc_offsets) == (other.starts, other.utc_offsets)


class Channel(StrEnum):
    """A way to reach a person."""

    IN_APP = "in_app"
    EMAIL = "email"
    PUSH = "push"
    WEB_PUSH = "web_push"
    WEBHOOK = "webhook"
    CHAT = "chat"


LEASE = timedelta(seconds=30)
"""How long a claim holds without being renewed; then the deliveries of a dead worker are due again."""


class Provider(Struct, frozen=True):
    """A service that sends on a channel; `label` is its name on pages, `setting` what configures it, if anything."""

    channel: Channel
    label: str
    setting: str | None = None  # None: each worker has it


PROVIDERS = {
    "email": Provider(Channel.EMAIL, "Email", "TOCSIN_SMTP_URL"),
    "apns": Provider(Channel.PUSH, "APNs", "TOCSIN_APNS_KEY"),
    "apns_sandbox": Provider(Channel.PUSH, "APNs (sandbox)", "TOCSIN_APNS_KEY"),
    "fcm": Provider(Channel.PUSH, "FCM", "TOCSIN_FCM_SERVICE_ACCOUNT"),
    "web_push": Provider(Channel.WEB_PUSH, "Web Push", "TOCSIN_VAPID_KEY"),
    "chat": Provider(Channel.CHAT, "Chat"),
    "webhook": Provider(Channel.WEBHOOK, "Webhook"),
}
"""All providers, by the name of the actor; tests/unit/test_providers.py checks the rest against this table."""


class Priority(IntEnum):
    """How urgent an event type is; `HIGH` mails always go alone and first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class EventType(Struct, frozen=True):
    """One event type with its category's label."""

    category: str
    category_label: str
    event_type: str
    label: str
    default_channels: list[str]
    mandatory_channels: list[str]
    priority: str
    digest: bool
    throttle: str | None = None  # such as 10/1h


class DeliveryState(StrEnum):
    """The state of a delivery; TRANSITIONS has what may follow each."""

    QUEUED = "queued"
    SENDING = "sending"
    DEFERRED = "deferred"
    SENT = "sent"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_S = DeliveryState
TRANSITIONS: dict[DeliveryState | None, tuple[DeliveryState, ...]] = {
    None: (_S.QUEUED, _S.DEFERRED, _S.SKIPPED),
    _S.QUEUED: (_S.SENDING, _S.DEFERRED, _S.SENT, _S.FAILED, _S.CANCELLED, _S.EXPIRED),
    _S.SENDING: tuple(state for state in _S if state is not _S.SENDING),
    _S.DEFERRED: (_S.QUEUED, _S.SENDING, _S.SENT, _S.FAILED, _S.CANCELLED, _S.EXPIRED),
    # an operator replays what failed, and an app any message of a webhook
    _S.FAILED: (_S.QUEUED,),
    _S.SENT: (_S.QUEUED,),
    _S.SKIPPED: (_S.QUEUED,),
    _S.CANCELLED: (),
    _S.EXPIRED: (_S.QUEUED,),
}
"""What may follow each state, None being a new delivery. The statements of tocsin/sql that write a state name theirs in
a comment (`-- states: queued | deferred -> cancelled`), and docs/delivery.md has the diagram: a test compares all."""


class Sent(Struct, frozen=True):
    """The provider accepted it."""

    provider_id: str | None = None


class Deferred(Struct, frozen=True):
    """A transient refusal: try again, not before `retry_after` seconds if the provider requested that."""

    reason: str
    retry_after: float | None = None


class Rejected(Struct, frozen=True):
    """A permanent refusal; `address_dead` when the address itself must not be used again.

    `quarantine`: the address is good, but not in this context (another environment, another app).
    `dead_since`: what was registered after this is another matter.
    """

    reason: str
    address_dead: bool = False
    quarantine: bool = False
    dead_since: datetime | None = None


class Unknown(Struct, frozen=True):
    """The provider may or may not have it: repeat under the same id."""

    reason: str


class Withheld(Struct, frozen=True):
    """The presend check withheld it: it was not sent, and ends in `state`, or is DEFERRED for `retry_after` seconds.

    `state` None: the claim is no longer ours.
    """

    state: DeliveryState | None
    reason: str
    retry_after: float = 0.0


class Unsent(Struct, frozen=True):
    """Never tried (shutdown, open breaker, restart): due again after `retry_after` seconds; no attempt is spent."""

    reason: str
    retry_after: float = 0.0


Outcome = Sent | Deferred | Rejected | Unknown | Withheld | Unsent


class InlineImage(Struct, frozen=True):
    """A picture that travels with a mail; its HTML shows it as `cid:` and the id."""

    content_id: str
    kind: str  # png, jpeg or gif
    content: bytes


class Filled(Struct, frozen=True):
    """A text as pieces that many mails have in common, and each one's values between them."""

    pieces: tuple[str, ...]
    values: tuple[str, ...]


class Mail(Struct, frozen=True):
    """One rendered email, without its address: the presend check returns it.

    `filled`: the same HTML as a precompiled template and its values.
    """

    message_id: str  # with its angle brackets; the same for each attempt
    subject: str
    text: str
    html: str
    headers: tuple[tuple[str, str], ...] = ()
    images: tuple[InlineImage, ...] = ()
    filled: Filled | None = None
    tag: str = ""  # of its delivery, for the return path


class PushKind(StrEnum):
    """What a push is for; people see only the first."""

    ALERT = "alert"
    BADGE = "badge"  # corrects the number on the icon, without a sound
    BACKGROUND = "background"  # wakes the app, shows nothing


class PushButton(Struct, frozen=True):
    """A button of a push to a browser; `navigate` is the page that asks before it presses."""

    action: str
    title: str
    navigate: str


class Push(Struct, frozen=True):
    """One push notification, without its device and its badge: the presend check returns these."""

    title: str = ""
    body: str = ""
    data: dict[str, Any] = {}  # for the app, texts alone; "aps" is the provider's
    kind: PushKind = PushKind.ALERT
    sound: str | None = "default"
    thread_id: str | None = None  # shown together on the device
    collapse_id: str | None = None  # a later one with the same id takes its place
    category: str | None = None  # iOS shows the buttons that the app registered for it
    expires_at: datetime | None = None  # not shown after that
    link: str | None = None  # opens it and marks it read, for browsers
    buttons: tuple[PushButton, ...] = ()  # for browsers


class WebhookBody(Struct, frozen=True):
    """What a webhook is sent: the same at each attempt."""

    type: str
    timestamp: datetime  # when it happened
    data: dict[str, Any]


class Message(Struct, frozen=True):
    """One claimed delivery as its actor gets it."""

    delivery_id: int
    claim: UUID
    channel: Channel
    priority: Priority
    content: Mail | Push | WebhookBody
    others: tuple[int, ...] = ()  # deliveries that go with it, under the same claim
    contents: tuple[int, ...] = ()  # of a digest: its notifications, in order of their ids
    traceparent: str | None = None  # of its request, by W3C Trace Context


class CheckResult(Struct, frozen=True):
    """The result of the presend check of one delivery: of the moment just before its first byte is sent."""

    delivery_id: int
    address: str  # of this moment: an email address, a device token, a target's URL
    checked_at: datetime  # the database's clock, UTC
    withheld: Withheld | None = None
    badge: int | None = None  # unread notifications at this moment, for push
    sandbox: bool = False  # the device token is one of the provider's test environment
    options: dict[str, Any] | None = None  # of a browser its keys; of a target name, kind, secrets
    others: tuple[CheckResult, ...] = ()  # on those that go with it


PresendCheck = Callable[[Sequence[Message]], Awaitable[dict[int, CheckResult]]]
"""Checks several deliveries in one query; the claim of one that is missing from the result is lost."""


class Settlement(Struct, frozen=True):
    """An outcome, the check on which the message was sent, and the provider that it is of.

    `elsewhere`: the provider failed before it could have accepted the message, so that another one may be tried.
    `begun_at`: when its first byte was sent (monotonic); None: none was.
    """

    outcome: Outcome
    check_result: CheckResult | None = None  # None: it was never checked
    provider: str | None = None
    elsewhere: bool = False
    begun_at: float | None = None


class Claimed(Struct, frozen=True):
    """A delivery that this worker has claimed, with all that rendering needs."""

    delivery_id: int
    claim: UUID
    notification_id: int | None  # None for a digest, a badge, and a target of a topic
    event_id: int | None
    recipient_id: str | None  # None for an address without an account, and a target of a topic
    channel: Channel
    priority: Priority
    attempt: int  # 1 for the first
    max_attempts: int
    expires_at: datetime | None  # not sent after that
    mandatory: bool
    event_type: str
    label: str  # of the event type
    category: str
    title: str
    body: str
    body_html: str | None
    action_url: str | None
    initiator: str | None
    name: str | None  # of the recipient
    locale: str | None
    timezone: str | None  # of the digest where it is one and has its own
    created_at: datetime
    metadata: dict[str, Any] = {}
    data: dict[str, str] | None = None  # what the app gave for phones
    actions: list[dict[str, Any]] | None = None  # as the event has them
    burst_id: int | None = None  # those with the same one go as one mail
    digest_id: int | None = None
    topic: str | None = None
    subject: str | None = None  # what it is about
    replaces: bool = False  # earlier ones of its subject
    because: str | None = None  # of a topic: followed, replied or mentioned
    reason: str | None = None  # of an email's decision: default, preference or mandatory
    invited: str | None = None  # the address of somebody without an account
    # for the title of several about one subject
    initiator_name: str | None = None
    title_many: dict[str, dict[str, str]] | None = None
    # the presend check that was made by the claim itself
    address: str = ""
    checked_at: datetime | None = None
    sandbox: bool = False
    badge: int | None = None
    options: dict[str, Any] | None = None
    withheld: str | None = None
    near_limit: bool = False  # whether the limits of messages to the person have to be counted
    zone: Zone | None = None  # of the time zone's name, by PostgreSQL's rules
    counted: Sequence[int] | None = None  # further deliveries, which its message only counts

    @property
    def is_for_app(self) -> bool:
        """Whether it is a message to an app's webhook."""
        return self.channel is Channel.WEBHOOK and self.notification_id is None

    @property
    def check_result(self) -> CheckResult | None:
        """The result of that check, where it withholds nothing; a digest is checked once it is rendered."""
        if self.checked_at is None or self.withheld is not None or self.digest_id is not None:
            return None
        return CheckResult(
            self.delivery_id,
            self.address,
            self.checked_at,
            badge=self.badge,
            sandbox=self.sandbox,
            options=self.options,
        )


class Entry(Struct, frozen=True):
    """One notification in a digest."""

    digest_id: int | None  # None while it waits for one
    recipient_id: str
    notification_id: int
    event_type: str
    created_at: datetime
    read: bool  # or archived
    title: str
    body: str
    body_html: str | None
    action_url: str | None
    label: str  # of the event type
    category: str
    category_label: str
    actions: list[dict[str, Any]] | None = None  # as the event has them
    subject: str | None = None  # None also for a type that is not grouped
    about: str | None = None  # the name of what it is about
    initiator: str | None = None
    initiator_name: str | None = None
    title_many: dict[str, dict[str, str]] | None = None
    count: int = 1  # of several about one subject, which are one entry


class Badge(Struct, frozen=True):
    """The badge: how many are unread, and how many of them the person has not seen yet."""

    count: int
    unseen: int


class SignedToken(Struct, frozen=True):
    """A token as all workers share it."""

    key: str  # which key signed it
    token: str
    issued_at: int  # Unix seconds
    early: bool = False  # in place of one that Apple called expired before its time


class ActorState(Struct, frozen=True):
    """One actor of a worker, for operators."""

    name: str
    waiting: int  # in its mailbox
    size: int  # of its mailbox
    in_flight: int
    senders: int
    rate: float | None  # messages a second at most; None: unlimited
    breaker: str  # closed, open or half_open
    crashes: int  # since the process started
    advice: str | None  # what to check, while every address is refused


class SendHold(Struct, frozen=True):
    """A provider's request for a pause: nothing is sent for so many seconds to what `key` names."""

    key: str  # an actor, or one target of it
    reason: str
    seconds: float


class ActorReport(ActorState, frozen=True):
    """The same with times in seconds before or after the report."""

    breaker_reason: str | None
    failing_for: float  # since the breaker first opened; 0 while it is closed
    retry_in: float  # until it probes; 0 unless open


class NotFound(Exception):
    """It is not there, or not yours."""


class Acted(Struct, frozen=True):
    """Which button a person pressed, and when."""

    key: str
    at: datetime


class Refused(Exception):
    """It is over, or decided already; to try again changes nothing.

    `reason` is a word for programs, `acted` what was chosen before.
    """

    def __init__(self, message: str, reason: str | None = None, acted: Acted | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.acted = acted


class Conflict(Exception):
    """It is in progress elsewhere; try again shortly."""


class Invalid(Exception):
    """Well-formed but wrong: `fields` pairs each field at fault with what to do about it."""

    def __init__(self, message: str, *fields: tuple[str, str]) -> None:
        super().__init__(message)
        self.fields = fields


class Unavailable(Exception):
    """The database can't be reached just now; try again shortly."""
