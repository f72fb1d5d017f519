"""Targets, as apps make, test, replay and delete them: webhooks, and channels of chats."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Literal

from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import FromPath, FromQuery, JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct, convert, structs
from yarl import URL

from tocsin.engine.actors.machinery.endpoints import URL_CURES, resolved_url_fault
from tocsin.engine.model import DeliveryState, Invalid
from tocsin.engine.store import target as store
from tocsin.engine.store.credential import CHANNELS
from tocsin.engine.store.target import (
    ChatTarget,
    RotatedSecret,
    StoredChatTarget,
    Webhook,
    WebhookMessage,
    WebhookType,
    WebhookWithSecret,
)
from tocsin.http.auth import App, AppRequest, apps_router
from tocsin.http.errors import Forbidden
from tocsin.http.fields import CursorText, Id, Limit, Topic, page_links, read_cursor, without_nulls
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.requests import Services, decoded

PATH = "/api/webhooks/"
ONE = PATH + "{name:str}/"

MessageId = Annotated[
    str, Meta(pattern="^msg_[0-9]{1,18}$", description="The webhook-id.", examples=["msg_12"])
]
EndpointUrl = Annotated[
    str, Meta(min_length=1, max_length=2000, description="A public https address.")
]


class WebhookSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a webhook is: an app's with `events`, or a person's with `recipient`."""

    url: EndpointUrl
    events: Annotated[list[WebhookType], Meta(max_length=20)] | None = None
    recipient: Id | None = None


class WebhookListing(Struct, frozen=True):
    """All webhooks, by name."""

    results: list[Webhook]


class QueuedTest(Struct, frozen=True):
    """The id of the message, as its `webhook-id` header has it."""

    id: str


class WebhookReplay(Struct, frozen=True, forbid_unknown_fields=True):
    """One message by its `id`, or those of a span of time, `until` its end or now."""

    id: MessageId | None = None
    since: datetime | None = None
    until: datetime | None = None
    failed_only: bool = True


class ReplayedMessages(Struct, frozen=True):
    """How many messages are sent once more."""

    replayed: int


class MessageListing(Struct, frozen=True):
    """One page, newest first; `next` is older."""

    results: list[WebhookMessage]
    next: str | None


@put(ONE, responses={201: OtherResponse("Created.", WebhookWithSecret)})
async def put_webhook(
    request: AppRequest,
    services: NamedDependency[Services],
    name: FromPath[str],
    data: JSONBody[WebhookSettings],
) -> Response[Webhook]:
    """Create or change a webhook.

    Without a recipient it reports to the app what happened, of the types in `events`. With one it is that person's
    channel, with their preferences. The `secret` is in the response that creates it, and never again. A repeated call
    changes it, and enables it where it was disabled.
    """
    webhook = decoded(name)
    events = data.events or []
    _check_unlimited(request.auth)
    store.check_webhook(webhook, events, data.recipient)
    fault = await resolved_url_fault(
        data.url, allow_loopback=services.settings.allow_private_endpoints
    )
    if fault is not None:
        raise Invalid("url is not allowed", ("url", URL_CURES[fault]))
    made = await store.put_webhook(
        services.database,
        webhook,
        url=data.url,
        events=events if data.recipient is None else [],
        recipient=data.recipient,
    )
    return Response(made, status_code=201 if isinstance(made, WebhookWithSecret) else 200)


@get(PATH)
async def list_webhooks(services: NamedDependency[Services]) -> WebhookListing:
    """List the webhooks.

    Their secrets are left out.
    """
    return WebhookListing(await store.list_webhooks(services.database))


@get(ONE)
async def get_webhook(services: NamedDependency[Services], name: FromPath[str]) -> Webhook:
    """Read a webhook.

    `failing_since` and `disabled_at` show whether it works.
    """
    return await store.get_webhook(services.database, decoded(name))


@delete(ONE, status_code=204)
async def delete_webhook(services: NamedDependency[Services], name: FromPath[str]) -> None:
    """Delete a webhook.

    What waits for it is not sent.
    """
    await store.delete_webhook(services.database, decoded(name))


