"""Unsubscribe links in mails: what each turns off, for whom, and the undo; a GET changes nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import LINKS, Db

NOW = datetime.now(UTC)
PREFERENCES = "/api/notification-preferences/"
ZOE = "Zoe@Bücher.example"
ADDRESS = LINKS.unsubscribe_address(ZOE, "event.invited", NOW)
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


async def overrides(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(PREFERENCES)).json()["overrides"]
    return found


def suppressions(db: Db) -> list[Any]:
    return db.execute("select address, reason from tocsin.suppression order by 1").fetchall()


def digest(db: Db) -> Any:
    return db.execute(
        "select frequency, next_at is not null from tocsin.digest_preference"
    ).fetchone()


async def undo(client: httpx.AsyncClient, link: str, page: str) -> httpx.Response:
    """Presses the page's one button."""
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    assert fields["undo"] == "1"
    return await client.post(link, data=fields)


@pytest.mark.parametrize(
    "link",
    [
        LINKS.unsubscribe("alice", "forum.new_reply", NOW, others=["forum.mention"], topic="t:1"),
        ADDRESS,
        LINKS.unsubscribe_digest("alice", NOW),
    ],
    ids=["types", "address", "digest"],
)
async def test_looking_changes_nothing(
    anyone: httpx.AsyncClient, people: None, db: Db, link: str
) -> None:
    def all_of_it() -> list[Any]:
        return [
            db.execute(f"select count(*), max(xmin::text) from tocsin.{table}").fetchone()
            for table in ("preference", "suppression", "recipient", "digest_preference")
        ]

    db.execute("insert into tocsin.digest_preference values ('alice', 'daily')")
    before = all_of_it()
    for method in ("GET", "HEAD"):
        for query in ("", "?scope=topic", "?scope=all&undo=1", "?List-Unsubscribe=One-Click"):
            response = await anyone.request(method, link + query)
            assert response.status_code == 200
    assert all_of_it() == before


