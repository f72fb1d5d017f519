"""The outbox of a test: what the app's code notified on this connection, in its open transaction or committed.

Nothing is sent and no service runs: `notify()` itself decides each channel and queues the deliveries, in the same
transaction. So a test sees the decisions that hold in production, and a rollback at its end removes everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, NoReturn

import psycopg
from psycopg.rows import tuple_row

from tocsin.client.connections import caller_for
from tocsin.sql import load
from tocsin.sql.install import catalogue, install

# A follower who muted the topic, or follows it for mentions only, has a notification that reaches nobody.
_WITHHELD = frozenset({"muted", "not_mentioned"})


@dataclass(frozen=True)
class OutboxEvent:
    """One call of `notify()`, `notify_topic()` or `notify_email()`."""

    id: int
    event_type: str
    title: str
    body: str
    body_html: str | None
    action_url: str | None
    metadata: dict[str, Any]
    initiator: str | None
    topic: str | None  # of notify_topic()
    email: str | None  # of notify_email()
    recipients: tuple[
        str, ...
    ]  # people with a notification; of a scheduled event: those that it names
    send_at: datetime | None
    created_at: datetime
    scheduled: bool  # nobody is notified yet: send_at lies in the future
    cancelled: bool

    def __str__(self) -> str:
        return f'event {self.id}, {self.event_type} "{self.title}"'


@dataclass(frozen=True)
class OutboxDecision:
    """Whether a channel will carry a notification, and why; docs/delivery.md has the reasons."""

    channel: str
    on: bool
    reason: str  # such as default, preference, mandatory, no_address, no_device, muted
    scope: str | None  # of the preference that decided: a type, "category.*" or "*"

    @property
    def joins_digest(self) -> bool:
        """Whether it waits for the person's digest in place of a mail of its own."""
        return self.reason == "digest"

    def __str__(self) -> str:
        why = f"{self.reason} {self.scope}" if self.scope else self.reason
        return f"{self.channel} {'on' if self.on else 'off'} ({why})"


@dataclass(frozen=True)
class OutboxNotification:
    """An event for one person, with what was decided for each channel."""

    id: int
    event: OutboxEvent
    recipient: str | None  # None: an address without an account
    address: str | None  # of a person without an account
    because: (
        str | None
    )  # of a topic: followed, replied, mentioned; muted and not_mentioned reach nobody
    read: bool
    decisions: Mapping[str, OutboxDecision]  # by channel

    @property
    def event_type(self) -> str:
        return self.event.event_type

    @property
    def title(self) -> str:
        return self.event.title

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that carry it."""
        if self.event.cancelled:
            return ()
        return tuple(each.channel for each in self.decisions.values() if each.on)

    @property
    def notified(self) -> bool:
        """Whether the person gets it by some channel, or in a digest."""
        reaches = any(each.on or each.joins_digest for each in self.decisions.values())
        return reaches and self.because not in _WITHHELD and not self.event.cancelled

    def __str__(self) -> str:
        who = self.recipient or self.address
        channels = (
            "cancelled" if self.event.cancelled else ", ".join(map(str, self.decisions.values()))
        )
        return f'{who}: {self.event_type} "{self.title}": {channels}'


@dataclass(frozen=True)
class OutboxDelivery:
    """A message that is queued for one address or device."""

    id: int
    notification: OutboxNotification
    channel: str
    address: str | None  # the email address, or the device's push token
    provider: str | None  # of a push: apns or fcm
    state: str  # queued; deferred where quiet hours or a delay hold it; cancelled
    reason: str | None
    due_at: datetime | None  # of a deferred one

    @property
    def event(self) -> OutboxEvent:
        return self.notification.event

    @property
    def recipient(self) -> str | None:
        return self.notification.recipient


class Contents(NamedTuple):
    """Everything that an outbox holds at one moment; each list in the order in which it was made."""

    events: list[OutboxEvent]
    notifications: list[OutboxNotification]
    deliveries: list[OutboxDelivery]


def _contents_of(text: str) -> Contents:
    """Returns the contents from the JSON of the query `outbox`."""
    found = {name: rows or [] for name, rows in json.loads(text).items()}
    events = {row["id"]: _event(row) for row in found["events"]}
    notifications = {
        row["id"]: _notification(row, events[row.pop("event_id")]) for row in found["notifications"]
    }
    return Contents(
        list(events.values()),
        list(notifications.values()),
        [_delivery(row, notifications[row.pop("notification_id")]) for row in found["deliveries"]],
    )


def _event(row: dict[str, Any]) -> OutboxEvent:
    recipients = tuple(row.pop("recipients"))
    send_at, created_at = _time(row.pop("send_at")), datetime.fromisoformat(row.pop("created_at"))
    return OutboxEvent(**row, recipients=recipients, send_at=send_at, created_at=created_at)


def _notification(row: dict[str, Any], event: OutboxEvent) -> OutboxNotification:
    decisions = {
        channel: OutboxDecision(channel, decision == "on", reason, scope[0] if scope else None)
        for channel, (decision, reason, *scope) in row.pop("decisions").items()
    }
    return OutboxNotification(**row, event=event, decisions=decisions)


def _delivery(row: dict[str, Any], notification: OutboxNotification) -> OutboxDelivery:
    return OutboxDelivery(**row | {"due_at": _time(row["due_at"])}, notification=notification)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _is(wanted: object, found: str | None) -> bool:
    # ids of the host app may be int or UUID
    return wanted is None or str(wanted) == found


def _lines(each: Iterable[object]) -> str:
    return "\n".join(f"  {line}" for line in each)


_NOT_INSTALLED = "The schema tocsin is not there: call tocsin.testing.install_schema() once for the test database."
_CURES = {
    "3F000": _NOT_INSTALLED,
    "42P01": _NOT_INSTALLED,
    "42501": "An outbox reads Tocsin's tables: let tests connect as the role that installed the schema, "
    "or grant tocsin_service to theirs.",
    "25P02": "An earlier statement of this transaction failed, so nothing can be read in it: "
    "let the code that fails run in a savepoint.",
}


class OutboxError(Exception):
    """The outbox can't be read on this connection; one sentence with the cure."""


