"""Targets: an app's webhooks, which are sent what happened; people's webhooks; and chats of people and of topics."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import structlog
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.engine.model import Conflict, DeliveryState, Invalid, NotFound, Refused, Unavailable
from tocsin.engine.store.database import Database, Queries, Session
from tocsin.engine.store.pagination import Cursor, Page
from tocsin.sql import load

WebhookType = Literal[
    "notification.created",
    "notification.read",
    "notification.acted",
    "delivery.sent",
    "delivery.failed",
    "delivery.bounced",
    "preference.changed",
    "recipient.unsubscribed",
]
"""What an app webhook can be sent."""

PERSONS_TYPE: WebhookType = "notification.created"
"""What a person's webhook is sent."""

BOTH_VALID = timedelta(hours=24)
"""After a rotation, the secret before is valid for so long too."""

MOST_REPLAYED = 10_000
"""Messages that one call replays."""

_SQL = load("target")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST_ID = 200
_PREFIX = "whsec_"
_SECRET_BYTES = 32
_NO_CHAT = "There is no chat target of that name."
_DISABLED = "The webhook is disabled: PUT it again, which enables it."
# Rows of one statement, each of up to 500 messages.
_ROWS = 20
# Seconds between two looks at the outbox, and while there is no app webhook.
_PAUSE = 0.25
_PAUSE_WITHOUT = 2.0
_CHECK_FAILING = timedelta(minutes=1)

log = structlog.get_logger("tocsin.webhooks")


class Webhook(Struct, frozen=True, kw_only=True):
    """One webhook, without its secrets."""

    name: str
    url: str
    events: list[WebhookType]  # empty for the webhook of a person
    recipient: str | None  # whose channel it is; None: it is the app's
    created_at: datetime
    updated_at: datetime
    failing_since: datetime | None  # None: the last attempt was accepted
    disabled_at: datetime | None
    disabled_reason: str | None


class WebhookWithSecret(Webhook, frozen=True, kw_only=True):
    """A new webhook, with its first secret."""

    secret: str


class RotatedSecret(Struct, frozen=True):
    """The new secret; the one before signs too until `previous_until`."""

    secret: str
    previous_until: datetime


class WebhookMessage(Struct, frozen=True):
    """One message to a webhook, by its id there."""

    id: str
    type: str
    at: datetime
    state: DeliveryState
    reason: str | None
    attempts: int


class Disabled(Struct, frozen=True):
    """A webhook that was disabled, and the reason."""

    name: str
    reason: str


class FailingWebhook(Struct, frozen=True):
    """A webhook of an app that is disabled, or that accepted nothing since a time."""

    name: str
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None


class _Found(Webhook, frozen=True, kw_only=True):
    id: int


class _Row(Struct):
    delivery_id: int
    type: str
    at: datetime
    state: DeliveryState
    reason: str | None
    attempts: int


def check_webhook(name: str, events: Sequence[str], recipient: str | None) -> None:
    """Raises Invalid for what no webhook can have."""
    wrong: list[tuple[str, str]] = []
    if not _NAME.fullmatch(name):
        wrong.append(("name", "Use 1 to 100 letters, digits, dots, underscores and hyphens."))
    if recipient is None and not events:
        known = ", ".join(get_args(WebhookType))
        wrong.append(("events", f"Name at least one of {known}; or a recipient."))
    if recipient is not None and not {*events} <= {PERSONS_TYPE}:
        cure = f"Leave it out: with a recipient, {PERSONS_TYPE} alone is sent, of that person."
        wrong.append(("events", cure))
    if recipient is not None and not 1 <= len(recipient) <= _LONGEST_ID:
        wrong.append(("recipient", f"An id has 1 to {_LONGEST_ID} characters."))
    if wrong:
        raise Invalid("the webhook is wrong", *wrong)


async def put_webhook(
    database: Database,
    name: str,
    *,
    url: str,
    events: Sequence[WebhookType],
    recipient: str | None,
) -> Webhook | WebhookWithSecret:
    """Makes a webhook, or changes it and enables it again; raises Invalid. `check_webhook` comes before it."""
    secret = _new_secret()
    async with database.transaction() as session:
        if recipient is not None and not await session.value(
            _SQL["recipient_exists"], recipient_id=recipient
        ):
            raise Invalid(
                "recipient is not known",
                ("recipient", "Make the person first: PUT /api/recipients/{id}/."),
            )
        created = await session.value(
            _SQL["put_webhook"],
            name=name,
            url=url,
            events=list(dict.fromkeys(events)),
            recipient_id=recipient,
            secrets=Jsonb([{"secret": secret}]),
        )
        found = await session.one(_Found, _SQL["list_webhooks"], name=name)
    webhook = _public(found)
    return WebhookWithSecret(**webhook, secret=secret) if created else Webhook(**webhook)


