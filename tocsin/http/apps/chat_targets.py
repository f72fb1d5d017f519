"""Targets of chats, as apps put and delete them: a channel in Slack, Discord or Teams, or a chat of Telegram."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Literal

from litestar import Response, delete, put
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct
from yarl import URL

from tocsin.engine.actors.machinery.public_address import URL_CURES, resolved_url_fault
from tocsin.engine.model import Invalid
from tocsin.engine.store import chat_target as store
from tocsin.engine.store.chat_target import StoredChatTarget
from tocsin.engine.store.credential import CHANNELS
from tocsin.http.auth import apps_router
from tocsin.http.fields import CursorText, Id, Limit, Topic, page_links, read_cursor, without_nulls
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.requests import Services

PATH = "/api/chat-targets/"

TargetName = Annotated[
    str,
    PathParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$(?!\n)",
        description="1 to 100 characters of `A-Z a-z 0-9 . _ -`, the first one a letter or a digit.",
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


class ChatTargetListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ChatTarget]
    next: str | None
    previous: str | None


@put(
    PATH + "{name:str}/",
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


@get(PATH)
async def list_chat_targets(
    services: NamedDependency[Services],
    recipient: Annotated[
        str | None,
        QueryParameter(min_length=1, max_length=200, description="Only those of this person."),
    ] = None,
    topic: Annotated[
        str | None,
        QueryParameter(
            pattern=r"^[A-Za-z0-9._:/-]{1,200}$(?!\n)", description="Only those of this topic."
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
    older, newer = page_links(services, PATH, page, kept)
    return ChatTargetListing([_public(each) for each in page.results], older, newer)


@delete(PATH + "{name:str}/", status_code=204, opt=noted(fails=(404,)))
async def delete_chat_target(services: NamedDependency[Services], name: TargetName) -> None:
    """Delete a chat target.

    What waits for it is not sent.
    """
    await store.delete_chat_target(services.database, name)


async def _check_url(data: NewChatTarget, *, allow_loopback: bool) -> None:
    """Raises Invalid for a URL that leads into a private network, or is not one of the service."""
    from tocsin.engine.actors.chat import apprise
    from tocsin.engine.actors.chat.actor import SERVICES  # a fifth of a second to import

    if data.kind == apprise.KIND:
        example = apprise.EXAMPLE
        fault = await asyncio.to_thread(
            apprise.apprise_fault, data.url, allow_loopback=allow_loopback
        )
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
    return ChatTarget(
        found.name,
        found.kind,
        f"{scheme}://{host}…",
        found.recipient,
        found.topic,
        found.created_at,
        found.disabled_at,
        found.disabled_reason,
    )


ROUTERS = (
    apps_router("Chat targets", CHANNELS, put_chat_target, list_chat_targets, delete_chat_target),
)
