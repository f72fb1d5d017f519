"""Signed links in mails: to what a notification is about, to its actions, and to turn emails off (RFC 8058).

A GET changes nothing, but that a person who follows a link has read the notification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.mail.links import Choose
from tocsin.engine.model import Conflict, Invalid, NotFound
from tocsin.engine.store import notification as store
from tocsin.engine.store.notification import Action, Notification, get_notification
from tocsin.http.auth import Authenticator, PersonRequest, people_router, router
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import RowId
from tocsin.http.openapi import OtherResponse, body_read_by_handler, get, noted
from tocsin.http.pages.html import PAGE_HEADERS, Reader, _, html, reader
from tocsin.http.pages.opt_outs import OptOut, opt_out
from tocsin.http.requests import Services

Declare = Callable[[Callable[..., Any]], HTTPRouteHandler]

_GONE = OtherResponse(
    "A page: the link is not one of this service, too old, or of something that is gone.",
    media_type="text/html",
)
_LARGEST_FORM = 8_000  # bytes, from anybody who has a link


def _gone(request: AnyRequest, _: NotFound) -> Response[str]:
    return html("gone.html", 404, reader(request.app.state.services, request))


_page: dict[str, Any] = {"media_type": "text/html", "exception_handlers": {NotFound: _gone}}


def get_page(path: str, responses: Mapping[int, ResponseSpec] | None = None) -> Declare:
    """Declares a page, which changes nothing, since scanners of mail follow links. NotFound: the link is gone."""
    return get(path, **_page, responses={404: _GONE, **(responses or {})}, opt=noted(fails=(503,)))


def post_form(path: str, form: Any, responses: Mapping[int, ResponseSpec] | None = None) -> Declare:
    """Declares what receives the page's form, whose fields the handler reads by `form_fields`."""
    return post(
        path,
        **_page,
        dependencies=body_read_by_handler(form),
        responses={404: _GONE, **(responses or {})},
        request_max_body_size=_LARGEST_FORM,
        status_code=200,
        opt=noted(body_media_types=("application/x-www-form-urlencoded",), fails=(413, 422, 503)),
    )


async def form_fields(request: AnyRequest) -> dict[str, str]:
    """Returns the fields of a form; read by hand, since one-click clients may send any encoding or none."""
    kind, _ = request.content_type
    if kind == "multipart/form-data":
        form = await request.form()
        return {name: value for name, value in form.items() if isinstance(value, str)}
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}


UNSUBSCRIBE = "/unsubscribe/{token:str}/"
_REDIRECT: dict[int, ResponseSpec] = {
    303: OtherResponse("To the action URL.", headers={"Location": "The action URL."})
}


@get(
    "/api/notifications/{notification_id:int}/open/",
    status_code=303,
    responses=_REDIRECT | {204: OtherResponse("It leads nowhere.")},
)
async def open_notification(
    request: PersonRequest,
    services: NamedDependency[Services],
    authenticator: NamedDependency[Authenticator],
    notification_id: RowId,
) -> Response[str]:
    """Click through.

    Marks it read and redirects. With the cookie and from another site's page it only redirects, so that no foreign page
    can mark anything.
    """
    person = request.auth
    foreign = person.by_cookie and authenticator.is_foreign(request)
    if request.method == "HEAD" or foreign:
        found = await store.get_notification(
            services.database, person.recipient_id, notification_id
        )
    else:
        found = await _read(services, person.recipient_id, notification_id)
    return _redirect(found.action_url) if found.action_url else Response("", status_code=204)


