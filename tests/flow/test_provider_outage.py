"""An outage of a provider: it gets only the probes of the breaker, and no other channel is delayed.

Counts, not durations: the breaker's clock is the test's own, and goes from one probe to the next.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.phones import far_ends
from tests.support.services import (
    LONGEST,
    mail_catcher,
    mail_count,
    running,
    service_dsn,
    until,
)
from tocsin.engine.actors.apns import ApnsActor
from tocsin.engine.actors.apns_token import MemoryStore, ProviderKey, ProviderToken
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.fcm import FcmActor
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.breaker import Breaker, BreakerState
from tocsin.engine.deliver.deliverer import Deliverer
from tocsin.engine.model import Channel, CheckResult, Message, Priority
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.worker import _renderer
from tocsin.settings import Settings
from tocsin.settings.addresses import SmtpServer
from tocsin.testing.apns import Act, ApnsReply, ApnsServer, Hang, Held
from tocsin.testing.fcm import FcmServer, unavailable

Db = psycopg.Connection[Any]

MOST_ROUNDS = 200  # after an outage, until all is sent
PEOPLE = 3
RATE = 10.0
"""Pushes a second to each provider in normal operation."""

SPAN = 600.0
"""Seconds of outage."""


# The breaker by itself.


def probes(span: float, chance: Callable[[], float]) -> int:
    """What a provider sees of one worker while it fails for so many seconds, and there is always something to send."""
    now = 0.0
    breaker = Breaker(clock=lambda: now, chance=chance)
    for count in itertools.count():
        if breaker.state is BreakerState.OPEN:
            now += breaker.retry_after
        if now >= span:
            return count
        breaker.failure("down")
    raise AssertionError


@pytest.mark.parametrize(
    ("rate", "span"), [(100, 20), (50, 30), (10, 300), (10, 3600), (5, 1800), (4, 36_000)]
)
def test_an_outage_is_probed_at_less_than_one_percent_of_normal_traffic(
    rate: float, span: float
) -> None:
    hastiest = probes(span, lambda: 0.0)
    assert hastiest <= 0.01 * rate * span


# The whole way: SQL, the ledger, the actors, and real far ends.


class Stage:
    """Three actors with their far ends, and one job at a time; the breakers' clock stands still by itself."""

    def __init__(self, db: Db, apns: ApnsServer, fcm: FcmServer, mails: Path) -> None:
        self.db = db
        self.apns = apns
        self.fcm = fcm
        self.mails = mails
        self.now = 0.0
        self.actors: dict[str, Actor[Any]] = {}
        self.deliverer: Deliverer

    def breaker(self) -> Breaker:
        return Breaker(clock=lambda: self.now)

    def notify_everybody(self) -> None:
        names = [f"p{number}" for number in range(PEOPLE)]
        self.db.execute("select tocsin.notify('forum.new_reply', %s, 'x')", (names,))

    async def deliver(self) -> None:
        """Takes up all that isn't at its end, as if its wait were over."""
        rows = self.db.execute(
            "update tocsin.delivery set state = 'queued', due_at = now()"
            " where state in ('queued', 'deferred') returning attempts, channel, delivery_id"
        ).fetchall()
        due = defaultdict(list)
        for _, channel, delivery_id in sorted(rows):  # one that was tried waits longer
            due[Channel(channel)].append(delivery_id)
        for channel, ids in due.items():
            await self.deliverer.deliver(channel, ids, Priority.NORMAL)
        # a job does not wait for outcomes that take long to write
        under_way = "select exists (select from tocsin.delivery where state = 'sending')"
        await until(lambda: self.db.execute(under_way).fetchone() == (False,))

    def sent(self) -> dict[str, int]:
        """How many deliveries to each provider are sent."""
        rows = self.db.execute(
            "select coalesce(v.provider, 'email'), count(*) from tocsin.delivery d"
            " left join tocsin.device v using (device_id) where d.state = 'sent' group by 1"
        ).fetchall()
        return dict(rows)

    def tried(self, provider: str) -> int:
        """How many attempts there were."""
        row = self.db.execute(
            "select count(*) from tocsin.attempt join tocsin.delivery using (delivery_id)"
            " join tocsin.device v using (device_id) where v.provider = %s",
            (provider,),
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def stage(
    db: Db, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    # a check does not grow old in a pause of the machine: what is not sent then waits for the next round
    for module in ("envelope", "admission"):
        monkeypatch.setattr(f"tocsin.engine.actors.machinery.{module}.FRESH", LONGEST)
    people(db, PEOPLE)
    db.execute("update tocsin.channel set available = true")
    async with AsyncExitStack() as stack:
        apns, fcm, settings = await stack.enter_async_context(far_ends(tmp_path))
        mailbox = await stack.enter_async_context(mail_catcher(tmp_path / "mail"))
        database = Database(service_dsn(dsn))
        await database.open()
        stack.push_async_callback(database.close)

        stage = Stage(db, apns, fcm, tmp_path / "mail")
        stage.actors = _actors(stage, database, settings, mailbox.port)
        stage.deliverer = Deliverer(
            database,
            stage.actors,
            _renderer(Settings(public_url="https://n.example"), b"k" * 32),
            process_id=uuid4(),
        )
        await stack.enter_async_context(stage.deliverer.running())
        yield stage


def _actors(
    stage: Stage, database: Database, settings: dict[str, str], mail_port: int
) -> dict[str, Actor[Any]]:
    async def presend_check(messages: Sequence[Message]) -> dict[int, CheckResult]:
        return await store.presend_check(database, messages)

    key = ProviderKey(
        pem=settings["apns_key"],
        key_id=settings["apns_key_id"],
        team_id=settings["apns_team_id"],
    )
    return {
        "apns": ApnsActor(
            presend_check=presend_check,
            tokens=ProviderToken(key, MemoryStore()),
            topic=settings["apns_topic"],
            installation="test",
            url=stage.apns.url,
            ca_file=settings["ca_file"],
            breaker=stage.breaker(),
        ),
        "fcm": FcmActor(
            presend_check=presend_check,
            service_account=stage.fcm.service_account,
            url=stage.fcm.url,
            breaker=stage.breaker(),
        ),
        "email": EmailActor(
            presend_check=presend_check,
            sender="a@example.test",
            server=SmtpServer(host="127.0.0.1", port=mail_port),
            breaker=stage.breaker(),
        ),
    }


def people(db: Db, count: int) -> None:
    """Each with an address, an iPhone and an Android phone."""
    db.execute(
        "select tocsin.upsert_recipient('p' || i, 'p' || i || '@example.com') from generate_series(0, %s) i",
        (count - 1,),
    )
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider)"
        " select case p when 'apns' then lpad(to_hex(i), 64, '0') else 'pixel-' || i end, 'p' || i,"
        " case p when 'apns' then 'ios' else 'android' end, p"
        " from generate_series(0, %s) i, unnest(array['apns', 'fcm']) p",
        (count - 1,),
    )


