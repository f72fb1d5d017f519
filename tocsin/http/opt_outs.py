"""What the reader of a mail may turn off, by whose mail it was, and what the page says of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from msgspec import Struct

from tocsin.engine.explain import mask
from tocsin.engine.links import OptOutLink, Unsubscribe, UnsubscribeAddress, UnsubscribeDigest
from tocsin.engine.model import Channel, NotFound
from tocsin.engine.store import opt_out as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.event_type import EventType, get_event_type, list_event_types
from tocsin.engine.store.preference import Preferences, get_preferences, set_overrides
from tocsin.engine.store.recipient import get_recipient

_REQUIRED = "They are required: the service has to be able to reach you about this."

Overrides = dict[str, dict[str, bool | None]]


class Choice(Struct, frozen=True):
    """One thing to turn off, and in words what that does."""

    scope: str
    label: str
    hint: str


class Done(Struct, frozen=True):
    """What was done, in words."""

    sentence: str
    note: str | None = None
    can_undo: bool = True


_NOTHING = Done("Nothing changed", "This link has turned nothing off.", can_undo=False)


class OptOut(ABC):
    """What one link may do; a bare POST is the scope of the first choice."""

    note: str | None = None
    choices: Sequence[Choice]
    same: ClassVar[
        Mapping[str, str]
    ] = {}  # further scopes that a client may name: what each is here

    @abstractmethod
    async def turn_off(self, scope: str) -> Done:
        """Turns that off; twice does no harm."""

    @abstractmethod
    async def undo(self, scope: str) -> Done:
        """Takes it back, as far as nobody chose otherwise since."""


async def opt_out(database: Database, link: OptOutLink) -> OptOut:
    """What a link may do by now; NotFound for somebody who was erased: a click must not make them again."""
    if isinstance(link, UnsubscribeAddress):
        owner = await store.address_owner(database, link.address)
        if owner is None:
            return _OfAddress(database, link.address)
        # with an account by now, and terms of their own
        return await _of_types(database, Unsubscribe(owner, link.event_type), address=link.address)
    await get_recipient(database, link.recipient_id)
    if isinstance(link, UnsubscribeDigest):
        return _OfDigest(database, link.recipient_id)
    return await _of_types(database, link)


async def _of_types(database: Database, link: Unsubscribe, *, address: str | None = None) -> OptOut:
    found = [await get_event_type(database, link.event_type)]
    for name in link.others:
        try:
            found.append(await get_event_type(database, name))
        except NotFound:
            continue  # a link holds what was sent, and the catalogue moves on
    required = [each.label for each in await list_event_types(database) if _is_required(each)]
    return _OfTypes(database, link, found, required, address)


class _OfTypes(OptOut):
    """Emails to a person: those types, their categories, all; or a thread, wherever it comes."""

    def __init__(
        self,
        database: Database,
        link: Unsubscribe,
        types: Sequence[EventType],
        required: Sequence[str],
        address: str | None,
    ) -> None:
        self._database = database
        self._person = link.recipient_id
        self._topic = link.topic
        self._types = types
        self._required = required
        self._address = address
        self._subject = _listed([each.label for each in types])
        if stays := _listed([each.label for each in types if _is_required(each)]):
            self.note = f"Emails about {stays} can't be turned off. {_REQUIRED}"
        self.choices = self._choices()

    def _choices(self) -> list[Choice]:
        several = len(self._types) > 1
        categories = _listed([each.category_label for each in self._types])
        but = (
            f"All but those that are required: {_listed(self._required)}." if self._required else ""
        )
        choices = [
            Choice("type", self._subject, f"Only {'these kinds' if several else 'this kind'}."),
            Choice(
                "category", f"everything in {categories}", "Every kind there, whichever you had on."
            ),
            Choice("all", "anything", but or "No emails at all."),
        ]
        if self._topic is not None:
            hint = "Nothing more about it, nor in your inbox. All else stays as it is."
            choices.append(Choice("topic", "this thread", hint))
        return choices

    async def turn_off(self, scope: str) -> Done:
        if scope == "topic" and self._topic is not None:
            await store.mute_topic(self._database, self._person, self._topic)
            return Done("You hear no more about this thread")
        await _turn_off(
            self._database, self._person, self._key(scope), lambda before: self._off(scope, before)
        )
        required = [each.label for each in self._types if _is_required(each)]
        if scope == "type" and len(required) == len(self._types):
            return Done(f"Emails about {self._subject} still come", _REQUIRED, can_undo=False)
        label = next(each.label for each in self.choices if each.scope == scope)
        stay = self._required if scope == "all" else required
        note = f"Emails about {_listed(stay)} still come. {_REQUIRED}" if stay else None
        return Done(f"You get no more emails about {label}", note)

    async def undo(self, scope: str) -> Done:
        if scope == "topic" and self._topic is not None:
            await store.unmute_topic(self._database, self._person, self._topic)
            return Done("Undone", "You hear of this thread as before.")
        kept = await _undo(self._database, self._person, self._key(scope))
        if kept is None and self._address is None:
            return _NOTHING
        if self._address is not None:
            await self._mail_again(self._address)
        after = await get_preferences(self._database, self._person)
        still_on = all(_is_on(after, each.event_type) for each in self._types)
        return Done(
            "Undone", f"Emails about {self._subject} are {'on' if still_on else 'off'} now."
        )

    async def _mail_again(self, address: str) -> None:
        """What the address had said before it had an account."""
        await store.lift_suppression(self._database, address)
        before = await get_preferences(self._database, self._person)
        if off := [key for key in self._keys("type") if not _is_on(before, key)]:
            on: Overrides = {key: {Channel.EMAIL: True} for key in off}
            await set_overrides(self._database, self._person, on)

    def _key(self, scope: str) -> str:
        return f"{scope}: {' '.join(self._keys(scope))}"

    def _off(self, scope: str, before: Preferences) -> Overrides:
        """The overrides of that scope; off also ends what was turned on inside it, which would be stronger."""
        keys = self._keys(scope)
        if scope == "type":
            required = {each.event_type for each in self._types if _is_required(each)}
            return {key: {Channel.EMAIL: False} for key in keys if key not in required}
        return _all_off(keys, before)

    def _keys(self, scope: str) -> list[str]:
        if scope == "type":
            return [each.event_type for each in self._types]
        if scope == "category":
            return list(dict.fromkeys(f"{each.category}.*" for each in self._types))
        return ["*"]


class _OfAddress(OptOut):
    """All mail to the address of somebody without an account."""

    same: ClassVar = {"category": "type", "all": "type"}

    def __init__(self, database: Database, address: str) -> None:
        self._database = database
        self._address = address
        hint = "There is no account with this address, so this is for all mail from this service."
        self.choices = [Choice("type", f"anything to {mask(address)}", hint)]

    async def turn_off(self, _scope: str) -> Done:
        await store.suppress_address(self._database, self._address)
        return Done(f"You get no more emails at {mask(self._address)}")

    async def undo(self, _scope: str) -> Done:
        if await store.lift_suppression(self._database, self._address):
            return Done("Undone", f"Emails to {mask(self._address)} are on now.")
        note = "Mail to this address came back or was reported, so none is sent there."
        return Done("Undone", note, can_undo=False)


class _OfDigest(OptOut):
    """A person's summary; or all their emails, of which it is one."""

    choices = (
        Choice(
            "type",
            "what is new, as a summary",
            "What it held stays in your inbox; what is new comes by itself, where that is on.",
        ),
        Choice(
            "all", "anything", "No summary and no single emails, but for those that are required."
        ),
    )
    same: ClassVar = {"category": "type"}

    def __init__(self, database: Database, recipient_id: str) -> None:
        self._database = database
        self._person = recipient_id

    async def turn_off(self, scope: str) -> Done:
        frequency = await store.turn_digest_off(self._database, self._person)
        await _turn_off(
            self._database,
            self._person,
            f"digest {scope}",
            lambda before: _all_off(["*"], before) if scope == "all" else {},
            frequency,
        )
        return Done(f"You get no more {'emails about anything' if scope == 'all' else 'summaries'}")

    async def undo(self, scope: str) -> Done:
        kept = await _undo(self._database, self._person, f"digest {scope}")
        if kept is None:
            return _NOTHING
        if kept.frequency is None:
            return Done("Undone")
        await store.turn_digest_on(self._database, self._person, kept.frequency)
        return Done("Undone", f"Your {kept.frequency} summary is on again.")