@get_page("/c/{token:str}/", _REDIRECT)
async def click_through(
    request: Request[None, None, State], services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Click through from a mail or from a push.

    The token is signed and names one notification. By a link of a mail it is marked read only when a person follows it
    (`Sec-Fetch-User: ?1`): scanners of mail follow links too.
    """
    link = services.links.read_open(token, datetime.now(UTC))
    found = await store.get_notification(services.database, link.recipient_id, link.notification_id)
    if _is_a_person(request) or (link.in_push and request.method == "GET"):
        await _read(services, link.recipient_id, found.id)
    target = found.action_url and services.links.absolute(found.action_url)
    return (
        _redirect(target)
        if target
        else html("notification.html", reader=reader(services, request), notification=found)
    )


async def _read(services: Services, recipient_id: str, notification_id: int) -> Notification:
    """Marks it read, unless an app is just cancelling it: the redirect follows in any case."""
    try:
        found = await store.mark_read(services.database, recipient_id, notification_id, read=True)
        services.reads.changed({recipient_id})
        return found
    except Conflict:
        return await store.get_notification(services.database, recipient_id, notification_id)


def _redirect(target: str) -> Response[str]:
    # Response, not Redirect: that one would quote a URL that is a valid one already
    headers = {**PAGE_HEADERS, "Location": _ascii(target)}
    return Response("", status_code=303, media_type="text/plain", headers=headers)


def _ascii(url: str) -> str:
    """Returns the address as a header can hold it (RFC 3986): what is not ASCII percent-encoded, all else as it was."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
    )


def _is_a_person(request: AnyRequest) -> bool:
    """Returns whether a browser states that a person clicked (W3C Fetch Metadata)."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-user") == "?1"
    )


class UnsubscribeForm(Struct, frozen=True):
    """The form; a bare POST, or RFC 8058's `List-Unsubscribe=One-Click`, is `scope=type`."""

    scope: Literal["type", "category", "all", "topic"] = "type"
    undo: Literal["1"] | None = None


