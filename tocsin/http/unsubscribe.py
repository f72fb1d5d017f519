"""Turning emails off from a mail, without signing in: a page by GET, one click by POST (RFC 8058)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast
from urllib.parse import parse_qs

from litestar import HttpMethod, Response, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.links import Unsubscribe
from tocsin.engine.model import Channel, Invalid, NotFound
from tocsin.engine.store.event_type import EventType, get_event_type
from tocsin.engine.store.preference import Preferences, get_preferences, set_overrides
from tocsin.engine.store.recipient import get_recipient
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.page import html
from tocsin.http.services import Services

PATH = "/unsubscribe/{token:str}/"
TAG = "Links in mails"
_SCOPES = ("type", "category", "all")
_PAGE = Answer("A page.", media_type="text/html")

Scope = Literal["type", "category", "all"]


class UnsubscribeForm(Struct, frozen=True):
    """The form; a bare POST, or RFC 8058's `List-Unsubscribe=One-Click`, is `scope=type`."""

    scope: Scope = "type"
    undo: Literal["1"] | None = None


@route(
    PATH,
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    opt=documented(
        Operation(
            summary="Ask which emails to turn off",
            description="Changes nothing: scanners of mail follow links.",
            tag=TAG,
            answers={200: _PAGE},
            fails=(404,),
        )
    ),
)
async def unsubscribe_page(
    services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Asks."""
    try:
        _, event_type = await _read(services, token)
    except NotFound:
        return html("gone.html", 404)
    return html("unsubscribe.html", done=None, **_values(event_type, "type"))


@post(
    PATH,
    opt=documented(
        Operation(
            summary="Turn emails off",
            description="Without a body, that event type's. `undo=1` inherits again. Doing it twice does no harm.",
            tag=TAG,
            body=UnsubscribeForm,
            body_example={"scope": "category"},
            body_required=False,
            body_type="application/x-www-form-urlencoded",
            answers={200: _PAGE},
            fails=(404, 422),
        )
    ),
    status_code=200,
)
async def unsubscribe(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Does it."""
    try:
        link, event_type = await _read(services, token)
    except NotFound:
        return html("gone.html", 404)
    scope, undo = await _form(request)
    before = await get_preferences(services.database, link.recipient_id)
    choice = _choice(event_type, scope, before.overrides, undo=undo)
    after = await set_overrides(services.database, link.recipient_id, choice)
    if undo and scope == "type" and not _is_on(after, event_type):
        # it was on by a choice of its own, which inheriting again does not bring back
        on: dict[str, dict[str, bool | None]] = {event_type.event_type: {Channel.EMAIL: True}}
        after = await set_overrides(services.database, link.recipient_id, on)
    still_on = _is_on(after, event_type)
    done = "undone" if undo else "off"
    return html("unsubscribe.html", done=done, still_on=still_on, **_values(event_type, scope))


def _is_on(preferences: Preferences, event_type: EventType) -> bool:
    return preferences.event_types.get(event_type.event_type, {}).get(Channel.EMAIL, False)


async def _read(services: Services, token: str) -> tuple[Unsubscribe, EventType]:
    """What the link names; NotFound also for somebody who was erased: a click must not make them again."""
    link = services.links.read_unsubscribe(token, datetime.now(UTC))
    await get_recipient(services.database, link.recipient_id)
    return link, await get_event_type(services.database, link.event_type)


async def _form(request: AnyRequest) -> tuple[Scope, bool]:
    """The form's fields; read by hand, since one-click clients may send any form encoding or none."""
    fields: dict[str, list[str]] = {}
    kind, _ = request.content_type
    if kind == "multipart/form-data":
        form = await request.form()
        fields = {name: [value] for name, value in form.items() if isinstance(value, str)}
    else:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    scope = fields.get("scope", ["type"])[-1]
    if scope not in _SCOPES:
        raise Invalid("scope is not known", ("scope", f"Use one of {', '.join(_SCOPES)}."))
    return cast("Scope", scope), fields.get("undo", [""])[-1] == "1"


def _choice(
    event_type: EventType, scope: Scope, overrides: Mapping[str, Mapping[str, bool]], *, undo: bool
) -> dict[str, dict[str, bool | None]]:
    """The override of that scope; off also ends what was turned on inside it, which would be stronger."""
    inside = {"type": "", "category": f"{event_type.category}.", "all": ""}[scope]
    key = {"type": event_type.event_type, "category": f"{inside}*", "all": "*"}[scope]
    if undo:
        return {key: {Channel.EMAIL: None}}
    if scope == "type" and Channel.EMAIL in event_type.mandatory_channels:
        return {}  # the page says that it still comes, and why
    stronger = [
        name
        for name, channels in overrides.items()
        if scope != "type" and name.startswith(inside) and channels.get(Channel.EMAIL)
    ]
    inherited: dict[str, dict[str, bool | None]] = {
        name: {Channel.EMAIL: None} for name in stronger
    }
    return inherited | {key: {Channel.EMAIL: False}}


def _values(event_type: EventType, scope: Scope) -> dict[str, Any]:
    category = event_type.category_label
    subject = {
        "type": event_type.label,
        "category": f"everything in {category}",
        "all": "anything",
    }[scope]
    return {
        "label": event_type.label,
        "category_label": category,
        "scope": scope,
        "subject": subject,
        "mandatory": event_type.label if Channel.EMAIL in event_type.mandatory_channels else None,
    }
