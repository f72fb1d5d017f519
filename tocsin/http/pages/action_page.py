"""The page of a notification's actions, to which the buttons in mails link: only a POST presses one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from litestar import Response
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.mail.links import Choose
from tocsin.engine.model import Action, Conflict, Invalid, Notification
from tocsin.engine.store import action as store
from tocsin.engine.store.notification import get_notification
from tocsin.http.auth import router
from tocsin.http.errors import AnyRequest
from tocsin.http.openapi import OtherResponse
from tocsin.http.pages.html import Reader, _, html, reader
from tocsin.http.pages.link_page import form_fields, get_page, post_form
from tocsin.http.requests import Services

PATH = "/a/{token:str}/"
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


@get_page(PATH)
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
    PATH,
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


ROUTERS = (router("Links in mails", "everyone", actions_page, press_from_page),)