@get_page(UNSUBSCRIBE)
async def unsubscribe_page(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Ask which emails to turn off.

    Changes nothing: scanners of mail follow links.
    """
    found = await _found(services, request, token)
    scopes = [each.scope for each in found.choices]
    scope = request.query_params.get("scope")
    chosen = scope if scope in scopes else scopes[0]
    return html("unsubscribe.html", 200, found.reader, asked=found, chosen=chosen, done=None)


@post_form(UNSUBSCRIBE, UnsubscribeForm | None)
async def turn_emails_off(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Turn emails off.

    Without a body, it turns off the mail's event types, its digest, or all mail to an address without an account.
    `undo=1` takes it back. A repeated call changes nothing. `topic` mutes the thread that the mail is about.
    """
    found = await _found(services, request, token)
    fields = await form_fields(request)
    scope, undone = _scope(found, fields), _undone(fields)
    done = await (found.undo(scope) if undone else found.turn_off(scope))
    return html(
        "unsubscribe.html", 200, found.reader, asked=found, scope=scope, done=done, undone=undone
    )


async def _found(services: Services, request: AnyRequest, token: str) -> OptOut:
    link = services.links.read_unsubscribe(token, datetime.now(UTC))
    return await opt_out(services.database, link, lambda locale: reader(services, request, locale))


def _scope(found: OptOut, fields: Mapping[str, str]) -> str:
    scopes = [each.scope for each in found.choices]
    scope = fields.get("scope", scopes[0])
    scope = found.same.get(scope, scope)
    if scope not in scopes:
        raise Invalid("scope is not known", ("scope", f"Use one of {', '.join(scopes)}."))
    return scope


def _undone(fields: Mapping[str, str]) -> bool:
    if (undo := fields.get("undo", "")) not in ("", "1"):
        raise Invalid("undo is not known", ("undo", "Pass 1, or leave it out."))
    return undo == "1"


ACTIONS = "/a/{token:str}/"
_OVER = {
    "cancelled": _("It was cancelled. Nothing was changed."),
    "replaced": _("A newer notification has replaced this one. Choose there."),
    "expired": _("The time in which you could choose is over. Nothing was changed."),
}
_SAVED = _("Your choice is saved. You can close this page.")
_BUSY = _("This is being changed at the same moment. Press again.")
_LEAD = _("Nothing is chosen yet. The first button that is pressed counts, on whatever device.")


class PressForm(Struct, frozen=True):
    """The form: the key of the action."""

    key: str


class ActionResult(Struct, frozen=True):
    """What became of a choice, in words; `url` leads on."""

    sentence: str
    note: str
    url: str | None = None


class _Asked(Struct, frozen=True):
    """A notification whose actions a page shows."""

    link: Choose
    notification: Notification
    closed: store.Closed | None
    reader: Reader

    def action(self, key: str) -> Action:
        """Returns the action with a key; raises Invalid."""
        actions = self.notification.actions or []
        found = next((each for each in actions if each.key == key), None)
        if found is None:
            known = ", ".join(each.key for each in actions)
            raise Invalid("key is not known", ("key", f"Use one of {known}."))
        return found

    def chosen(self, key: str, services: Services) -> ActionResult:
        """Returns the outcome where this action is the one that counts."""
        action = self.action(key)
        return ActionResult(
            self.reader.gettext("You chose “%(label)s”", label=action.label),
            self.reader.gettext(_SAVED),
            services.links.absolute(action.url) if action.url else None,
        )

    def other(self, key: str, pressed: str) -> ActionResult:
        """Returns the outcome where another action was chosen before."""
        gettext = self.reader.gettext
        return ActionResult(
            gettext("You had already chosen “%(label)s”", label=self.action(key).label),
            gettext(
                "The first choice counts, so “%(label)s” was not saved.",
                label=self.action(pressed).label,
            ),
        )

    def over(self, closed: store.Closed) -> ActionResult:
        """Returns the outcome where nothing can be chosen any more."""
        gettext = self.reader.gettext
        return ActionResult(gettext("There is nothing left to choose"), gettext(_OVER[closed]))

    def result(self, outcome: ActionResult, status: int = 200) -> Response[str]:
        """Returns the page with an outcome."""
        return self._page(status, outcome=outcome, actions=[])

    def question(self, first: str, *, status: int = 200, note: str = "") -> Response[str]:
        """Returns the page with a form for each action; that with the key `first`, if any, comes before the others."""
        actions = sorted(self.notification.actions or [], key=lambda each: each.key != first)
        label = actions[0].label if actions and actions[0].key == first else None
        gettext = self.reader.gettext
        lead = gettext("Press “%(label)s” to choose it.", label=label) if label else ""
        return self._page(
            status, actions=actions, picked=label, notes=[note or lead, gettext(_LEAD)]
        )

    def _page(self, status: int, **values: Any) -> Response[str]:
        more = {"outcome": None, "picked": None, "notes": []} | values
        return html("actions.html", status, self.reader, notification=self.notification, **more)


@get_page(ACTIONS)
async def actions_page(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Show the actions of a notification.

    The button of a mail leads here. Changes nothing: scanners of mail follow links.
    """
    asked = await _asked(services, request, token)
    if asked.notification.acted:
        return asked.result(asked.chosen(asked.notification.acted.key, services))
    if asked.closed:
        return asked.result(asked.over(asked.closed))
    return asked.question(request.query_params.get("key", ""))


@post_form(
    ACTIONS,
    PressForm,
    {
        409: OtherResponse(
            "A page: another action counts, or none any more.", media_type="text/html"
        )
    },
)
async def press_from_page(
    request: AnyRequest, services: NamedDependency[Services], token: FromPath[str]
) -> Response[str]:
    """Press an action.

    The first press counts, on whatever device, and marks the notification read. The same key again has the same page;
    another key, or a notification that was cancelled, replaced or has expired, a 409.
    """
    asked = await _asked(services, request, token)
    key = (await form_fields(request)).get("key", "")
    asked.action(key)
    link = asked.link
    try:
        result = await store.try_press(
            services.database, link.recipient_id, link.notification_id, key
        )
    except Conflict:
        return asked.question(key, status=409, note=asked.reader.gettext(_BUSY))
    if result.outcome == "acted":
        return asked.result(asked.chosen(key, services))
    if result.outcome == "other":
        return asked.result(asked.other(result.chosen or "", key), 409)
    return asked.result(asked.over(result.outcome), 409)


async def _asked(services: Services, request: AnyRequest, token: str) -> _Asked:
    link = services.links.read_choose(token, datetime.now(UTC))
    found = await get_notification(services.database, link.recipient_id, link.notification_id)
    state = await store.actions_state(services.database, link.recipient_id, link.notification_id)
    return _Asked(link, found, state.closed, reader(services, request, state.locale))


ROUTERS = (
    people_router("Inbox", open_notification),
    router(
        "Links in mails",
        "everyone",
        click_through,
        unsubscribe_page,
        turn_emails_off,
        actions_page,
        press_from_page,
    ),
)
