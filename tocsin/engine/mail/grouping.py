"""Several notifications about one subject in one mail: as one entry of a digest, and as the title of a burst."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from msgspec import structs

from tocsin.engine.group_title import GroupFacts, about_of, group_title
from tocsin.engine.model import Claimed, Entry


def merged_entries(entries: Sequence[Entry], locale: str | None) -> list[Entry]:
    """Returns unread entries of one type and subject as one where there is a line for all of them."""
    groups: dict[Hashable, list[Entry]] = {}
    for place, entry in enumerate(entries):
        groups.setdefault(_key(entry, place, alone=entry.read), []).append(entry)
    return [entry for group in groups.values() for entry in _merged(group, locale)]


def by_subject(newest_first: Sequence[Claimed]) -> list[list[Claimed]]:
    """Returns the deliveries of a mail in groups of one type and subject, the group with the newest first."""
    groups: dict[Hashable, list[Claimed]] = {}
    for place, one in enumerate(newest_first):
        groups.setdefault(_key(one, place, alone=one.title_many is None), []).append(one)
    return list(groups.values())


def line_of(newest_first: Sequence[Claimed] | Sequence[Entry], locale: str | None) -> str | None:
    """Returns one line for several, such as "Alice and 4 others replied"; None if there is none."""
    newest = newest_first[0]
    people = {one.initiator for one in newest_first if one.initiator is not None}
    about = about_of(newest.metadata) if isinstance(newest, Claimed) else newest.about
    facts = GroupFacts(
        len(newest_first),
        newest.title or newest.label,
        newest.initiator_name,
        len(people - {newest.initiator}),
        about,
    )
    line = group_title(newest.title_many, locale, facts)
    return None if line == facts.title else line


def _key(one: Claimed | Entry, place: int, *, alone: bool) -> Hashable:
    if alone or one.subject is None:
        return place
    return one.event_type, one.subject


def _merged(group: Sequence[Entry], locale: str | None) -> Sequence[Entry]:
    newest_first = sorted(
        group, key=lambda one: (one.created_at, one.notification_id), reverse=True
    )
    line = line_of(newest_first, locale)
    if line is None:
        return group
    return [structs.replace(newest_first[0], title=line, actions=None, count=len(group))]
