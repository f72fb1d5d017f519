"""The outbox of a test: what the app's code notified on this connection, in its open transaction or committed.

Nothing is sent and no service runs: `notify()` itself decides each channel and queues the deliveries, in the same
transaction. So a test sees the decisions that hold in production, and a rollback at its end removes everything.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any, NoReturn

from tocsin.client.connections import caller_for
from tocsin.sql import load
from tocsin.testing.contents import (
    Contents,
    OutboxDelivery,
    OutboxEvent,
    OutboxNotification,
    read_contents,
)

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
        return self._read().find_notifications(recipient, event_type)

    def deliveries(
        self, channel: str | None = None, recipient: object = None
    ) -> list[OutboxDelivery]:
        """Returns each mail and push that is queued, the oldest first. What joins a digest has none."""
        return self._read().find_deliveries(channel, recipient)

    def assert_notified(
        self, recipient: object, event_type: str, *, channel: str | None = None
    ) -> OutboxNotification:
        """Returns the newest notification of this person and type, which at least one channel (or this one) carries.

        Raises AssertionError that lists what was notified instead.
        """
        return self._read().assert_notified(recipient, event_type, channel)

    def assert_not_notified(self, recipient: object, event_type: str | None = None) -> None:
        """Raises AssertionError where the person gets something (of this type) by a channel or in a digest."""
        self._read().assert_not_notified(recipient, event_type)

    def assert_nothing(self) -> None:
        """Raises AssertionError that lists the events, where there is one that was not cancelled."""
        self._read().assert_nothing()

    def clear(self) -> None:
        """Forgets what was notified until now."""
        self._after = _value(self._connection, "last_event")

    def forget_earlier_transactions(self) -> None:
        """Forgets what was committed before the open transaction; without one, all that was notified until now."""
        self._after = _value(self._connection, "last_event_before_transaction")

    def _read(self) -> Contents:
        return read_contents(_value(self._connection, "outbox", self._after))


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
        return (await self._read()).find_notifications(recipient, event_type)

    async def deliveries(
        self, channel: str | None = None, recipient: object = None
    ) -> list[OutboxDelivery]:
        return (await self._read()).find_deliveries(channel, recipient)

    async def assert_notified(
        self, recipient: object, event_type: str, *, channel: str | None = None
    ) -> OutboxNotification:
        return (await self._read()).assert_notified(recipient, event_type, channel)

    async def assert_not_notified(self, recipient: object, event_type: str | None = None) -> None:
        (await self._read()).assert_not_notified(recipient, event_type)

    async def assert_nothing(self) -> None:
        (await self._read()).assert_nothing()

    async def clear(self) -> None:
        self._after = await _await_value(self._connection, "last_event")

    async def forget_earlier_transactions(self) -> None:
        self._after = await _await_value(self._connection, "last_event_before_transaction")

    async def _read(self) -> Contents:
        return read_contents(await _await_value(self._connection, "outbox", self._after))


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
