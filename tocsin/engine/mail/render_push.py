"""From claimed deliveries to what other channels than email send: pushes, messages to chats, and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from tocsin.engine.mail.language import Language, language_of
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.render import by_subject, count_of, first_of, line_of
from tocsin.engine.model import Claimed, Message, Push, PushButton, PushKind, WebhookBody
from tocsin.engine.text import one_line

# Bytes of what a push carries for the app: of the 4096, some are left for its texts.
_LARGEST_PUSH_DATA = 3_000
# Of several badge pushes that wait for a device that is off, the last one is enough.
_BADGE_COLLAPSE_ID = "tocsin-badge"
_FOR_APPS = frozenset({"actions", "actions_path"})  # what an app on a phone needs for its buttons


def render_push(claimed: Claimed) -> Message:
    """Returns the push of one delivery; one without an event corrects the badge."""
    if claimed.event_id is None:  # nothing but the number, which is read right before sending
        push = Push(
            kind=PushKind.BADGE, collapse_id=_BADGE_COLLAPSE_ID, expires_at=claimed.expires_at
        )
    else:
        push = _alert(claimed)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, push)


def with_link(message: Message, claimed: Claimed | None, links: Links, inbox: str) -> Message:
    """Returns a push to a browser with the address that it opens: of its notification, or the inbox for several."""
    push, link, now = message.content, links.absolute(inbox), datetime.now(UTC)
    assert isinstance(push, Push)
    if claimed is not None and claimed.notification_id is not None and claimed.recipient_id:
        of = (claimed.notification_id, claimed.recipient_id, now)
        link = links.open(*of, in_push=True)
        push = _with_buttons(push, claimed.actions or (), links.choose(*of))
    return structs.replace(message, content=structs.replace(push, link=link))


def _with_buttons(push: Push, actions: Sequence[Mapping[str, Any]], page: str) -> Push:
    """Returns a push with buttons that lead to the page of the actions, which presses one only if it is asked to."""
    buttons = tuple(
        PushButton(each["key"], each["label"], f"{page}?key={each['key']}") for each in actions
    )
    data = {name: each for name, each in push.data.items() if name not in _FOR_APPS}
    return structs.replace(push, buttons=buttons, data=data)


def render_chat(claimed: Claimed, links: Links) -> Message:
    """Returns what a chat shows of one delivery: its texts, and where it leads."""
    link = links.absolute(claimed.action_url) if claimed.action_url else None
    text = Push(title=claimed.title, body=claimed.body, link=link, expires_at=claimed.expires_at)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, text)


def _alert(claimed: Claimed) -> Push:
    """Returns what people see; `data` has what an app needs to open it."""
    data = {
        "notification_id": str(claimed.notification_id),
        "event_id": str(claimed.event_id),
        "event_type": claimed.event_type,
    }
    data |= claimed.data or {}
    if claimed.actions:
        data |= _actions_data(claimed.actions, claimed.notification_id)
    if (url := claimed.action_url) and _bytes(data) + len(url.encode()) <= _LARGEST_PUSH_DATA:
        data["action_url"] = url  # else the app finds it by the notification's id
    return Push(
        title=claimed.title,
        body=claimed.body,
        data=data,
        thread_id=claimed.category,
        collapse_id=claimed.subject if claimed.replaces else None,
        category=_actions_category(claimed.actions) if claimed.actions else None,
        expires_at=claimed.expires_at,
    )


def _actions_data(
    actions: Sequence[Mapping[str, Any]], notification_id: int | None
) -> dict[str, str]:
    """Returns what an app needs to show the buttons and to press one; at most 1,000 bytes."""
    shown = [{"key": each["key"], "label": each["label"]} for each in actions]
    return {
        "actions": msgspec.json.encode(shown).decode(),
        "actions_path": f"/api/notifications/{notification_id}/actions/",
    }


def _actions_category(actions: Sequence[Mapping[str, Any]]) -> str:
    """Returns a name for these buttons in this order, by which an iOS app registers them."""
    return f"tocsin:{','.join(each['key'] for each in actions)}"


def _bytes(data: dict[str, str]) -> int:
    return len(msgspec.json.encode(data))


_SHOWN = 3
_TITLE_CHARACTERS = 100


def render_push_summary(together: Sequence[Claimed]) -> Message:
    """Returns the push of several deliveries; the same ones have the same id at each attempt."""
    first = first_of(together)
    return Message(
        first.delivery_id,
        first.claim,
        first.channel,
        first.priority,
        _summary(sorted(together, key=lambda one: one.delivery_id, reverse=True)),
        tuple(one.delivery_id for one in together if one is not first),
    )


def _summary(newest_first: Sequence[Claimed]) -> Push:
    newest, count = newest_first[0], count_of(newest_first)
    language = language_of(newest.locale)
    more = how_many_more(count, language)
    groups = by_subject(newest_first)
    titles = [_line(group, language) for group in groups[:_SHOWN]]
    shown = sum(len(group) for group in groups[:_SHOWN])
    one_subject = len(groups) == 1 and count == len(groups[0])
    return Push(
        title=titles[0] if one_subject else more,
        body=newest.body if one_subject else " · ".join(titles) + (" …" if shown < count else ""),
        data={"notifications": str(count)},
        thread_id=newest.category,
        expires_at=max(
            (one.expires_at for one in newest_first if one.expires_at is not None), default=None
        ),
    )


def how_many_more(count: int, language: Language) -> str:
    """Returns `12 more notifications` in a person's language."""
    more = language.catalogue.ngettext(
        "%(num)d more notification", "%(num)d more notifications", count
    )
    return more % {"num": count}


def _line(group: Sequence[Claimed], language: Language) -> str:
    """Returns one line for notifications about one subject."""
    line = line_of(group, language.tag)
    return one_line(line or group[0].title or group[0].label, _TITLE_CHARACTERS)


def render_webhook(claimed: Claimed) -> Message:
    """Returns the message: what happened, for the app; for a person, their notification."""
    stored = (claimed.options or {}).get("message")
    body = _notification(claimed) if stored is None else _stored(stored)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, body)


def _stored(stored: dict[str, Any]) -> WebhookBody:
    found = msgspec.convert(
        {"type": stored["type"], "timestamp": stored["at"], "data": stored["data"]}, WebhookBody
    )
    return msgspec.structs.replace(found, timestamp=found.timestamp.astimezone(UTC))


def _notification(claimed: Claimed) -> WebhookBody:
    data = {
        "notification_id": claimed.notification_id,
        "event_id": claimed.event_id,
        "event_type": claimed.event_type,
        "category": claimed.category,
        "recipient": claimed.recipient_id,
        "initiator": claimed.initiator,
        "subject": claimed.subject,
        "topic": claimed.topic,
        "title": claimed.title,
        "body": claimed.body,
        "action_url": claimed.action_url,
        "metadata": claimed.metadata,
        "actions": claimed.actions or [],
    }
    return WebhookBody("notification.created", claimed.created_at.astimezone(UTC), data)
