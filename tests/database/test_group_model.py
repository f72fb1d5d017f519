"""The grouped inbox against a naive model, over random calls; also while its pages are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tocsin.client import erase_recipient, notify
from tocsin.engine.store import group as store
from tocsin.engine.store import notification
from tocsin.engine.store.archive import archive
from tocsin.engine.store.database import Database
from tocsin.engine.store.group import Group, GroupCursor, parse_group_key
from tocsin.engine.store.notification import Filter

Db = psycopg.Connection[Any]

ZONE = "Pacific/Auckland"
TYPES = ("forum.new_reply", "forum.mention", "event.changed", "billing.invoice_issued")
SINGLE = "event.changed"
PEOPLE = ("ines", "ivo", "isa", "igor", "ida")
ALL = Filter()
START = datetime(2026, 3, 1, tzinfo=UTC)


STOCK = """
with event as (
    insert into tocsin.event (event_type, title, body, metadata, caller, subject, created_at, fanned_out_at)
    select %(type)s, 'x', '', '{}', 'role:app', s.subject, %(at)s + s.place * interval '1 second', now()
    from unnest(%(subjects)s::text[]) with ordinality s (subject, place)
    returning event_id, subject, created_at
)
insert into tocsin.notification (event_id, recipient_id, event_type, subject, created_at, in_inbox, decisions)
select e.event_id, 'alice', %(type)s, e.subject, e.created_at, true, '{}'
from event e
returning notification_id, subject, created_at
"""


class Item(NamedTuple):
    """A group as the model has it."""

    ids: tuple[int, ...]  # newest first
    unread: int
    initiators: tuple[str, ...]
    others: int


class Row:
    """A notification as the model has it."""

    def __init__(
        self, id_: int, type_: str, subject: str | None, by: str | None, at: datetime
    ) -> None:
        self.id, self.type, self.subject, self.by, self.at = id_, type_, subject, by, at
        self.read = False
        self.listed = True

    def key(self) -> tuple[Any, ...]:
        if self.subject is None or self.type == SINGLE:
            return (self.id,)
        day = self.at.astimezone(ZoneInfo(ZONE)).date() if self.read else None
        return (self.type, self.subject, day)


class Model:
    """Alice's inbox, and the calls that change it, each made in the database too."""

    def __init__(self, db: Db, database: Database, random: Random) -> None:
        self.db, self.database, self.random = db, database, random
        self.rows: list[Row] = []

    def listed(self) -> list[Row]:
        rows = [row for row in self.rows if row.listed]
        return sorted(rows, key=lambda row: (row.at, row.id), reverse=True)

    def groups(self, wanted: Filter = ALL) -> list[Item]:
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.listed():
            if (
                wanted.read in (None, row.read)
                and wanted.event_type in (None, row.type)
                and wanted.subject in (None, row.subject)
                and wanted.category in (None, row.type.partition(".")[0])
            ):
                found.setdefault(row.key(), []).append(row)
        return [to_item(rows) for rows in found.values()]

    def unread(self) -> int:
        return sum(not row.read for row in self.listed())

    def notify(self, *, may_replace: bool = True) -> None:
        type_ = self.random.choice(TYPES)
        subject = self.random.choice((None, "t:1", "t:1", "t:2", "t:3"))
        by = self.random.choice((None, *PEOPLE))
        replaces = may_replace and subject is not None and self.random.random() < 0.1
        event_id = notify(
            self.db,
            recipient="alice",
            event_type=type_,
            title="x",
            subject=subject,
            initiator=by,
            replaces=replaces,
        )
        at = START + timedelta(minutes=self.random.randrange(4 * 24 * 60))
        found = self.db.execute(
            "update tocsin.notification set created_at = %s where event_id = %s returning notification_id",
            (at, event_id),
        ).fetchone()
        assert found is not None
        for row in self.rows:
            if replaces and not row.read and (row.type, row.subject) == (type_, subject):
                row.listed = False
        self.rows.append(Row(found[0], type_, subject, by, at))

    def stock(self, subjects: Sequence[str | None], at: datetime) -> None:
        """Adds an unread notification of the first type for each of the subjects, a second apart."""
        made = self.db.execute(STOCK, {"type": TYPES[0], "subjects": list(subjects), "at": at})
        self.rows += [Row(id_, TYPES[0], subject, None, at) for id_, subject, at in made]

    async def read_one(self) -> None:
        if rows := self.listed():
            row = self.random.choice(rows)
            row.read = self.random.random() < 0.7
            await notification.mark_read(self.database, "alice", row.id, read=row.read)

    async def archive_one(self) -> None:
        if rows := self.listed():
            row = self.random.choice(rows)
            row.listed = False
            await archive(self.database, "alice", row.id)

    async def change_group(self) -> None:
        """Reads, puts back or archives a group as it was listed, after something else may have happened."""
        found = await store.list_groups(self.database, "alice", ALL, cursor=None, limit=100)
        if not found.results:
            return
        chosen = self.random.choice(found.results)
        key = parse_group_key(chosen.group_key)
        known = {row.id for row in self.rows}
        for _ in range(self.random.randrange(3)):
            self.notify()
        members = [
            row
            for row in self.listed()
            if row.id in known
            and (
                row.id == key.notification_id or row.key() == (key.event_type, key.subject, key.day)
            )
        ]
        what = self.random.choice(("read", "unread", "archive"))
        if what == "read":
            await store.mark_group_read(self.database, "alice", key, as_of=found.as_of)
        elif what == "unread":
            await store.mark_group_unread(self.database, "alice", key, as_of=found.as_of)
        else:
            await store.archive_group(self.database, "alice", key, as_of=found.as_of)
        for row in members:
            row.read = what == "read" or (what == "archive" and row.read)
            row.listed = what != "archive"

    def withdraw(self) -> None:
        subject = self.random.choice(("t:1", "t:2", "t:3"))
        self.db.execute("select tocsin.withdraw(%s, %s)", (subject, TYPES[0]))
        for row in self.rows:
            if (row.type, row.subject) == (TYPES[0], subject):
                row.listed = False

    def erase(self) -> None:
        person = self.random.choice(PEOPLE)
        erase_recipient(self.db, person)
        for row in self.rows:
            row.by = None if row.by == person else row.by

    async def step(self) -> None:
        call = self.random.random()
        if call < 0.55:
            self.notify()
        elif call < 0.7:
            await self.read_one()
        elif call < 0.8:
            await self.archive_one()
        elif call < 0.95:
            await self.change_group()
        elif call < 0.98:
            self.withdraw()
        else:
            self.erase()


