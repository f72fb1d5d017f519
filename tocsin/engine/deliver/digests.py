"""Creates the digests that are due, for a batch of people at a time; each is then a delivery that is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from tocsin.engine.mail.links import KEY_BYTES, Links
from tocsin.engine.mail.loader import DEFAULT, Templates
from tocsin.engine.mail.render import mail_renderer
from tocsin.engine.model import Channel, Claimed, Mail, Priority, Zone
from tocsin.engine.store import digest as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.digest import Assembled
from tocsin.engine.store.recipient import Recipient, get_recipient
from tocsin.engine.store.timezone import zone_rules

_BATCH = 500
# At most so many are queued: enough to keep the email actor busy, few enough that retries are soon sent.
_AT_WORK = 2000
_WAIT = 0.5  # seconds

OnProgress = Callable[[Assembled], None]


async def make_digests(
    database: Database,
    now: datetime,
    *,
    leftovers: bool = True,
    at_once: bool = False,
    on_progress: OnProgress | None = None,
) -> Assembled:
    """Creates each digest that was due by `now`, once however many processes run this; returns how many.

    `leftovers`: also for people with something waiting and no next digest. `at_once` queues any number.
    """
    total = Assembled(0, 0, 0)
    if leftovers:
        await store.schedule_leftover_digests(database, now)
    while True:
        if not at_once and await store.digests_at_work(database, _AT_WORK) >= _AT_WORK:
            await asyncio.sleep(_WAIT)
            continue
        batch = await store.assemble_digests(database, now, _BATCH)
        total = Assembled(
            total.people + batch.people,
            total.digests + batch.digests,
            total.unsent + batch.unsent,
        )
        if on_progress:
            on_progress(total)
        if batch.people < _BATCH:
            return total


async def preview(
    database: Database, recipient_id: str, email_from: str, templates: Templates = DEFAULT
) -> str:
    """Returns the text of a person's digest if it were created now, with example links; raises NotFound."""
    person = await get_recipient(database, recipient_id)
    preferences = await store.get_digest_preferences(database, recipient_id)
    entries = await store.waiting_entries(database, recipient_id)
    timezone = await store.digest_timezone(database, recipient_id)
    zones = await zone_rules(database, [timezone] if timezone else [])
    now = datetime.now(UTC)
    when = f"due {preferences.next_at:%Y-%m-%d %H:%M} UTC" if preferences.next_at else "none is due"
    if not entries:
        return (
            f"Nothing waits for {recipient_id}'s digest ({preferences.frequency}, {when}): no mail."
        )
    if all(entry.read for entry in entries):
        return f"All that waits for {recipient_id}'s digest was read ({when}): no mail."
    links = Links("https://preview.invalid", bytes(KEY_BYTES))
    render = mail_renderer(links, email_from, templates)
    message = render([_unclaimed(person, timezone, zones, now)], entries)
    assert isinstance(message.content, Mail)
    return f"To: {person.email or 'no address'} ({when})\nSubject: {message.content.subject}\n\n{message.content.text}"


def _unclaimed(
    person: Recipient, timezone: str | None, zones: Sequence[Zone], now: datetime
) -> Claimed:
    """Returns a delivery as the digest would have."""
    return Claimed(
        delivery_id=0,
        claim=UUID(int=0),
        notification_id=None,
        event_id=None,
        recipient_id=person.id,
        channel=Channel.EMAIL,
        priority=Priority.LOW,
        attempt=1,
        max_attempts=1,
        expires_at=None,
        mandatory=False,
        event_type="",
        label="",
        category="",
        title="",
        body="",
        body_html=None,
        action_url=None,
        initiator=None,
        name=person.name,
        locale=person.locale,
        timezone=timezone,
        created_at=now,
        digest_id=0,
        zone=zones[0] if zones else None,
    )
