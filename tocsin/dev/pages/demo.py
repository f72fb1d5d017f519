"""/dev/: a small host app with two people, their phones and mails, in which the one is notified of the other's acts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any
from urllib.request import Request, urlopen

import msgspec
from litestar import Response, Router, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from tocsin.dev.far_ends import PUSH_SERVICE
from tocsin.dev.pages import arrivals, preview
from tocsin.dev.pages.arrivals import PAGES, Phone, phones_of
from tocsin.engine.explain.why import ExplainedChannel, explain
from tocsin.engine.model import EventType, Invalid, NotFound
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import NewEvent, create_event, get_event_type, list_event_types
from tocsin.engine.store.notification import why
from tocsin.http.auth import Authenticator
from tocsin.http.errors import AnyRequest
from tocsin.http.openapi import get
from tocsin.http.pages.html import pictures_policy
from tocsin.http.requests import Services, relative_root
from tocsin.settings.running_instance import find_running_instance
from tocsin.sql import load

ASSETS = files("tocsin.dev.pages") / "assets"
_SQL = load("demo")
_KINDS = {".js": "text/javascript", ".css": "text/css"}
_PEOPLE = 20
_LATER = re.compile(r"([+-]\d+)d")


class DemoPerson(Struct, frozen=True):
    """A person of the demo."""

    id: str
    name: str | None
    email: str | None

    @property
    def first_name(self) -> str:
        """The first word of the name."""
        return (self.name or self.id).split()[0] if (self.name or self.id).strip() else self.id


class Story(Struct, frozen=True, forbid_unknown_fields=True):
    """The words for an event type in story.toml; `{me}` and `{you}` stand for the two names."""

    button: str
    title: str
    body: str = ""
    action_url: str | None = None
    metadata: dict[str, Any] = {}
    topic: str | None = None  # whose followers are notified
    actions: list[dict[str, Any]] | None = None


def story_of(event_type: str, label: str) -> Story:
    """Returns the words for an event type; its label for one that story.toml does not have."""
    return known_stories().get(event_type) or Story(label, label)


def event_of(
    story: Story, event_type: str, me: DemoPerson, you: DemoPerson, now: datetime
) -> NewEvent:
    """Returns the event that the app creates when the button is pressed."""
    return NewEvent(
        event_type=event_type,
        recipients=[] if story.topic else [you.id],
        topic=story.topic,
        title=fill_names(story.title, me, you),
        body=fill_names(story.body, me, you),
        action_url=story.action_url,
        metadata={name: _moved(value, now) for name, value in story.metadata.items()},
        initiator=me.id,
        actions=story.actions,
    )


def fill_names(text: str, me: DemoPerson, you: DemoPerson) -> str:
    """Returns a text of a story with the names."""
    return text.replace("{me}", me.first_name).replace("{you}", you.first_name)


def _moved(value: Any, now: datetime) -> Any:
    found = _LATER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    at = (now + timedelta(days=int(found[1]))).replace(minute=0, second=0, microsecond=0)
    return at.isoformat().replace("+00:00", "Z")


@cache
def known_stories() -> Mapping[str, Story]:
    """Returns all of story.toml, by event type."""
    text = (files("tocsin.dev.pages") / "story.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, Story])


class DemoPanel(Struct, frozen=True):
    """One of the two people, with a window of the app and a phone."""

    side: str
    person: DemoPerson
    other: DemoPerson
    groups: list[
        tuple[str, list[tuple[EventType, str]]]
    ]  # the buttons with their labels, by category
    phone: Phone | None


class DemoAct(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: what a person did in the app."""

    event_type: str
    me: str
    you: str


class ActResult(Struct, frozen=True):
    """What it meant for the other person: no notification where they don't follow the topic."""

    event_id: int
    notification_id: int | None
    title: str
    topic: str | None
    at: datetime
    channels: list[ExplainedChannel]


@get("/", sync_to_thread=False)
def front_door() -> Redirect:
    """Redirects the root to the demo."""
    return Redirect("dev/", status_code=303)


@get("/")
async def demo_page(
    request: AnyRequest,
    services: NamedDependency[Services],
    left: FromQuery[str | None] = None,
    right: FromQuery[str | None] = None,
) -> Response[Any]:
    """The page; its address ends with a slash, since its files have relative addresses."""
    if relative_root(request.scope) == ".":
        return Redirect("dev/", status_code=303)
    people = await list_people(services.database, _PEOPLE)
    chosen = _pair(people, left, right)
    types = await list_event_types(services.database)
    panels = [
        DemoPanel(
            side,
            me,
            you,
            _buttons(types, me, you),
            next(iter(await phones_of(services, me.id)), None),
        )
        for side, me, you in zip(("left", "right"), chosen, chosen[::-1], strict=True)
    ]
    return PAGES.render(
        "demo.html",
        more_policy=pictures_policy(services.settings.avatar_hosts),
        people=people,
        panels=panels if len(people) > 1 else [],
        mailbox=bool(services.settings.smtp_servers),
    )