class Outbox:
    """What was notified, as `connection` sees it: in its open transaction, and committed before.

    `connection` is any that `notify()` takes and whose calls are not awaited. Each look reads the database. Raises
    InvalidArgument for another object, and OutboxError where it can't be read.
    """

    def __init__(self, connection: object) -> None:
        if is_async(connection):
            raise OutboxError(
                "The calls of this connection are awaited: use AsyncOutbox(connection)."
            )
        self._connection = connection
        self._after = 0

    @property
    def events(self) -> list[OutboxEvent]:
        """Each call of a function that notifies, the oldest first; scheduled and cancelled ones too."""
        return self._read().events

    def notifications(
        self, recipient: object = None, event_type: str | None = None
    ) -> list[OutboxNotification]:
        """Returns each event for each person, the oldest first; also those that no channel carries."""
        return [
            each
            for each in self._read().notifications
            if _is(recipient, each.recipient) and _is(event_type, each.event_type)
        ]

    def deliveries(
        self, channel: str | None = None, recipient: object = None
    ) -> list[OutboxDelivery]:
        """Returns each mail and push that is queued, the oldest first. What joins a digest has none."""
        return [
            each
            for each in self._read().deliveries
            if _is(channel, each.channel) and _is(recipient, each.recipient)
        ]

    def assert_notified(
        self, recipient: object, event_type: str, *, channel: str | None = None
    ) -> OutboxNotification:
        """Returns the newest notification of this person and type, which at least one channel (or this one) carries.

        Raises AssertionError that lists what was notified instead.
        """
        for each in reversed(self.notifications(recipient, event_type)):
            if each.notified and (channel is None or channel in each.channels):
                return each
        by = f" by {channel}" if channel else ""
        raise AssertionError(
            f"{recipient} was not notified of {event_type}{by}. {self._instead(recipient)}"
        )

    def assert_not_notified(self, recipient: object, event_type: str | None = None) -> None:
        """Raises AssertionError where the person gets something (of this type) by a channel or in a digest."""
        found = [each for each in self.notifications(recipient, event_type) if each.notified]
        if found:
            what = f" of {event_type}" if event_type else ""
            raise AssertionError(f"{recipient} was notified{what}:\n{_lines(found)}")

    def assert_nothing(self) -> None:
        """Raises AssertionError that lists the events, where there is one that was not cancelled."""
        if any(not each.cancelled for each in self.events):
            raise AssertionError(f"Something was notified. {self._instead(None)}")

    def clear(self) -> None:
        """Forgets what was notified until now."""
        self._after = _value(self._connection, "last_event")

    def forget_earlier_transactions(self) -> None:
        """Forgets what was committed before the open transaction; without one, all that was notified until now."""
        self._after = _value(self._connection, "last_event_before_transaction")

    def _read(self) -> Contents:
        return _contents_of(_value(self._connection, "outbox", self._after))

    def _instead(self, recipient: object) -> str:
        found = self._read()
        lines: list[object] = list(found.notifications)
        for event in found.events:
            if event.scheduled:
                lines.append(f"{event}: scheduled for {event.send_at}, nobody is notified before")
            elif recipient is not None and event.initiator == str(recipient):
                lines.append(f"{event}: {recipient} is its initiator, who is never notified of it")
            elif not any(each.event.id == event.id for each in found.notifications):
                lines.append(f"{event}: reached nobody")
        return f"In the outbox:\n{_lines(lines)}" if lines else "The outbox is empty."


