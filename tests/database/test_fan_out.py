"""The fan-out: for one person and for several it has different statements, which decide and store the same."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Db = psycopg.Connection[Any]

# Who there is, by what is special about them.
PEOPLE = (
    *("plain", "no_address", "no_device", "suppressed", "two_devices", "lost_device", "neither"),
    *("no_mail", "mail_wanted", "no_inbox", "digest", "quiet"),
    *(
        "browser",
        "quiet_browser",
        "hook",
        "chat",
        "no_chat",
        "lost_chat",
        "one_of_two",
        "everything",
    ),
)
EVENT_TYPES = (
    *("forum.new_reply", "recognition.received", "messages.new_dm", "compliance.overdue"),
    *("billing.payment_due", "election.reminder", "shop.later"),
)
# what is read of each person
READ = ("recipient", "device", "preference", "digest_preference", "quiet_hours", "suppression")
FURTHER = ("web_push", "webhook", "chat")
# beside those of PEOPLE
CROWD = 2100


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    """Everybody of PEOPLE, and a crowd."""
    db.execute(
        "insert into tocsin.recipient (recipient_id, email)"
        " select i, case when i not in ('no_address', 'neither') then i || '@example.com' end from unnest(%s::text[]) i"
        " union all select 'crowd' || i, null from generate_series(1, %s) i",
        (list(PEOPLE), CROWD),
    )
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider, disabled_at)"
        " select i, i, 'ios', 'apns', case when i = 'lost_device' then now() end"
        " from unnest(%s::text[]) i where i not in ('no_device', 'neither')"
        " union all select 'second', 'two_devices', 'android', 'fcm', null",
        (list(PEOPLE),),
    )
    add_further_channels(db)
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('suppressed@example.com', 'bounced')"
    )
    db.execute(
        "insert into tocsin.preference (recipient_id, scope, channel, enabled) values"
        " ('no_mail', '*', 'email', false), ('mail_wanted', 'forum.*', 'email', true),"
        " ('mail_wanted', '*', 'email', false), ('no_inbox', 'forum.new_reply', 'in_app', false),"
        " ('no_chat', 'forum.*', 'chat', false), ('everything', '*', 'web_push', true)"
    )
    db.execute(
        "insert into tocsin.digest_preference (recipient_id, frequency) values ('digest', 'daily')"
    )
    db.execute(
        "insert into tocsin.quiet_hours (recipient_id, starts, ends) select p, n - interval '1 hour',"
        " n + interval '1 hour' from (select (now() at time zone 'UTC')::time as n) n,"
        " unnest('{quiet,quiet_browser,everything}'::text[]) p"
    )
    db.execute("update tocsin.channel set available = true")
    db.execute(
        "insert into tocsin.event_type (event_type, category, label, position, default_channels, delays) values"
        " ('shop.later', 'forum', 'Later', 99, '{in_app,email,push}', '{\"email\": \"1 hour\"}')"
    )


def add_further_channels(db: Db) -> None:
    db.execute(
        "insert into tocsin.device (token, recipient_id, platform, provider)"
        " select 'https://push.example.com/' || i, i, 'web', 'web_push'"
        " from unnest('{browser,quiet_browser,everything}'::text[]) i"
    )
    db.execute(
        "insert into tocsin.target (channel, name, kind, url, recipient_id, disabled_at)"
        " select c, i, case c when 'chat' then 'slack' end, 'https://hooks.example.com/' || i, i,"
        " case when i = 'lost_chat' or c = 'chat' and i = 'one_of_two' then now() end"
        " from (values ('webhook', 'hook'), ('webhook', 'everything'), ('chat', 'chat'), ('chat', 'no_chat'),"
        " ('chat', 'lost_chat'), ('chat', 'everything'), ('webhook', 'one_of_two'), ('chat', 'one_of_two')) t (c, i)"
    )


def notify(db: Db, event_type: str, *recipients: str) -> int:
    row = db.execute(
        "select tocsin.notify(%s, %s, 'New reply')", (event_type, list(recipients))
    ).fetchone()
    assert row is not None
    return int(row[0])


def stored(db: Db, event_id: int, person: str) -> Any:
    """Returns all that was stored for one person of an event, without the ids and times."""
    row = db.execute(
        """
        select
            n.decisions, n.in_inbox, n.because, n.read_at,
            (select array_agg(u.n) from tocsin.unread_delta u where u.recipient_id = n.recipient_id and u.xid = n.xid),
            (select count(*) from tocsin.digest_item i where i.notification_id = n.notification_id),
            array(
                select row(d.channel, d.device_id, d.target_id, d.state, d.reason, date_trunc('minute', d.due_at))::text
                from tocsin.delivery d
                where d.notification_id = n.notification_id
                order by d.channel, d.device_id, d.target_id
            )
        from tocsin.notification n
        where n.event_id = %s
            and n.recipient_id = %s
        """,
        (event_id, person),
    ).fetchone()
    assert row is not None
    return row


def event_queues(db: Db, event_id: int) -> list[tuple[Any, ...]]:
    return db.execute(
        "select channel, priority from tocsin.event_queue where event_id = %s order by 1",
        (event_id,),
    ).fetchall()


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_alone_among_few_and_in_a_crowd_people_get_the_same(db: Db, event_type: str) -> None:
    crowd = [f"crowd{i}" for i in range(1, CROWD + 1)]
    few, many = notify(db, event_type, *PEOPLE), notify(db, event_type, *PEOPLE, *crowd)
    for person in PEOPLE:
        alone = notify(db, event_type, person)
        assert stored(db, alone, person) == stored(db, few, person), person
        assert stored(db, alone, person) == stored(db, many, person), person
        channels = db.execute(
            "select distinct channel from tocsin.delivery where event_id = %s and due_at is null order by 1",
            (alone,),
        ).fetchall()
        assert [(channel,) for channel, _ in event_queues(db, alone)] == channels
    assert event_queues(db, few) == event_queues(db, many)


def test_what_is_usual_follows_the_catalogue_and_the_providers(db: Db) -> None:
    before = usual(db, "forum.new_reply")
    assert before == [True, True]
    db.execute("update tocsin.channel set available = false where channel = 'push'")
    assert usual(db, "forum.new_reply") == [True, True]
    assert stored(db, notify(db, "forum.new_reply", "plain"), "plain")[0]["push"] == [
        "off",
        "no_provider",
    ]
    db.execute(
        "update tocsin.event_type set default_channels = '{in_app}' where event_type = 'forum.new_reply'"
    )
    assert usual(db, "forum.new_reply") == [True, True]
    decisions = stored(db, notify(db, "forum.new_reply", "plain"), "plain")[0]
    assert decisions["email"] == ["off", "default"]


def further(db: Db, event_type: str, person: str) -> dict[str, Any]:
    """Returns what was decided on further channels, and the state of the deliveries."""
    event_id = notify(db, event_type, person)
    decisions = stored(db, event_id, person)[0]
    states = dict(
        db.execute(
            "select channel, array[state::text, reason] from tocsin.delivery"
            " where event_id = %s and channel = any (%s)",
            (event_id, list(FURTHER)),
        ).fetchall()
    )
    return {name: (decisions[name], states.get(name)) for name in FURTHER if name in decisions}


@pytest.mark.parametrize("person", ["plain", "neither", "lost_chat"])
def test_nothing_is_decided_of_a_further_channel_that_a_person_does_not_have(
    db: Db, person: str
) -> None:
    assert further(db, "forum.new_reply", person) == {}


def test_a_browser_is_on_where_the_type_lists_push_and_waits_for_quiet_hours(db: Db) -> None:
    on, off = ["on", "default"], ["off", "default"]
    assert further(db, "forum.new_reply", "browser") == {"web_push": (on, ["queued", None])}
    assert further(db, "recognition.received", "browser") == {"web_push": (off, None)}
    quiet = {"web_push": (on, ["deferred", "quiet_hours"])}
    assert further(db, "forum.new_reply", "quiet_browser") == quiet
    decided, _ = further(db, "recognition.received", "everything")["web_push"]
    assert decided == ["on", "preference", "*"]


def test_a_persons_webhook_and_chat_are_on_for_every_type_and_wait_for_nothing(db: Db) -> None:
    queued = (["on", "default"], ["queued", None])
    for event_type in ("forum.new_reply", "recognition.received", "shop.later"):
        assert further(db, event_type, "hook") == {"webhook": queued}
        assert further(db, event_type, "everything")["chat"] == queued
    assert further(db, "forum.new_reply", "one_of_two") == {"webhook": queued}, (
        "its chat is disabled"
    )
    off = (["off", "preference", "forum.*"], None)
    assert further(db, "forum.new_reply", "no_chat") == {"chat": off}
    db.execute(
        "update tocsin.event_type set mandatory_channels = '{chat}' where event_type = 'forum.new_reply'"
    )
    mandatory = (["on", "mandatory"], ["queued", None])
    assert further(db, "forum.new_reply", "no_chat") == {"chat": mandatory}
    assert further(db, "forum.new_reply", "plain") == {}


def test_a_person_without_further_channels_is_notified_by_the_short_path(db: Db) -> None:
    """It is what most calls are; whoever had one and lost it takes it again."""

    def channels(person: str) -> Any:
        row = db.execute(
            "select further_channels from tocsin.recipient where recipient_id = %s", (person,)
        ).fetchone()
        return row and row[0]

    assert channels("plain") == []
    assert channels("lost_chat") == []
    assert channels("everything") == ["chat", "web_push", "webhook"]
    db.execute("delete from tocsin.target where name = 'everything' and channel = 'webhook'")
    db.execute("update tocsin.device set disabled_at = now() where recipient_id = 'everything'")
    assert channels("everything") == ["chat"]
    db.execute("update tocsin.target set recipient_id = 'plain' where name = 'everything'")
    assert (channels("everything"), channels("plain")) == ([], ["chat"])
    db.execute("update tocsin.target set disabled_at = null where name = 'lost_chat'")
    assert channels("lost_chat") == ["chat"]


def usual(db: Db, event_type: str) -> list[bool]:
    """Whether what is kept is what would be decided, and whether it is kept for each situation."""
    row = db.execute(
        "select t.default_decisions = tocsin.default_decisions(t), jsonb_array_length(t.default_decisions) = 8"
        " from tocsin.event_type t where event_type = %s",
        (event_type,),
    ).fetchone()
    assert row is not None
    return list(row)


@pytest.mark.parametrize("recipients", [("plain",), ("no_mail",), ("plain", "quiet", "digest")])
def test_notifying_one_and_a_few_uses_indexes_alone(db: Db, recipients: tuple[str, ...]) -> None:
    db.execute(
        """
        insert into tocsin.recipient (recipient_id, email)
        select 'other' || i, 'other' || i || '@example.com' from generate_series(1, 5000) i
        """
    )
    for table, columns, values in (
        ("device", "recipient_id, token, platform, provider", "r, 't' || r, 'ios', 'apns'"),
        ("preference", "recipient_id, scope, channel, enabled", "r, '*', 'email', false"),
        ("digest_preference", "recipient_id, frequency", "r, 'off'"),
        ("quiet_hours", "recipient_id, starts, ends", "r, '01:00', '02:00'"),
        ("suppression", "address, reason", "r || '@example.com', 'bounced'"),
    ):
        db.execute(
            f"insert into tocsin.{table} ({columns}) select {values}"
            " from (select 'other' || i as r from generate_series(1, 5000) i) o"
        )
        db.execute(f"analyze tocsin.{table}")
    db.execute("analyze tocsin.recipient")
    with db.transaction():
        notify(db, "forum.new_reply", *recipients)
        scans = dict(
            db.execute(
                "select relname, array[seq_scan, idx_scan] from pg_stat_xact_user_tables"
                " where relname = any (%s)",
                (list(READ),),
            ).fetchall()
        )
    assert {table for table, (_, by_index) in scans.items() if by_index} == scans.keys()
    assert all(whole == 0 for whole, _ in scans.values()), scans