@post(ONE + "rotate/", status_code=200)
async def rotate_webhook_secret(
    request: AppRequest, services: NamedDependency[Services], name: FromPath[str]
) -> RotatedSecret:
    """Rotate a webhook's secret.

    Each message is signed with both secrets for 24 hours, and with the new one alone from then on. A secret from before
    an earlier rotation is no longer valid.
    """
    _check_unlimited(request.auth)
    return await store.rotate_secret(services.database, decoded(name))


@post(ONE + "test/", status_code=202, opt=noted(fails=(409,)))
async def test_webhook(services: NamedDependency[Services], name: FromPath[str]) -> QueuedTest:
    """Test a webhook.

    Sends a message of the type `webhook.test`, like any other; the list of messages shows what became of it.
    """
    return QueuedTest(await store.queue_test(services.database, decoded(name)))


@post(ONE + "replay/", status_code=202, opt=noted(fails=(409,)))
async def replay_webhook(
    services: NamedDependency[Services],
    name: FromPath[str],
    data: JSONBody[WebhookReplay],
) -> ReplayedMessages:
    """Replay messages of a webhook.

    One by its id; or those from `since` on that were not accepted, with `failed_only` false also those that were. At
    most 10,000, the oldest first: a further call takes the next ones. They keep their ids.
    """
    if (data.id is None) == (data.since is None):
        raise Invalid("it is not clear what to replay", ("since", "Give either an id or since."))
    count = await store.replay(
        services.database,
        decoded(name),
        message=data.id,
        since=data.since,
        until=data.until,
        failed_only=data.failed_only,
    )
    return ReplayedMessages(count)


@get(ONE + "messages/")
async def list_webhook_messages(
    services: NamedDependency[Services],
    name: FromPath[str],
    delivery_state: FromQuery[DeliveryState | None] = None,
    before: FromQuery[MessageId | None] = None,
    limit: Limit = 20,
) -> MessageListing:
    """List the messages of a webhook.

    Newest first, with what became of each; those of an app webhook are kept for 14 days.
    """
    webhook = decoded(name)
    found = await store.list_messages(
        services.database, webhook, state=delivery_state, before=before, limit=limit
    )
    older = None
    if len(found) == limit:
        query = without_nulls(before=found[-1].id, delivery_state=delivery_state, limit=limit)
        older = services.url(f"{PATH}{name}/messages/", query)
    return MessageListing(found, older)


def _check_unlimited(app: App) -> None:
    """Raises Forbidden for a key of some event types: a webhook is sent what happens to all of them."""
    if app.event_types is not None:
        allowed = ", ".join(app.event_types)
        raise Forbidden(
            f"The key is for event types like {allowed} only; a webhook is sent all: use a key without --event-types."
        )


CHATS_PATH = "/api/chat-targets/"

TargetName = Annotated[
    str,
    PathParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$(?!\n)",
        description="1 to 100 characters of `A-Z a-z 0-9 . _ -`, the first one a letter or a digit.",
        examples=[Example(value="sales-team")],
    ),
]
ChatKind = Literal["slack", "discord", "teams", "telegram", "apprise"]

_NO_APPRISE = "Install the extra tocsin[apprise] for serve and for the workers, then put it again."