class _Snapshot(Outbox):
    """What an outbox held at one moment."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def _read(self) -> Contents:
        return self._contents


class AsyncOutbox:
    """The same for a connection whose calls are awaited; each method has to be awaited too."""

    def __init__(self, connection: object) -> None:
        if not is_async(connection):
            raise OutboxError(
                "The calls of this connection are not awaited: use Outbox(connection)."
            )
        self._connection = connection
        self._after = 0

    async def events(self) -> list[OutboxEvent]:
        return (await self._read()).events

    async def notifications(
        self, recipient: object = None, event_type: str | None = None
    ) -> list[OutboxNotification]:
        return (await self._read()).notifications(recipient, event_type)

    async def deliveries(
        self, channel: str | None = None, recipient: object = None
    ) -> list[OutboxDelivery]:
        return (await self._read()).deliveries(channel, recipient)

    async def assert_notified(
        self, recipient: object, event_type: str, *, channel: str | None = None
    ) -> OutboxNotification:
        return (await self._read()).assert_notified(recipient, event_type, channel=channel)

    async def assert_not_notified(self, recipient: object, event_type: str | None = None) -> None:
        (await self._read()).assert_not_notified(recipient, event_type)

    async def assert_nothing(self) -> None:
        (await self._read()).assert_nothing()

    async def clear(self) -> None:
        self._after = await _await_value(self._connection, "last_event")

    async def forget_earlier_transactions(self) -> None:
        self._after = await _await_value(self._connection, "last_event_before_transaction")

    async def _read(self) -> Outbox:
        return _Snapshot(_contents_of(await _await_value(self._connection, "outbox", self._after)))


def is_async(connection: object) -> bool:
    """Returns whether the calls of this connection are awaited."""
    return iscoroutinefunction(caller_for(connection).run)


def _value(connection: object, name: str, *arguments: object) -> Any:
    """Returns the one value that a query returns."""
    try:
        return caller_for(connection).run(load("testing")[name], arguments)
    except Exception as error:  # noqa: BLE001 - of any driver
        _raise_cure(error)


async def _await_value(connection: object, name: str, *arguments: object) -> Any:
    try:
        return await caller_for(connection).run(load("testing")[name], arguments)
    except Exception as error:  # noqa: BLE001 - of any driver
        _raise_cure(error)


def _raise_cure(error: Exception) -> NoReturn:
    """Raises OutboxError where the cure is known; else the error itself."""
    cause: BaseException | None = error
    while cause is not None:  # a framework wraps the driver's error
        if cure := _CURES.get(
            getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
        ):
            raise OutboxError(cure) from error
        cause = getattr(cause, "orig", None) or cause.__cause__
    raise error


CHANNELS = ("email", "push")


def install_schema(connection: Any, *, channels: Iterable[str] = CHANNELS) -> None:
    """Installs or updates the schemas `tocsin` and `tocsin_queue`, with the default event types.

    `connection` is a psycopg connection whose role may create schemas (the owner of a test database may), or a DSN.
    Committed at once, unless a transaction is open on it. `notify()` then decides as where workers have a provider for
    `channels`: without any it would decide "off (no_provider)". Raises MigrationError or RoleError with the cure.
    """
    if isinstance(connection, str):
        with psycopg.connect(connection, connect_timeout=5) as own:
            return install_schema(own, channels=channels)
    row_factory, connection.row_factory = connection.row_factory, tuple_row
    try:
        with connection.transaction():
            install(connection, catalogue())
            available = {"channels": list(channels)}
            connection.execute(load("testing")["make_channels_available"], available)
    finally:
        connection.row_factory = row_factory
    return None