async def test_one_click_turns_exactly_the_types_of_that_mail_off_and_undo_brings_them_back(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe(
        "alice", "forum.new_reply", NOW, others=["bulletin.new_org", "gone.since"]
    )
    assert "New reply and New organisation bulletin" in (await anyone.get(link)).text
    done = await anyone.post(link, data=ONE_CLICK)
    off = {"forum.new_reply": {"email": False}, "bulletin.new_org": {"email": False}}
    assert await overrides(alice) == off
    await undo(anyone, link, done.text)
    assert await overrides(alice) == {}
    await anyone.post(link, data={"scope": "category"})
    assert set(await overrides(alice)) == {"forum.*", "bulletin.*"}


async def test_what_was_on_by_its_own_choice_is_on_again_after_undo(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    chosen = {"*": {"email": False}, "forum.new_reply": {"email": True}}
    await alice.patch(PREFERENCES, json={"overrides": chosen})
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    done = await anyone.post(link)
    assert (await overrides(alice))["forum.new_reply"] == {"email": False}
    assert "are on now" in (await undo(anyone, link, done.text)).text
    assert await overrides(alice) == chosen


async def test_the_page_explains_what_each_choice_does(
    anyone: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW, topic="forum.thread:1")
    page = (await anyone.get(link)).text
    radios = re.findall(
        r'<input type="radio" name="scope" value="(\w+)" aria-describedby="([\w-]+)"', page
    )
    assert [scope for scope, _ in radios] == ["type", "category", "all", "topic"]
    for _, hint in radios:
        assert re.search(rf'id="{hint}">[^<]{{10,}}</small>', page)
    assert "everything in Forum" in page
    assert "All but those that are required: Requirement overdue." in page
    assert re.search(r'value="type"[^>]* checked', page)
    chosen = (await anyone.get(f"{link}?scope=topic")).text
    assert re.search(r'value="topic"[^>]* checked', chosen)
    assert chosen.count(" checked") == 1
    assert (await anyone.get(f"{link}?scope=nonsense")).text == page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page


async def test_turning_all_off_shows_what_still_comes(
    anyone: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    page = (await anyone.post(link, data={"scope": "all"})).text
    assert "You get no more emails about anything" in page
    assert "Emails about Requirement overdue still come. They are required" in page


async def test_what_is_required_stays_on_and_there_is_nothing_to_undo(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "compliance.overdue", NOW)
    page = (await anyone.post(link, data=ONE_CLICK)).text
    assert "Emails about Requirement overdue still come" in page
    assert "<form" not in page
    assert await overrides(alice) == {}


@pytest.mark.parametrize("fields", [{"scope": "topic"}, {"scope": "none"}, {"scope": ""}])
async def test_a_scope_that_the_link_does_not_have_is_refused(
    anyone: httpx.AsyncClient, people: None, fields: dict[str, str]
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    expected = 200 if fields["scope"] == "" else 422  # an empty field is none
    assert (await anyone.post(link, data=fields)).status_code == expected


async def test_an_address_without_an_account_gets_no_more_mail_and_can_undo_it(
    anyone: httpx.AsyncClient, db: Db
) -> None:
    page = (await anyone.get(ADDRESS)).text
    assert "Z***e@Bücher.example" in page
    assert ZOE not in page
    await anyone.post(ADDRESS, data=ONE_CLICK)
    done = await anyone.post(ADDRESS, data=ONE_CLICK)
    assert done.status_code == 200
    assert suppressions(db) == [("zoe@xn--bcher-kva.example", "unsubscribed")]
    response = await undo(anyone, ADDRESS, done.text)
    assert suppressions(db) == []
    assert "are on now" in response.text


async def test_undo_never_lifts_what_bounced_or_was_reported(
    anyone: httpx.AsyncClient, db: Db
) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('zoe@xn--bcher-kva.example', 'smtp_550')"
    )
    await anyone.post(ADDRESS)
    response = await anyone.post(ADDRESS, data={"undo": "1"})
    assert "came back or was reported" in response.text
    assert suppressions(db) == [("zoe@xn--bcher-kva.example", "smtp_550")]


async def test_the_link_of_an_invitation_speaks_for_the_account_once_there_is_one(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    done = await anyone.post(ADDRESS)
    db.execute("select tocsin.claim_email(%s, 'alice')", (ZOE,))
    assert (suppressions(db), await overrides(alice)) == ([], {"*": {"email": False}})
    await undo(anyone, ADDRESS, done.text)
    assert (await overrides(alice))["event.invited"] == {"email": True}
    await anyone.post(ADDRESS, data=ONE_CLICK)
    assert (suppressions(db), (await overrides(alice))["event.invited"]) == ([], {"email": False})


async def test_a_digest_is_turned_off_with_one_click_and_on_again_as_it_was(
    anyone: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute(
        "insert into tocsin.digest_preference (recipient_id, frequency, next_at, weekday, timezone)"
        " values ('alice', 'weekly', now(), 3, 'Europe/Rome')"
    )
    link = LINKS.unsubscribe_digest("alice", NOW)
    done = await anyone.post(link, data=ONE_CLICK)
    assert digest(db) == ("off", True)  # what waits is called, and not sent
    await anyone.post(link, data=ONE_CLICK)
    assert "weekly summary is on again" in (await undo(anyone, link, done.text)).text
    assert digest(db) == ("weekly", True)
    local = db.execute(
        "select extract(isodow from next_at at time zone 'Europe/Rome')::int,"
        " (next_at at time zone 'Europe/Rome')::time::text,"
        " next_at between now() and now() + interval '7 days 2 hours' from tocsin.digest_preference"
    ).fetchone()
    assert local == (3, "06:00:00", True)
    again = await anyone.post(link, data={"undo": "1"})
    assert "This link has turned nothing off" in again.text


async def test_a_digests_link_can_end_all_email(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute("insert into tocsin.digest_preference values ('alice', 'daily')")
    chosen = {"forum.*": {"email": True}, "billing.*": {"email": False, "push": True}}
    await alice.patch(PREFERENCES, json={"overrides": chosen})
    link = LINKS.unsubscribe_digest("alice", NOW)
    done = await anyone.post(link, data={"scope": "all"})
    assert (digest(db), await overrides(alice)) == (
        ("off", False),
        {"*": {"email": False}, "billing.*": {"email": False, "push": True}},
    )
    await undo(anyone, link, done.text)
    assert (digest(db), await overrides(alice)) == (("daily", True), chosen)


@pytest.mark.parametrize("scope", ["type", "category", "all"])
async def test_undo_brings_back_what_was_chosen_before(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, scope: str
) -> None:
    chosen = {
        "*": {"email": False},
        "forum.new_reply": {"email": True},
        "forum.mention": {"email": True, "push": False},
    }
    await alice.patch(PREFERENCES, json={"overrides": chosen})
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    await anyone.post(link, data={"scope": scope})
    done = await anyone.post(link, data={"scope": scope})  # twice does no harm
    assert await overrides(alice) != chosen
    assert "are on now" in (await undo(anyone, link, done.text)).text
    assert await overrides(alice) == chosen


async def test_undo_leaves_alone_what_the_link_did_not_do(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None
) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    own = {"forum.new_reply": {"email": False}}
    await alice.patch(PREFERENCES, json={"overrides": own})
    assert "has turned nothing off" in (await anyone.post(link, data={"undo": "1"})).text
    assert await overrides(alice) == own
    await alice.patch(PREFERENCES, json={"overrides": {"forum.new_reply": {"email": None}}})
    await anyone.post(link)
    await alice.patch(PREFERENCES, json={"overrides": {"forum.new_reply": {"email": True}}})
    await anyone.post(link, data={"undo": "1"})
    assert await overrides(alice) == {"forum.new_reply": {"email": True}}


async def test_only_one_undoes(anyone: httpx.AsyncClient, people: None) -> None:
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    assert (await anyone.post(link, data={"undo": "true"})).status_code == 422


async def test_each_scope_of_the_contract_is_one_of_any_link(
    anyone: httpx.AsyncClient, people: None, db: Db
) -> None:
    assert (await anyone.post(ADDRESS, data={"scope": "all"})).status_code == 200
    assert suppressions(db) == [("zoe@xn--bcher-kva.example", "unsubscribed")]
    digest_link = LINKS.unsubscribe_digest("alice", NOW)
    assert (await anyone.post(digest_link, data={"scope": "category"})).status_code == 200
    assert (await anyone.post(LINKS.unsubscribe_digest("nobody", NOW))).status_code == 404


async def test_a_thread_is_muted_from_its_mail_and_followed_again(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute("select tocsin.subscribe('alice', 'forum.thread:1', 'mentions')")
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW, topic="forum.thread:1")
    level = "select level from tocsin.subscription where recipient_id = 'alice'"
    done = await anyone.post(link, data={"scope": "topic"})
    assert db.execute(level).fetchone() == ("muted",)
    await undo(anyone, link, done.text)
    assert db.execute(level).fetchone() == ("mentions",)
    assert await overrides(alice) == {}


async def test_the_page_speaks_its_readers_language(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute("update tocsin.recipient set locale = 'de-AT' where recipient_id = 'alice'")
    link = LINKS.unsubscribe("alice", "forum.new_reply", NOW)
    page = (await anyone.get(link, headers={"Accept-Language": "ar"})).text
    assert '<html lang="de" dir="ltr">' in page
    assert "Alle außer den notwendigen" in page
    done = (await anyone.post(link)).text
    assert "Sie erhalten keine E-Mails mehr zu Neue Antwort" in done
    assert "kommen jetzt wieder" in (await undo(anyone, link, done)).text


@pytest.mark.parametrize(
    ("asked", "tag", "sentence"),
    [
        ("ar-EG,en;q=0.5", '<html lang="ar" dir="rtl">', "إيقاف الرسائل إلى هذا العنوان"),
        ("fr, de;q=0.8, en;q=0.7", '<html lang="de" dir="ltr">', "Weniger E-Mails?"),
        ("de;q=0, en", '<html lang="en" dir="ltr">', "Fewer emails?"),
        ("; ,,q=de;q=much", '<html lang="en" dir="ltr">', "Fewer emails?"),
    ],
)
async def test_somebody_unknown_is_spoken_to_as_their_browser_asks(
    anyone: httpx.AsyncClient, asked: str, tag: str, sentence: str
) -> None:
    page = (await anyone.get(ADDRESS, headers={"Accept-Language": asked})).text
    assert tag in page
    assert sentence in page
    gone = await anyone.get("/unsubscribe/nonsense/", headers={"Accept-Language": asked})
    assert gone.status_code == 404
    assert tag in gone.text


@pytest.mark.parametrize(
    ("link", "scope", "expected"),
    [
        (
            LINKS.unsubscribe("alice", "forum.new_reply", NOW, topic="t:1"),
            "type",
            {"recipient": "alice", "scope": "type", "names": ["forum.new_reply"]},
        ),
        (
            LINKS.unsubscribe("alice", "forum.new_reply", NOW, topic="t:1"),
            "topic",
            {"recipient": "alice", "scope": "topic", "names": ["t:1"]},
        ),
        (
            LINKS.unsubscribe_digest("alice", NOW),
            "type",
            {"recipient": "alice", "scope": "digest", "names": []},
        ),
        (ADDRESS, "type", {"recipient": None, "scope": "all", "names": []}),
    ],
    ids=["type", "topic", "digest", "address"],
)
async def test_an_app_webhook_is_sent_who_unsubscribed(
    anyone: httpx.AsyncClient, people: None, db: Db, link: str, scope: str, expected: dict[str, Any]
) -> None:
    db.execute(
        "insert into tocsin.target (channel, name, url, events) "
        "values ('webhook', 'app', 'https://a.test/', '{recipient.unsubscribed}')"
    )
    assert (await anyone.post(link, data={"scope": scope})).status_code == 200
    reported = db.execute("select data from tocsin.webhook_outbox").fetchall()
    assert reported == [({"channel": "email", **expected},)]
    assert ZOE.lower() not in str(reported).lower()