@get("/assets/{name:str}", sync_to_thread=False)
def asset(name: FromPath[str]) -> Response[bytes]:
    """The pages' scripts and style sheets."""
    file = next((file for file in ASSETS.iterdir() if file.name == name), None)
    kind = _KINDS.get(f".{name.rpartition('.')[2]}")
    if file is None or kind is None:
        raise NotFound("There is no such file.")
    return Response(
        file.read_bytes(),
        media_type=kind,
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )


@get("/token")
async def sign(
    request: AnyRequest, authenticator: NamedDependency[Authenticator], person: FromQuery[str]
) -> dict[str, str]:
    """A token of a person, as the session of a host app would give it to its page."""
    _own_page(request)
    return {"token": authenticator.tokens.sign_for_development(person)}


@get("/sign-in")
async def sign_in(
    request: AnyRequest, authenticator: NamedDependency[Authenticator], person: FromQuery[str]
) -> Redirect:
    """Signs this person in to Tocsin's own pages, by the cookie."""
    cookie = Cookie(
        key="tocsin_token",
        value=authenticator.tokens.sign_for_development(person),
        path="/",
        httponly=True,
        samesite="strict",
    )
    up = f"{relative_root(request.scope)}/.."
    return Redirect(f"{up}/settings/", status_code=303, cookies=[cookie])


@post("/browser", status_code=201)
async def subscribe_browser(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Subscribes the browser of the demo page at the far end, in place of the browser's own push service."""
    _own_page(request)
    instance = find_running_instance(services.settings.data_dir)
    url = instance.environ.get(PUSH_SERVICE) if instance else None
    if url is None:
        raise NotFound("The far end of browsers does not run here.")
    return Response(await asyncio.to_thread(_subscription, url), media_type="application/json")


def _subscription(url: str) -> bytes:
    with urlopen(Request(f"{url}/subscribe", method="POST"), timeout=5) as response:  # noqa: S310 - ours
        found: bytes = response.read()
    return found


@post("/events", status_code=202)
async def act(
    request: AnyRequest, services: NamedDependency[Services], data: JSONBody[DemoAct]
) -> ActResult:
    """Creates the event of a person's act, as the app would; returns what it meant for the other person."""
    _own_page(request)
    people = {each.id: each for each in await list_people(services.database, _PEOPLE)}
    if not {data.me, data.you} <= people.keys():
        raise Invalid("unknown person", ("you", "Choose two of the people on the page."))
    event_type = await get_event_type(services.database, data.event_type)
    at = datetime.now(UTC)
    story = story_of(event_type.event_type, event_type.label)
    event = event_of(story, event_type.event_type, people[data.me], people[data.you], at)
    created = await create_event(services.database, "demo", event)
    id_: int | None = await services.database.value(
        _SQL["notification_of"], event_id=created.event_id, recipient_id=data.you
    )
    decided = await why(services.database, [id_]) if id_ is not None else {}
    channels = explain(decided[id_]).channels if id_ is not None else []
    return ActResult(created.event_id, id_, event.title, event.topic, at, channels)


async def list_people(database: Database, limit: int) -> list[DemoPerson]:
    """Returns the people who were created first."""
    return await database.rows(DemoPerson, _SQL["list_people"], limit=limit)


def dev_routes() -> list[ControllerRouterHandler]:
    """Returns all of /dev/, and the root that leads there."""
    handlers: list[ControllerRouterHandler] = [
        demo_page,
        asset,
        sign,
        sign_in,
        subscribe_browser,
        act,
        *arrivals.HANDLERS,
        *preview.HANDLERS,
    ]
    return [front_door, Router("/dev", route_handlers=handlers)]


def _own_page(request: AnyRequest) -> None:
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Invalid("This is for the page of this service only.")


def _pair(
    people: list[DemoPerson], left_id: str | None, right_id: str | None
) -> tuple[DemoPerson, DemoPerson]:
    """Returns the two people of these ids, else the first ones; never the same person twice."""
    known = {each.id: each for each in people}
    nobody = DemoPerson("", None, None)
    left = known.get(left_id or "") or next(
        (each for each in people if each.id != right_id), nobody
    )
    others = [each for each in people if each != left]
    right = known.get(right_id or "")
    if right is None or right == left:
        right = others[0] if others else nobody
    return left, right


def _buttons(
    types: list[EventType], me: DemoPerson, you: DemoPerson
) -> list[tuple[str, list[tuple[EventType, str]]]]:
    labels = {
        each.event_type: fill_names(story_of(each.event_type, each.label).button, me, you)
        for each in types
    }
    return [
        (category, [(each, labels[each.event_type]) for each in group])
        for category, group in groupby(types, lambda each: each.category_label)
    ]