async def list_webhooks(database: Database) -> list[Webhook]:
    """Returns all of them by name."""
    found = await database.rows(_Found, _SQL["list_webhooks"], name=None)
    return [Webhook(**_public(each)) for each in found]


async def get_webhook(database: Database, name: str) -> Webhook:
    """Returns one; raises NotFound."""
    return Webhook(**_public(await _find(database, name)))


async def delete_webhook(database: Database, name: str) -> None:
    """Deletes a webhook: what waits for it is not sent. Raises NotFound."""
    if not await database.run(_SQL["delete_webhook"], name=name):
        raise _not_found(name)


async def rotate_secret(database: Database, name: str) -> RotatedSecret:
    """Makes a new secret; the newest one so far signs too for a day, older ones no more. Raises NotFound."""
    secret, until = _new_secret(), datetime.now(UTC) + BOTH_VALID
    if not await database.run(_SQL["rotate_secret"], name=name, secret=secret, until=until):
        raise _not_found(name)
    return RotatedSecret(secret, until)


async def queue_test(database: Database, name: str) -> str:
    """Queues a message of the type webhook.test; returns its id. Raises NotFound, and Refused where it is disabled."""
    found = await _find_enabled(database, name)
    return _message_id(await database.value(_SQL["queue_webhook_test"], id=found.id))


async def replay(
    database: Database,
    name: str,
    *,
    message: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    failed_only: bool = True,
) -> int:
    """Sends messages once more under their ids; returns how many. Raises NotFound, Invalid and Refused.

    One message, whatever became of it, or those that were queued in a span of time, the oldest first.
    """
    found = await _find_enabled(database, name)
    count: int = await database.value(
        _SQL["replay_webhook"],
        id=found.id,
        delivery_id=None if message is None else read_message_id(message),
        since=since,
        until=until,
        failed=failed_only and message is None,
        most=MOST_REPLAYED,
    )
    if message is not None and not count:
        raise NotFound("There is no such message that is over.")
    return count


async def list_messages(
    database: Database,
    name: str,
    *,
    state: DeliveryState | None,
    before: str | None,
    limit: int,
) -> list[WebhookMessage]:
    """Returns a webhook's messages, newest first, from below `before` on; raises NotFound and Invalid."""
    found = await _find(database, name)
    rows = await database.rows(
        _Row,
        _SQL["list_webhook_messages"],
        id=found.id,
        before=2**63 - 1 if before is None else read_message_id(before, "before"),
        state=state,
        limit=limit,
    )
    return [
        WebhookMessage(
            _message_id(row.delivery_id), row.type, row.at, row.state, row.reason, row.attempts
        )
        for row in rows
    ]


class Unsubscribed(Struct, frozen=True):
    """What a link in a mail turned off; the names are event types, categories or a topic."""

    scope: str  # type, category, all, topic or digest
    names: tuple[str, ...] = ()


async def report_unsubscribed(
    session: Session, recipient_id: str | None, what: Unsubscribed
) -> None:
    """Writes it to the outbox; without a recipient, it was an address without an account."""
    await session.value(
        _SQL["report_unsubscribed"],
        recipient_id=recipient_id,
        scope=what.scope,
        names=list(what.names),
    )


async def is_wanted(database: Database) -> bool:
    """Returns whether an app webhook wants anything, or the outbox has something left."""
    return bool(await database.value(_SQL["is_webhook_wanted"]))


async def queue_webhooks(database: Database, most: int) -> int:
    """Makes deliveries of up to `most` rows of the outbox; returns of how many rows."""
    return int(await database.value(_SQL["queue_webhooks"], most=most))


async def disable_failing(database: Database, *, now: datetime, since: datetime) -> list[Disabled]:
    """Disables webhooks that failed for five days; returns all that were disabled since a time."""
    return await database.rows(Disabled, _SQL["disable_failing_webhooks"], now=now, since=since)