def to_item(rows: Sequence[Row]) -> Item:
    people = list(dict.fromkeys(row.by for row in rows if row.by is not None))
    unread = sum(not row.read for row in rows)
    return Item(tuple(row.id for row in rows), unread, tuple(people[:3]), max(len(people) - 3, 0))


async def read_item(model: Model, group: Group) -> Item:
    key = parse_group_key(group.group_key)
    ids: list[int] = []
    cursor = None
    while True:
        inbox = await store.list_group_members(
            model.database, "alice", key, cursor=cursor, limit=model.random.randint(1, 5)
        )
        ids += [each.id for each in inbox.page.results]
        if (cursor := inbox.page.next) is None:
            break
    assert (group.count, group.latest.id) == (len(ids), ids[0])
    oldest = next(row.at for row in model.rows if row.id == ids[-1])
    assert (group.oldest_at, group.capped) == (oldest, False)
    initiators = tuple(each.id for each in group.initiators)
    return Item(tuple(ids), group.unread, initiators, group.others)


async def pages(model: Model, *, meanwhile: bool) -> list[Group]:
    """All groups by pages, and back to the first; with `meanwhile`, new notifications arrive between two pages."""
    limit = model.random.randint(1, 4)
    found: list[Sequence[Group]] = []
    cursor: GroupCursor | None = None
    while True:
        page = await store.list_groups(model.database, "alice", ALL, cursor=cursor, limit=limit)
        found.append(page.results)
        if meanwhile and len(found) < 4:
            model.notify(may_replace=False)
        if (cursor := page.next) is None:
            break
    for expected in reversed(found[:-1]):
        cursor = page.previous
        assert cursor is not None
        page = await store.list_groups(model.database, "alice", ALL, cursor=cursor, limit=limit)
        assert page.results == expected
    assert page.previous is None
    return [group for results in found for group in results]


