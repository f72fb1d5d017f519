"""The texts of `content`: which of them a list, a mail, a digest and a phone show."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

Db = psycopg.Connection[Any]
CONTENT = {
    "email": {"title": "Mail title", "body_html": "<p>Mail</p>"},
    "push": {"title": "Push title", "data": {"room": 7, "open": True, "to": {"a": 1}, "no": None}},
    "translations": {
        "de": {"title": "Titel", "body": "Text", "push": {"title": "Kurz"}},
        "de-AT": {"email": {"title": "Servus"}},
    },
}


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    db.execute("update tocsin.channel set available = true")
    for name, locale in (("alice", "en"), ("bob", "de_at"), ("carol", "de"), ("dave", None)):
        db.execute(
            "select tocsin.upsert_recipient(%s, %s, locale => %s)",
            (name, f"{name}@example.com", locale),
        )


def notify(db: Db, recipients: list[str], content: dict[str, Any], **named: Any) -> None:
    listed = "".join(f", {name} => %({name})s" for name in named)
    db.execute(
        "select tocsin.notify('forum.new_reply', %(recipients)s, 'Title', body => 'Body',"
        f" body_html => '<p>Body</p>', content => %(content)s{listed})",
        {"recipients": recipients, "content": Jsonb(content), **named},
    )


def shown(db: Db, recipient: str) -> tuple[Any, ...] | None:
    return db.execute(
        "select title, body, body_html from tocsin.notification_item where recipient_id = %s",
        (recipient,),
    ).fetchone()


def sent(db: Db, recipient: str, channel: str) -> tuple[Any, ...] | None:
    return db.execute(
        "select s.title, s.body, s.body_html, s.data from tocsin.delivery d"
        " cross join tocsin.delivery_snapshot(d.delivery_id) s"
        " where d.recipient_id = %s and d.channel = %s",
        (recipient, channel),
    ).fetchone()


def test_a_list_shows_the_language_that_the_person_has_when_reading(db: Db) -> None:
    notify(db, ["alice", "bob", "dave"], CONTENT)
    assert shown(db, "alice") == ("Title", "Body", "<p>Body</p>")
    assert shown(db, "bob") == ("Titel", "Text", None)
    assert shown(db, "dave") == ("Title", "Body", "<p>Body</p>")
    db.execute("select tocsin.upsert_recipient('alice', locale => 'de')")
    assert shown(db, "alice") == ("Titel", "Text", None)
    row = db.execute("select title, body from tocsin.inbox('alice')").fetchone()
    assert row == ("Titel", "Text")


def test_a_mail_prefers_the_language_to_the_channel_and_the_narrower_language(db: Db) -> None:
    notify(db, ["alice", "bob", "carol"], CONTENT)
    assert sent(db, "alice", "email") == ("Mail title", "", "<p>Mail</p>", None)
    assert sent(db, "bob", "email") == ("Servus", "Text", None, None)
    assert sent(db, "carol", "email") == ("Titel", "Text", None, None)


def test_a_digest_shows_what_a_mail_would(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('bob', locale => 'de')")
    notify(db, ["bob", "alice"], CONTENT)
    db.execute(
        "insert into tocsin.digest_item (recipient_id, notification_id)"
        " select recipient_id, notification_id from tocsin.notification"
    )
    rows = db.execute(
        "select recipient_id, title, body_html from tocsin.digest_entry order by recipient_id"
    ).fetchall()
    assert rows == [("alice", "Mail title", "<p>Mail</p>"), ("bob", "Titel", None)]


def test_mails_about_a_subject_know_what_the_line_for_several_is_made_of(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('bob', name => 'Bob')")
    about = {"initiator": "bob", "metadata": Jsonb({"about": "Garden plans"})}
    notify(db, ["alice"], {}, subject="forum.thread:1", **about)
    notify(db, ["alice"], {}, **about)
    db.execute(
        "insert into tocsin.digest_item (recipient_id, notification_id)"
        " select recipient_id, notification_id from tocsin.notification"
    )
    digest = db.execute(
        "select subject, about, initiator_name, title_many ? 'en' from tocsin.digest_entry"
        " order by notification_id"
    ).fetchall()
    assert digest == [
        ("forum.thread:1", "Garden plans", "Bob", True),
        (None, "Garden plans", None, None),
    ]
    mails = db.execute(
        "select s.initiator_name, s.title_many ? 'en' from tocsin.delivery d"
        " cross join tocsin.delivery_snapshot(d.delivery_id) s"
        " where d.channel = 'email' order by d.delivery_id"
    ).fetchall()
    assert mails == [("Bob", True), (None, None)]
    db.execute("update tocsin.event_type set grouped = false")
    assert db.execute("select distinct subject from tocsin.digest_entry").fetchall() == [(None,)]


def test_a_phone_gets_its_own_title_and_data_as_strings(db: Db) -> None:
    for name in ("alice", "bob"):
        db.execute(
            "insert into tocsin.device (recipient_id, platform, provider, token)"
            " values (%s, 'android', 'fcm', %s)",
            (name, f"token-{name}"),
        )
    notify(db, ["alice", "bob"], CONTENT)
    data = {"room": "7", "open": "true", "to": '{"a": 1}'}
    assert sent(db, "alice", "push") == ("Push title", "Body", "<p>Body</p>", data)
    assert sent(db, "bob", "push") == ("Kurz", "Text", None, data)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"email": None, "push": None, "chat": None, "translations": None},
        {"email": {"title": None, "body": None}, "translations": {"de": None}},
        {"translations": {"de": {"title": None, "body": None, "email": None}}},
    ],
)
def test_a_part_that_is_null_counts_as_left_out(db: Db, content: dict[str, Any] | None) -> None:
    db.execute(
        "select tocsin.notify('forum.new_reply', array['alice'], 'New reply', content => %s, actions => 'null')",
        (Jsonb(content),),
    )
    assert db.execute("select title from tocsin.inbox('alice')").fetchall() == [("New reply",)]
    assert db.execute("select actions from tocsin.event").fetchall() == [(None,)]


def test_content_and_actions_together_are_at_most_64_kb(db: Db) -> None:
    notify(db, ["alice"], {"email": {"body": "x" * 60_000}})
    too_large = {"email": {"body": "x" * 40_000}, "chat": {"body": "x" * 30_000}}
    with pytest.raises(psycopg.Error, match="larger than 64 kB together"):
        notify(db, ["alice"], too_large)


@pytest.mark.parametrize(
    "data", [{"aps": 1}, {"event_id": 1}, {"google.c": 1}, {"x": "y" * 2000}, {"x": "é" * 999}]
)
def test_data_that_a_phone_could_not_get_is_an_error(db: Db, data: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error, match=r"content\.push\.data"):
        notify(db, ["alice"], {"push": {"data": data}})


TEXTS = st.fixed_dictionaries(
    {}, optional={"title": st.sampled_from("ab"), "body": st.sampled_from("cd")}
)
MAIL = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from("ef"),
        "body": st.sampled_from("gh"),
        "body_html": st.sampled_from("ij"),
    },
)
TRANSLATION = st.builds(
    lambda texts, mail: texts | ({} if mail is None else {"email": mail}),
    TEXTS,
    st.none() | MAIL,
)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "email": MAIL,
        "translations": st.dictionaries(
            st.sampled_from(["de", "DE_at", "de-AT-1996", "d", "pt"]), TRANSLATION
        ),
    },
)


def resolve(content: dict[str, Any], locale: str | None, channel: str) -> dict[str, str | None]:
    """The rules of docs/sql.md, read literally."""
    translations = {
        name.lower().replace("_", "-"): texts
        for name, texts in content.get("translations", {}).items()
    }
    tags = (locale or "").lower().replace("_", "-").split("-")
    levels: list[dict[str, str]] = []
    for length in range(len(tags), 0, -1):
        texts = translations.get("-".join(tags[:length]), {})
        levels += [texts.get(channel, {}), texts]
    levels += [
        content.get(channel, {}),
        {"title": "Title", "body": "Body", "body_html": "<p>Body</p>"},
    ]
    title = next(level for level in levels if "title" in level)
    body = next(level for level in levels if "body" in level or "body_html" in level)
    return {
        "title": title["title"],
        "body": body.get("body", ""),
        "body_html": body.get("body_html"),
    }


def test_texts_follow_the_rule_in_each_case(db: Db) -> None:
    columns = ", ".join(
        f"tocsin.text_for(%(content)s, %(locale)s, %(channel)s, '{field}', %({field})s)"
        for field in ("title", "body", "body_html")
    )
    event = {"title": "Title", "body": "Body", "body_html": "<p>Body</p>"}

    narrow_and_wide = {"de": {"email": {"title": "e"}}, "de-AT": {"title": "a"}}

    @settings(max_examples=300, deadline=None)
    @example({"translations": narrow_and_wide}, "de-AT", "email")
    @given(
        CONTENTS,
        st.sampled_from([None, "en", "de", "de-AT", "de_at", "de-AT-1996", "DE-CH", "den", "pt"]),
        st.sampled_from(["in_app", "email"]),
    )
    def check(content: dict[str, Any], locale: str | None, channel: str) -> None:
        expected = resolve(content, locale, channel)
        given_ = {"content": Jsonb(content), "locale": locale, "channel": channel}
        row = db.execute(f"select {columns}", given_ | event).fetchone()
        assert row == tuple(expected.values())

    check()
