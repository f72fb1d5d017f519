"""The event types of the default catalogue as constants, and the reader of catalogue files."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

BULLETIN_NEW_CHAPTER: Final = "bulletin.new_chapter"
BULLETIN_NEW_ORG: Final = "bulletin.new_org"
FORUM_NEW_THREAD: Final = "forum.new_thread"
FORUM_NEW_REPLY: Final = "forum.new_reply"
FORUM_MENTION: Final = "forum.mention"
ELECTION_OPENED: Final = "election.opened"
ELECTION_RESULTS: Final = "election.results"
ELECTION_REMINDER: Final = "election.reminder"
BILLING_INVOICE_ISSUED: Final = "billing.invoice_issued"
BILLING_PAYMENT_CONFIRMED: Final = "billing.payment_confirmed"
BILLING_PAYMENT_DUE: Final = "billing.payment_due"
APPROVAL_REQUESTED: Final = "approval.requested"
APPROVAL_DECIDED: Final = "approval.decided"
EVENT_INVITED: Final = "event.invited"
EVENT_CHANGED: Final = "event.changed"
EVENT_REMINDER: Final = "event.reminder"
LEARNING_ASSIGNED: Final = "learning.assigned"
LEARNING_CERTIFICATE_READY: Final = "learning.certificate_ready"
LEARNING_DUE_SOON: Final = "learning.due_soon"
COMPLIANCE_REQUIREMENT_DUE: Final = "compliance.requirement_due"
COMPLIANCE_OVERDUE: Final = "compliance.overdue"
RECOGNITION_RECEIVED: Final = "recognition.received"
MESSAGES_NEW_DM: Final = "messages.new_dm"
MESSAGES_GROUP_MENTION: Final = "messages.group_mention"

ChannelName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$(?!\n)")]
CategoryName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$(?!\n)")]
EventTypeName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$(?!\n)")]
# one line; tocsin.checked_label refuses what can't be seen too
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\S[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$(?!\n)"
Label = Annotated[str, Meta(min_length=1, max_length=100, pattern=_LINE)]
Duration = Annotated[str, Meta(pattern="^[1-9][0-9]{0,4}[smhd]$(?!\n)")]


class CatalogueError(Exception):
    """The catalogue file is wrong: says where, and what is expected."""


class EntryDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """One event type of a catalogue file."""

    label: Label
    channels: list[ChannelName]
    mandatory: list[ChannelName] = []
    priority: Literal["low", "normal", "high"] = "normal"
    time_to_live: Duration = "3d"
    max_attempts: Annotated[int, Meta(ge=1, le=50)] = 10
    digest: bool = True
    delay: dict[ChannelName, Duration] = {}
    skip_if_read: list[ChannelName] = []
    alone: bool = False
    mention: bool = False  # of a topic: reaches those too who follow it for mentions only


class Catalogue(Struct, frozen=True, forbid_unknown_fields=True):
    """A catalogue file: categories with labels, and event types."""

    event_types: dict[EventTypeName, EntryDefinition]
    categories: dict[CategoryName, Label] = {}
    replace: bool = False  # retire what the file does not name

    @property
    def constants(self) -> dict[str, str]:
        """`{"FORUM_NEW_REPLY": "forum.new_reply", …}`, as this module has them for the default catalogue."""
        return {re.sub(r"\W", "_", name).upper(): name for name in self.event_types}

    def in_order(self) -> dict[str, object]:
        """For the database: its objects would lose the order of the file."""
        return {
            "categories": [
                {"category": name, "label": label} for name, label in self.categories.items()
            ],
            "event_types": [
                {"event_type": name, **msgspec.to_builtins(entry)}
                for name, entry in self.event_types.items()
            ],
            "replace": self.replace,
        }


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def default_catalogue() -> Catalogue:
    """The catalogue that a new database starts with."""
    text = (files("tocsin") / "event_types.toml").read_text(encoding="utf-8")
    return parse_catalogue(text, "event_types.toml")


def read_catalogue(path: Path) -> Catalogue:
    """Reads a catalogue file; raises CatalogueError with one line that names the place."""
    try:
        return parse_catalogue(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read: {error}") from error


def parse_catalogue(text: str, place: str) -> Catalogue:
    """Reads a catalogue's text; `place` names it in errors."""
    try:
        catalogue = msgspec.toml.decode(text, type=Catalogue)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CatalogueError(f"{place}: {error}") from error
    for name, entry in catalogue.event_types.items():
        if stray := [channel for channel in entry.mandatory if channel not in entry.channels]:
            raise CatalogueError(
                f"{place}: {name}: {stray[0]} is mandatory but not among its channels; add it to channels."
            )
        for channel, delay in entry.delay.items():
            if _seconds(delay) >= _seconds(entry.time_to_live):
                raise CatalogueError(
                    f"{place}: {name}: {channel} is delayed by {delay}, but nothing is sent after its "
                    f"time_to_live of {entry.time_to_live}; make that longer."
                )
        if "in_app" in (*entry.delay, *entry.skip_if_read):
            raise CatalogueError(
                f"{place}: {name}: in_app is the inbox itself, and comes at once; delay another channel."
            )
    return catalogue