@dataclass(frozen=True)
class Outage:
    """How a provider is down, and how many messages it has met so far."""

    provider: str
    begin: Callable[[Stage], Any]
    end: Callable[[Stage], Any]
    met: Callable[[Stage], int]


def apple(act: Act | None) -> Callable[[Stage], Any]:
    return lambda stage: setattr(stage.apns, "default", act)


def apple_hangs(stage: Stage, *, down: bool) -> None:
    stage.apns.default = Hang() if down else None
    setattr(stage.actors["apns"], "_timeout", 0.04 if down else 60.0)  # noqa: B010 - it waits for nothing


def google(stage: Stage, *, down: bool) -> None:
    script = stage.fcm.script
    script.always(script.EVERY, unavailable() if down else None)


OUTAGES = {
    "apns-503": Outage(
        "apns",
        apple(ApnsReply(503, "ServiceUnavailable")),
        apple(None),
        lambda stage: len(stage.apns.received),
    ),
    "apns-hangs": Outage(
        "apns",
        lambda stage: apple_hangs(stage, down=True),
        lambda stage: apple_hangs(stage, down=False),
        lambda stage: len(stage.apns.received),
    ),
    "apns-refuses-connections": Outage(
        "apns",
        lambda stage: stage.apns.stop(),
        lambda stage: stage.apns.start(),
        lambda stage: stage.tried("apns"),
    ),
    "fcm-503": Outage(
        "fcm",
        lambda stage: google(stage, down=True),
        lambda stage: google(stage, down=False),
        lambda stage: stage.fcm.requests,
    ),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_an_outage_is_probed_and_no_other_channel_notices(stage: Stage, name: str) -> None:
    outage = OUTAGES[name]
    breaker = stage.actors[outage.provider].breaker
    notified = 0
    for _ in range(3):
        stage.notify_everybody()
        await stage.deliver()
        notified += PEOPLE
        stage.now += PEOPLE / RATE
    everybody = dict.fromkeys(stage.actors, notified)
    assert stage.sent() == everybody
    before = outage.met(stage)
    assert before == notified

    if waiting := outage.begin(stage):
        await waiting
    begun_at = stage.now
    while stage.now < begun_at + SPAN:
        stage.notify_everybody()
        await stage.deliver()
        notified += PEOPLE
        everybody = dict.fromkeys(stage.actors, notified)
        assert stage.sent() == everybody | {outage.provider: before}
        stage.now += breaker.retry_after or 1.0
    assert 5 < outage.met(stage) - before <= 0.01 * RATE * SPAN

    if waiting := outage.end(stage):
        await waiting
    for _ in range(MOST_ROUNDS):
        if stage.sent() == everybody:
            break
        stage.now += breaker.retry_after
        await stage.deliver()
    assert stage.sent() == everybody
    assert mail_count(stage.mails) == notified


# With a worker's own jobs.


async def test_a_provider_that_hangs_holds_up_neither_the_other_nor_the_mail(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    """More events than there are jobs at a time, one after the other, each to both phones and by mail."""
    people(db, 40)
    async with far_ends(tmp_path) as (apns, fcm, settings), mail_catcher(tmp_path / "m") as mailbox:
        apns.default = Held()
        settings |= {
            "database_url": dsn,
            "data_dir": str(tmp_path),
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings) as worker:
            await worker.wait_for_log("leading")
            for number in range(40):
                person = f"p{number}"
                db.execute("select tocsin.notify('forum.new_reply', array[%s], 'x')", (person,))
                # each event a job of its own
                await until(lambda: not db.execute("select 1 from tocsin.event_queue").fetchone())
            await until(lambda: len(fcm.received) == mail_count(tmp_path / "m") == 40)
            assert "breaker opened" not in worker.log
            assert not apns.replies
            apns.default = None
            apns.release()  # else its end would wait for them
