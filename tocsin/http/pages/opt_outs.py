"""What the reader of a mail may turn off, by whose mail it was, and the page's sentences about it in their language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from msgspec import Struct

from tocsin.engine.explain.why import mask
from tocsin.engine.mail.links import OptOutLink, Unsubscribe, UnsubscribeAddress, UnsubscribeDigest
from tocsin.engine.model import Channel, EventType, NotFound
from tocsin.engine.store import mail_event
from tocsin.engine.store import preference as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.event import get_event_type, list_event_types
from tocsin.engine.store.preference import Preferences, get_preferences, set_overrides
from tocsin.engine.store.recipient import get_recipient
from tocsin.engine.store.target import Unsubscribed
from tocsin.http.pages.html import Reader, _

_Overrides = dict[str, dict[str, bool | None]]
ReaderOf = Callable[[str | None], Reader]

_REQUIRED = _("They are required: the service has to be able to reach you about this.")
_STILL = _("Emails about %(labels)s still come")
_UNDONE = _("Undone")


class Choice(Struct, frozen=True):
    """One thing to turn off, and in words what that does; `done` is shown once it is off."""

    scope: str
    label: str
    hint: str
    done: str


class Done(Struct, frozen=True):
    """What was done, in words."""

    sentence: str
    note: str | None = None
    can_undo: bool = True


class OptOut(ABC):
    """What one link may do; a bare POST is the scope of the first choice."""

    note: str | None = None
    choices: Sequence[Choice]
    same: ClassVar[
        Mapping[str, str]
    ] = {}  # further scopes that a client may name: what each is here

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self.reader = reader

    @abstractmethod
    async def turn_off(self, scope: str) -> Done:
        """Turns that off; twice does no harm."""

    @abstractmethod
    async def undo(self, scope: str) -> Done:
        """Takes it back, but for what was changed since."""

    def _undone(self, note: str | None = None) -> Done:
        return Done(self.reader.gettext(_UNDONE), note)

    def _nothing(self) -> Done:
        return Done(
            self.reader.gettext("Nothing changed"),
            self.reader.gettext("This link has turned nothing off."),
            can_undo=False,
        )

    def _done(self, scope: str) -> str:
        return next(each.done for each in self.choices if each.scope == scope)


async def opt_out(database: Database, link: OptOutLink, reader_of: ReaderOf) -> OptOut:
    """Returns what a link may turn off; NotFound for a person that was erased: a click must not create them again."""
    if isinstance(link, UnsubscribeAddress):
        owner = await store.address_owner(database, link.address)
        if owner is None:
            return _OfAddress(database, reader_of(None), link.address)
        # with an account by now, and terms of their own
        address, link = link.address, Unsubscribe(owner, link.event_type)
    else:
        address = None
    reader = reader_of((await get_recipient(database, link.recipient_id)).locale)
    if isinstance(link, UnsubscribeDigest):
        return _OfDigest(database, reader, link.recipient_id)
    found = [await get_event_type(database, link.event_type)]
    for name in link.others:
        try:
            found.append(await get_event_type(database, name))
        except NotFound:
            continue  # a link holds what was sent, and the catalogue moves on
    required = [each.label for each in await list_event_types(database) if _is_required(each)]
    return _OfTypes(database, reader, link, found, required=required, address=address)


class _OfPerson(OptOut):
    """Emails to a person."""

    def __init__(self, database: Database, reader: Reader, recipient_id: str) -> None:
        super().__init__(database, reader)
        self._person = recipient_id

    async def _set_off(
        self,
        key: str,
        off_from: Callable[[Preferences], _Overrides],
        what: Unsubscribed,
        frequency: str | None = None,
    ) -> None:
        """Sets the overrides, and keeps what they were for an undo, where anything changes."""
        before = await get_preferences(self._database, self._person)
        off = off_from(before)
        changes = {
            name: (was, since)
            for name, channels in off.items()
            for was, since in [(_chosen(before, name), channels[Channel.EMAIL])]
            if was != since
        }
        if changes or frequency:
            kept = store.Kept(changes, frequency)
            await store.save_for_undo(self._database, self._person, key, kept)
        await set_overrides(self._database, self._person, off, what)

    async def _set_back(self, key: str) -> store.Kept | None:
        """Sets them as they were, but for what was chosen otherwise since; None where there is nothing to undo."""
        kept = await store.take_saved(self._database, self._person, key)
        if kept is not None:
            now = await get_preferences(self._database, self._person)
            back: _Overrides = {
                name: {Channel.EMAIL: was}
                for name, (was, since) in kept.overrides.items()
                if _chosen(now, name) == since
            }
            await set_overrides(self._database, self._person, back)
        return kept


class _OfTypes(_OfPerson):
    """Emails to a person: those types, their categories, all; or a thread, wherever it comes."""

    def __init__(
        self,
        database: Database,
        reader: Reader,
        link: Unsubscribe,
        types: Sequence[EventType],
        *,
        required: Sequence[str],
        address: str | None,
    ) -> None:
        super().__init__(database, reader, link.recipient_id)
        self._topic = link.topic
        self._types = types
        self._required = required
        self._address = address
        self._subject = reader.labels([each.label for each in types])
        if stays := [each.label for each in types if _is_required(each)]:
            stay = self.reader.gettext(
                "Emails about %(labels)s can’t be turned off.",  # noqa: RUF001
                labels=reader.labels(stays),
            )
            self.note = f"{stay} {self.reader.gettext(_REQUIRED)}"
        self.choices = self._choices()

    def _choices(self) -> list[Choice]:
        gettext, several = self.reader.gettext, len(self._types) > 1
        categories = self.reader.labels([each.category_label for each in self._types])
        but = self.reader.gettext(
            "All but those that are required: %(labels)s.",
            labels=self.reader.labels(self._required),
        )
        choices = [
            Choice(
                "type",
                self._subject,
                gettext("Only these kinds.") if several else gettext("Only this kind."),
                gettext("You get no more emails about %(labels)s", labels=self._subject),
            ),
            Choice(
                "category",
                gettext("everything in %(categories)s", categories=categories),
                gettext("Every kind there, whichever you had on."),
                gettext(
                    "You get no more emails about everything in %(categories)s",
                    categories=categories,
                ),
            ),
            Choice(
                "all",
                gettext("anything"),
                but if self._required else gettext("No emails at all."),
                gettext("You get no more emails about anything"),
            ),
        ]
        if self._topic is not None:
            hint = gettext("Nothing more about it, nor in your inbox. All else stays as it is.")
            done = gettext("You hear no more about this thread")
            choices.append(Choice("topic", gettext("this thread"), hint, done))
        return choices

    async def turn_off(self, scope: str) -> Done:
        if scope == "topic" and self._topic is not None:
            await store.mute_topic(self._database, self._person, self._topic)
            return Done(self._done(scope))
        what = Unsubscribed(scope, tuple(self._keys(scope)))
        await self._set_off(self._key(scope), lambda before: self._off(scope, before), what)
        required = [each.label for each in self._types if _is_required(each)]
        if scope == "type" and len(required) == len(self._types):
            return Done(
                self.reader.gettext(_STILL, labels=self._subject),
                self.reader.gettext(_REQUIRED),
                can_undo=False,
            )
        stay = self._required if scope == "all" else required
        if not stay:
            return Done(self._done(scope))
        still = self.reader.gettext(_STILL, labels=self.reader.labels(stay))
        return Done(self._done(scope), f"{still}. {self.reader.gettext(_REQUIRED)}")

    async def undo(self, scope: str) -> Done:
        if scope == "topic" and self._topic is not None:
            await store.unmute_topic(self._database, self._person, self._topic)
            return self._undone(self.reader.gettext("You hear of this thread as before."))
        kept = await self._set_back(self._key(scope))
        if kept is None and self._address is None:
            return self._nothing()
        if self._address is not None:
            await self._mail_again(self._address)
        after = await get_preferences(self._database, self._person)
        if all(is_on(after, each.event_type) for each in self._types):
            return self._undone(
                self.reader.gettext("Emails about %(labels)s are on now.", labels=self._subject)
            )
        return self._undone(
            self.reader.gettext("Emails about %(labels)s are off now.", labels=self._subject)
        )

    async def _mail_again(self, address: str) -> None:
        """Takes back what the address turned off before it had an account."""
        await mail_event.undo_unsubscribed(self._database, address)
        before = await get_preferences(self._database, self._person)
        if off := [key for key in self._keys("type") if not is_on(before, key)]:
            on: _Overrides = {key: {Channel.EMAIL: True} for key in off}
            await set_overrides(self._database, self._person, on)

    def _key(self, scope: str) -> str:
        return f"{scope}: {' '.join(self._keys(scope))}"

    def _off(self, scope: str, before: Preferences) -> _Overrides:
        """Returns the overrides of that scope; off also removes what was turned on inside it, which is stronger."""
        keys = self._keys(scope)
        if scope == "type":
            required = {each.event_type for each in self._types if _is_required(each)}
            return {key: {Channel.EMAIL: False} for key in keys if key not in required}
        return all_off(keys, before)

    def _keys(self, scope: str) -> list[str]:
        if scope == "type":
            return [each.event_type for each in self._types]
        if scope == "category":
            return list(dict.fromkeys(f"{each.category}.*" for each in self._types))
        return ["*"]


class _OfAddress(OptOut):
    """All mail to the address of somebody without an account."""

    same: ClassVar = {"category": "type", "all": "type"}

    def __init__(self, database: Database, reader: Reader, address: str) -> None:
        super().__init__(database, reader)
        self._address = address
        self._masked = mask(address)
        gettext = self.reader.gettext
        self.choices = [
            Choice(
                "type",
                self._masked,
                gettext(
                    "There is no account with %(address)s, so this is for all mail from this service.",
                    address=self._masked,
                ),
                gettext("You get no more emails at %(address)s", address=self._masked),
            )
        ]

    async def turn_off(self, scope: str) -> Done:
        await mail_event.suppress_unsubscribed(self._database, self._address)
        return Done(self._done(scope))

    async def undo(self, _scope: str) -> Done:
        if await mail_event.undo_unsubscribed(self._database, self._address):
            return self._undone(
                self.reader.gettext("Emails to %(address)s are on now.", address=self._masked)
            )
        note = self.reader.gettext(
            "Mail to this address came back or was reported, so none is sent there."
        )
        return Done(self.reader.gettext(_UNDONE), note, can_undo=False)


class _OfDigest(_OfPerson):
    """A person's summary; or all their emails, of which it is one."""

    same: ClassVar = {"category": "type"}

    def __init__(self, database: Database, reader: Reader, recipient_id: str) -> None:
        super().__init__(database, reader, recipient_id)
        gettext = self.reader.gettext
        self.choices = [
            Choice(
                "type",
                gettext("what is new, as a summary"),
                gettext(
                    "What it held stays in your inbox; what is new comes by itself, where that is on."
                ),
                gettext("You get no more summaries"),
            ),
            Choice(
                "all",
                gettext("anything"),
                gettext("No summary and no single emails, but for those that are required."),
                gettext("You get no more emails about anything"),
            ),
        ]

    async def turn_off(self, scope: str) -> Done:
        frequency = await store.turn_digest_off(self._database, self._person)
        await self._set_off(
            f"digest {scope}",
            lambda before: all_off(["*"], before) if scope == "all" else {},
            Unsubscribed("all", ("*",)) if scope == "all" else Unsubscribed("digest"),
            frequency,
        )
        return Done(self._done(scope))

    async def undo(self, scope: str) -> Done:
        kept = await self._set_back(f"digest {scope}")
        if kept is None:
            return self._nothing()
        if kept.frequency is None:
            return self._undone()
        await store.turn_digest_on(self._database, self._person, kept.frequency)
        daily = kept.frequency == "daily"
        return self._undone(
            self.reader.gettext("Your daily summary is on again.")
            if daily
            else self.reader.gettext("Your weekly summary is on again.")
        )


def _is_required(event_type: EventType) -> bool:
    return Channel.EMAIL in event_type.mandatory_channels


def all_off(keys: Sequence[str], before: Preferences) -> _Overrides:
    """Returns overrides that turn categories or all off, without what was turned on inside, which is stronger."""
    inside = tuple(key.removesuffix("*") for key in keys)
    stronger: _Overrides = {
        name: {Channel.EMAIL: None}
        for name, channels in before.overrides.items()
        if name.startswith(inside) and channels.get(Channel.EMAIL)
    }
    return stronger | {key: {Channel.EMAIL: False} for key in keys}


def _chosen(preferences: Preferences, name: str) -> bool | None:
    """Returns the override of email; None where there is none."""
    return preferences.overrides.get(name, {}).get(Channel.EMAIL)


def is_on(preferences: Preferences, event_type: str) -> bool:
    """Returns whether emails of that type come, all in all."""
    return preferences.event_types.get(event_type, {}).get(Channel.EMAIL, False)