async def _turn_off(
    database: Database,
    person: str,
    key: str,
    off_from: Callable[[Preferences], Overrides],
    frequency: str | None = None,
) -> None:
    """Sets the overrides, and keeps what they were for an undo, where anything changes."""
    before = await get_preferences(database, person)
    off = off_from(before)
    changes = {
        name: (before.overrides.get(name, {}).get(Channel.EMAIL), channels[Channel.EMAIL])
        for name, channels in off.items()
    }
    changes = {name: (was, since) for name, (was, since) in changes.items() if was != since}
    if changes or frequency:
        await store.keep_for_undo(database, person, key, store.Kept(changes, frequency))
    await set_overrides(database, person, off)


async def _undo(database: Database, person: str, key: str) -> store.Kept | None:
    """Sets them as they were, but for what was chosen otherwise since; None where there is nothing to undo."""
    kept = await store.take_kept(database, person, key)
    if kept is None:
        return None
    now = (await get_preferences(database, person)).overrides
    back: Overrides = {
        name: {Channel.EMAIL: was}
        for name, (was, since) in kept.overrides.items()
        if now.get(name, {}).get(Channel.EMAIL) == since
    }
    await set_overrides(database, person, back)
    return kept


def _all_off(keys: Sequence[str], before: Preferences) -> Overrides:
    """Off for whole categories or for all: that ends what was turned on inside, which would be stronger."""
    inside = tuple(key.removesuffix("*") for key in keys)
    stronger: Overrides = {
        name: {Channel.EMAIL: None}
        for name, channels in before.overrides.items()
        if name.startswith(inside) and channels.get(Channel.EMAIL)
    }
    return stronger | {key: {Channel.EMAIL: False} for key in keys}


def _is_required(event_type: EventType) -> bool:
    return Channel.EMAIL in event_type.mandatory_channels


def _is_on(preferences: Preferences, event_type: str) -> bool:
    return preferences.event_types.get(event_type, {}).get(Channel.EMAIL, False)


def _listed(labels: Sequence[str]) -> str:
    """Each once: `A`, `A and B`, `A, B and C`."""
    *most, last = dict.fromkeys(labels) or [""]
    return f"{', '.join(most)} and {last}" if most else last