async def failing_webhooks(database: Queries) -> list[FailingWebhook]:
    """Returns some of those of apps that fail or are disabled, the latest first."""
    return await database.rows(FailingWebhook, _SQL["failing_webhooks"])


def read_message_id(text: str, field: str = "id") -> int:
    """Returns the delivery of a message's id; raises Invalid."""
    digits = text.removeprefix("msg_")
    if digits == text or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise Invalid(
            f"{field} is no message's id", (field, "Give the webhook-id, such as msg_12.")
        )
    return int(digits)


def _message_id(delivery_id: int) -> str:
    return f"msg_{delivery_id}"


def _new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


async def _find(database: Database, name: str) -> _Found:
    found = await database.row(_Found, _SQL["list_webhooks"], name=name)
    if found is None:
        raise _not_found(name)
    return found


async def _find_enabled(database: Database, name: str) -> _Found:
    found = await _find(database, name)
    if found.disabled_at is not None:
        raise Refused(_DISABLED, "disabled")
    return found


def _public(found: _Found) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Webhook.__struct_fields__}


def _not_found(name: str) -> NotFound:
    return NotFound(f"There is no webhook {name[:100]!r}.")


class ChatTarget(Struct, frozen=True):
    """A target; of its URL only the host is shown."""

    name: str
    kind: str
    url: str
    recipient: str | None
    topic: str | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


class StoredChatTarget(ChatTarget, frozen=True):
    """A target with its URL, which is a secret; `known`: it was there before."""

    id: int
    known: bool


class DisabledChat(Struct, frozen=True):
    """A topic's target that its service refused."""

    name: str
    kind: str
    disabled_at: datetime
    disabled_reason: str


async def put_chat_target(
    database: Database,
    name: str,
    *,
    kind: str,
    url: str,
    recipient_id: str | None,
    topic: str | None,
) -> StoredChatTarget:
    """Makes a target, or changes it and enables it again. Raises Invalid for an unknown person or a wrong topic."""
    async with database.transaction() as session:
        if recipient_id is not None:
            await session.value(_SQL["check_recipient_known"], recipient_id=recipient_id)
        if topic is not None:
            await session.value(_SQL["check_topic"], topic=topic)
        return await session.one(
            StoredChatTarget,
            _SQL["put_chat_target"],
            name=name,
            chat_kind=kind,
            url=url,
            recipient_id=recipient_id,
            topic=topic,
        )


async def list_chat_targets(
    database: Database,
    *,
    recipient_id: str | None,
    topic: str | None,
    cursor: Cursor | None,
    limit: int,
) -> Page[StoredChatTarget]:
    """Returns a page of them, newest first; of one person or one topic, where given."""
    filters = {"recipient_id": recipient_id, "topic": topic}
    return await database.page(StoredChatTarget, _SQL, "chat_targets", cursor, limit, **filters)


async def get_chat_target(database: Database, name: str) -> StoredChatTarget:
    """Returns a target; raises NotFound."""
    found = await database.row(StoredChatTarget, _SQL["get_chat_target"], name=name)
    if found is None:
        raise NotFound(_NO_CHAT)
    return found


async def delete_chat_target(database: Database, name: str) -> None:
    """Deletes a target; raises NotFound."""
    if not await database.value(_SQL["delete_chat_target"], name=name):
        raise NotFound(_NO_CHAT)


async def disabled_chat_targets(database: Queries) -> list[DisabledChat]:
    """Returns the latest targets of topics that are disabled."""
    return await database.rows(DisabledChat, _SQL["disabled_chat_targets"])


async def keep_queueing_webhooks(database: Database) -> None:
    """Empties the outbox, and disables webhooks that fail for too long, until cancelled; any number of workers may."""
    checked_at = datetime.now(UTC)
    while True:
        pause = _PAUSE_WITHOUT
        with suppress(Unavailable, Conflict):
            if await is_wanted(database):
                pause = _PAUSE
                while await queue_webhooks(database, _ROWS) == _ROWS:
                    pass
            now = datetime.now(UTC)
            if now - checked_at >= _CHECK_FAILING:
                for each in await disable_failing(database, now=now, since=checked_at):
                    log.warning("webhook disabled", webhook=each.name, reason=each.reason)
                checked_at = now
        await asyncio.sleep(pause)