class NewChatTarget(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to send, and for whom: exactly one of `recipient` and `topic`."""

    kind: ChatKind
    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2000,
            description="The address that the service gave for it. Whoever has it may post there.",
        ),
    ]
    recipient: Id | None = None
    topic: Topic | None = None


class ChatTargetListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ChatTarget]
    next: str | None
    previous: str | None


@put(
    CHATS_PATH + "{name:str}/",
    responses={201: OtherResponse("Created.", ChatTarget)},
    opt=noted(fails=(409,)),
)
async def put_chat_target(
    services: NamedDependency[Services],
    name: TargetName,
    data: JSONBody[NewChatTarget],
) -> Response[ChatTarget]:
    """Put a chat target.

    A person's target gets what that person is notified of, by their preferences; a topic's gets each event of the
    topic, whoever follows it. Putting one again changes it, and enables one that its service refused.
    """
    if (data.recipient is None) == (data.topic is None):
        raise Invalid(
            "the target is not for one person or one topic",
            ("recipient", "Give exactly one of recipient and topic."),
        )
    await _check_url(data, allow_loopback=services.settings.allow_private_endpoints)
    found = await store.put_chat_target(
        services.database,
        name,
        kind=data.kind,
        url=data.url,
        recipient_id=data.recipient,
        topic=data.topic,
    )
    return Response(_public(found), status_code=200 if found.known else 201)


@get(CHATS_PATH)
async def list_chat_targets(
    services: NamedDependency[Services],
    recipient: Annotated[
        str | None,
        QueryParameter(min_length=1, max_length=200, description="Only those of this person."),
    ] = None,
    topic: Annotated[
        str | None,
        QueryParameter(
            pattern=r"^[A-Za-z0-9._:/-]{1,200}$(?!\n)",
            description="Only those of this topic.",
            examples=[Example(value="forum.thread:42")],
        ),
    ] = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> ChatTargetListing:
    """List the chat targets.

    Newest first; a disabled one with the reason that its service gave.
    """
    page = await store.list_chat_targets(
        services.database,
        recipient_id=recipient,
        topic=topic,
        cursor=read_cursor(cursor),
        limit=limit,
    )
    kept = without_nulls(limit=limit, recipient=recipient, topic=topic)
    older, newer = page_links(services, CHATS_PATH, page, kept)
    return ChatTargetListing([_public(each) for each in page.results], older, newer)


@get(CHATS_PATH + "{name:str}/", opt=noted(fails=(404,)))
async def get_chat_target(services: NamedDependency[Services], name: TargetName) -> ChatTarget:
    """Read a chat target.

    `disabled_at` and `disabled_reason` show whether its service still takes messages.
    """
    return _public(await store.get_chat_target(services.database, name))


@delete(CHATS_PATH + "{name:str}/", status_code=204, opt=noted(fails=(404,)))
async def delete_chat_target(services: NamedDependency[Services], name: TargetName) -> None:
    """Delete a chat target.

    What waits for it is not sent.
    """
    await store.delete_chat_target(services.database, name)


async def _check_url(data: NewChatTarget, *, allow_loopback: bool) -> None:
    """Raises Invalid for a URL that leads into a private network, or is not one of the service."""
    # a fifth of a second to import
    from tocsin.engine.actors.chat import APPRISE, APPRISE_EXAMPLE, apprise_fault
    from tocsin.engine.actors.chat_services import SERVICES

    if data.kind == APPRISE:
        example = APPRISE_EXAMPLE
        fault = await asyncio.to_thread(apprise_fault, data.url, allow_loopback=allow_loopback)
    else:
        service = SERVICES[data.kind]
        example = service.example
        fault = await resolved_url_fault(data.url, allow_loopback=allow_loopback)
        fault = fault or service.url_fault(data.url)
    if fault is not None:
        usual = f"Give the address as {data.kind} shows it, such as {example}."
        cures = URL_CURES | {"url_invalid": usual, "apprise_not_installed": _NO_APPRISE}
        raise Invalid("url is refused", ("url", cures.get(fault, usual)))


def _public(found: StoredChatTarget) -> ChatTarget:
    scheme = found.url.partition(":")[0]
    # with Apprise, a token may stand in place of the host
    host = "" if found.kind == "apprise" else f"{URL(found.url).host}/"
    shown = convert(found, ChatTarget, from_attributes=True)
    return structs.replace(shown, url=f"{scheme}://{host}…")


ROUTERS = (
    apps_router(
        "Webhooks",
        CHANNELS,
        put_webhook,
        list_webhooks,
        get_webhook,
        delete_webhook,
        rotate_webhook_secret,
        test_webhook,
        replay_webhook,
        list_webhook_messages,
    ),
    apps_router(
        "Chat targets",
        CHANNELS,
        put_chat_target,
        list_chat_targets,
        get_chat_target,
        delete_chat_target,
    ),
)
