"""Fan-outs in slices against a naive model, over random calls between the slices."""

from __future__ import annotations

from random import Random
from typing import Any

import psycopg
import pytest

import tocsin

Db = psycopg.Connection[Any]

TOPICS = ("forum.thread:1", "forum.thread:2")
PEOPLE = [f"p{number:02}" for number in range(18)]
AT_ONCE = 4


class FanOut:
    """An event as the model has it."""

    def __init__(self, event_id: int, topic: str, began: int, initiator: str | None) -> None:
        self.event_id, self.topic, self.began, self.initiator = event_id, topic, began, initiator
        self.running = True
        self.cancelled = False
        self.after = ""
        self.written: dict[str, bool] = {}  # {person: in the inbox}


class Model:
    """Who follows what since when, and the events; each call is made in the database too."""

    def __init__(self, db: Db, random: Random) -> None:
        self.db, self.random = db, random
        self.time = 0
        self.follows: dict[str, dict[str, tuple[str, int]]] = {topic: {} for topic in TOPICS}
        self.events: list[FanOut] = []

    def follow(self) -> None:
        topic, person, level = self._topic(), self._person(), self._level()
        tocsin.subscribe(self.db, person, topic, level)
        _, since = self.follows[topic].get(person, ("", self.time))
        self.follows[topic][person] = (level, since)

    def leave(self) -> None:
        topic, person = self._topic(), self._person()
        tocsin.unsubscribe(self.db, person, topic)
        self.follows[topic].pop(person, None)

    def notify(self) -> None:
        topic, initiator = self._topic(), self.random.choice((None, self._person()))
        event_id = tocsin.notify_topic(
            self.db, topic=topic, event_type="forum.new_thread", title="x", initiator=initiator
        )
        event = FanOut(event_id, topic, self.time, initiator)
        self.events.append(event)
        if len(self._left(event)) <= AT_ONCE:
            self._write(event, AT_ONCE + 1)

    def advance(self) -> None:
        following = "select event_id from tocsin.running_fan_out order by turn_at limit 1"
        row = self.db.execute(following).fetchone()
        people = self.random.randrange(1, 8)
        if self.random.random() < 0.2:  # its process is killed before the commit
            with self.db.transaction(force_rollback=True):
                self.db.execute("select tocsin.advance_fan_outs(%s)", (people,))
        self.db.execute("select tocsin.advance_fan_outs(%s)", (people,))
        if row is not None:
            self._write(next(each for each in self.events if each.event_id == row[0]), people)

    def cancel(self) -> None:
        if self.events:
            event = self.random.choice(self.events)
            tocsin.cancel(self.db, event.event_id)
            self._end(event)

    def withdraw(self) -> None:
        topic = self._topic()
        tocsin.withdraw(self.db, topic)
        for event in self.events:
            if event.topic == topic:
                self._end(event)

    def erase(self) -> None:
        person = self._person()
        tocsin.erase_recipient(self.db, person)
        for topic in TOPICS:
            self.follows[topic].pop(person, None)
        for event in [*self.events]:
            caused = event.initiator == person
            if caused:
                event.initiator = None
            # an event that was for nobody else goes too
            for_one = event.written.keys() == {person} and not event.running
            if for_one or (caused and not event.written and not event.running):
                self.events.remove(event)
            event.written.pop(person, None)
        tocsin.upsert_recipient(self.db, person)

    def step(self) -> None:
        self.time += 1
        calls = (self.follow, self.follow, self.leave, self.notify, self.cancel, self.withdraw)
        weights = (8, 8, 6, 4, 1, 0.5)
        call = self.random.choices((*calls, self.erase, self.advance), (*weights, 0.5, 16))[0]
        call()

    def finish(self) -> None:
        while any(event.running for event in self.events):
            self.advance()
        self.advance()  # takes out what is left of cancelled ones

    def check(self) -> None:
        """Each notification is as in the model, and so is each badge."""
        for event in self.events:
            stored = dict(
                self.db.execute(
                    "select recipient_id, in_inbox from tocsin.notification where event_id = %s",
                    (event.event_id,),
                ).fetchall()
            )
            assert stored == event.written
        for person in PEOPLE:
            unread = sum(event.written.get(person, False) for event in self.events)
            assert tocsin.unread_count(self.db, person) == unread

    def _left(self, event: FanOut) -> list[str]:
        return sorted(
            person
            for person, (_, since) in self.follows[event.topic].items()
            if person > event.after and since <= event.began and person != event.initiator
        )

    def _write(self, event: FanOut, people: int) -> None:
        if event.cancelled:
            return
        slice_ = self._left(event)[:people]
        for person in slice_:
            level, _ = self.follows[event.topic][person]
            event.written[person] = level == "all"
            event.after = person
        event.running = len(slice_) == people

    def _end(self, event: FanOut) -> None:
        event.running, event.cancelled = False, True
        event.written = dict.fromkeys(event.written, False)

    def _topic(self) -> str:
        return self.random.choice(TOPICS)

    def _person(self) -> str:
        return self.random.choice(PEOPLE)

    def _level(self) -> str:
        return self.random.choice(("all", "all", "all", "mentions", "muted"))


@pytest.mark.parametrize("seed", range(6))
def test_random_calls_between_the_slices_end_as_in_the_model(db: Db, seed: int) -> None:
    db.execute(
        "create or replace function tocsin.fan_out_at_once() returns integer language sql immutable"
        f" as 'select {AT_ONCE}'"
    )
    for person in PEOPLE:
        tocsin.upsert_recipient(db, person)
    model = Model(db, Random(seed))
    for topic in TOPICS:
        for person in PEOPLE[::2]:
            tocsin.subscribe(db, person, topic)
            model.follows[topic][person] = ("all", 0)
    for _ in range(120):
        model.step()
    model.check()
    model.finish()
    model.check()