async def check(model: Model) -> None:
    found = await pages(model, meanwhile=False)
    assert [await read_item(model, group) for group in found] == model.groups()
    wanted = Filter(
        model.random.choice((None, True, False)),
        model.random.choice((None, *TYPES)),
        model.random.choice((None, "forum", "billing")),
        model.random.choice((None, "t:1")),
    )
    listed = await store.list_groups(model.database, "alice", wanted, cursor=None, limit=100)
    assert [await read_item(model, group) for group in listed.results] == model.groups(wanted)
    badge = model.db.execute("select tocsin.unread_count('alice')").fetchone()
    assert badge == (model.unread(),)


@pytest.mark.parametrize("seed", range(6))
async def test_groups_and_badge_are_those_of_a_naive_model(
    seed: int, db: Db, database: Database
) -> None:
    random = Random(seed)
    db.execute("select tocsin.upsert_recipient('alice', null, null, null, %s)", (ZONE,))
    for person in PEOPLE:
        db.execute("select tocsin.upsert_recipient(%s)", (person,))
    db.execute("update tocsin.event_type set grouped = false where event_type = %s", (SINGLE,))
    model = Model(db, database, random)
    for number in range(60):
        await model.step()
        if number % 6 == 5:
            await check(model)
    before = model.groups()
    found = await pages(model, meanwhile=True)
    assert [(group.latest.id, group.count) for group in found] == [
        (item.ids[0], len(item.ids)) for item in before
    ]
    assert len(model.groups()) >= len(before)


@pytest.mark.parametrize(("seed", "outside"), [(1, 0), (2, 300), (3, 1200), (4, 990)])
async def test_what_is_older_than_a_large_group_is_listed(
    seed: int, outside: int, db: Db, database: Database
) -> None:
    """Pages with and without a filter; `outside` groups of one are older, and the large group has read members too."""
    random = Random(seed)
    db.execute("select tocsin.upsert_recipient('alice', null, null, null, %s)", (ZONE,))
    for person in PEOPLE:
        db.execute("select tocsin.upsert_recipient(%s)", (person,))
    db.execute("update tocsin.event_type set grouped = false where event_type = %s", (SINGLE,))
    model = Model(db, database, random)
    model.stock([f"o:{number}" for number in range(outside)], START - timedelta(days=2))
    for _ in range(60):
        model.notify(may_replace=False)
        await model.read_one()
    model.stock(["t:1"] * 1500, START + timedelta(days=5))
    for _ in range(4):
        for _ in range(5):
            await model.read_one()
            await model.archive_one()
        for wanted in (
            ALL,
            Filter(read=False),
            Filter(category="forum"),
            Filter(event_type=TYPES[0]),
        ):
            assert await heads(model, wanted) == [
                (item.ids[0], min(len(item.ids), 1000)) for item in model.groups(wanted)
            ]


async def heads(model: Model, wanted: Filter) -> list[tuple[int, int]]:
    """The newest and the count of each group, by pages."""
    found: list[Group] = []
    cursor: GroupCursor | None = None
    while True:
        page = await store.list_groups(model.database, "alice", wanted, cursor=cursor, limit=500)
        found += page.results
        if (cursor := page.next) is None:
            return [(group.latest.id, group.count) for group in found]
