"""An invitation to an address: its mail, its unsubscribe link, its claim, and both orders of a race."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.house import House, following, house
from tests.support.services import LONGEST, mail_catcher, mail_count, mails, running, until

Db = psycopg.Connection[Any]
ZOE = "zoë@bücher.example"


def states(db: Db) -> list[tuple[str, str | None]]:
    return db.execute("select state::text, reason from tocsin.delivery order by 1, 2").fetchall()


def unread(db: Db, recipient: str) -> int:
    row = db.execute("select tocsin.unread_count(%s)", (recipient,)).fetchone()
    assert row is not None
    return int(row[0])


async def test_the_life_of_an_invitation(db: Db, dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    async with mail_catcher(folder) as mailbox, house(dsn, tmp_path, smtp_url=mailbox.url) as home:
        async with (
            running("worker", log=tmp_path / "worker.log", settings=home.settings) as worker,
            home.app() as app,
            httpx.AsyncClient(timeout=LONGEST) as anyone,
        ):
            posted = {"event_type": "event.invited", "title": "Join us", "action_url": "/join?x=1"}
            created = await app.post("/api/events/", json=posted | {"email": "Zoe@example.com"})
            assert (created.status_code, created.json()["notifications"]) == (202, 1)
            await until(lambda: mail_count(folder) == 1)
            (mail,) = mails(folder)
            assert mail["to"] == ["Zoe@example.com"]
            assert f"{home.url}/join?x=1" in mail["text"]
            assert mail["text"].count("/join") == 1
            assert "/c/" not in mail["text"] + mail["html"]
            await until(lambda: states(db) == [("sent", None)])

            link = mail["headers"]["List-Unsubscribe"].strip("<>")
            await _unsubscribe_and_undo(db, app, anyone, mail, posted)
            assert mail_count(folder) == 1
            await _sign_up(db, app, home, posted)
            held = (await app.get("/api/recipients/zoe/export/")).json()
            assert held["claims"][0]["address"] == "zoe@example.com"
            assert len(held["notifications"]) == 3
            seen = [*link.rstrip("/").rsplit("/", 1)[1:], "zoe@example.com", "Zoe@example.com"]
            await anyone.get(f"{link[:-2]}A/")
            await anyone.post(link, data={"scope": "nonsense"})
            logs = home.http.log + worker.log
            assert "/unsubscribe/{token}" in logs
            assert [each for each in seen if each in logs] == []


async def _unsubscribe_and_undo(
    db: Db,
    app: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    mail: dict[str, Any],
    posted: dict[str, str],
) -> None:
    """Turns invitations off by one click, during which one is not mailed, and on again."""
    link = mail["headers"]["List-Unsubscribe"].strip("<>")
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    for method in ("GET", "HEAD"):
        assert (await anyone.request(method, link)).status_code == 200
    assert db.execute("select count(*) from tocsin.suppression").fetchone() == (0,)
    await anyone.post(link, data={"List-Unsubscribe": "One-Click"})
    await app.post("/api/events/", json=posted | {"email": "zoe@EXAMPLE.com"})
    await anyone.post(link, data={"undo": "1"})


async def _sign_up(db: Db, app: httpx.AsyncClient, home: House, posted: dict[str, str]) -> None:
    """Creates the person, whose claim brings both invitations into the inbox."""
    assert (await app.post("/api/recipients/zoe/claims/", json={"email": "x"})).status_code == 404
    await app.put("/api/recipients/zoe/", json={"name": "Zoe"})
    async with home.person("zoe") as zoe, following(zoe) as stream:
        assert json.loads(await stream.event("badge")) == {"count": 0, "unseen": 0}
        claimed = await app.post("/api/recipients/zoe/claims/", json={"email": "zoe@example.com"})
        assert claimed.json() == {"claimed": 2}
        assert json.loads(await stream.event("notification"))["title"] == "Join us"
        listed = (await zoe.get("/api/notifications/")).json()["results"]
        assert [each["read"] for each in listed] == [False, False]
        why = (await zoe.get(f"/api/notifications/{listed[1]['id']}/why/")).json()
        assert "before you had this account" in why["channels"][0]["sentence"]
        assert why["channels"][1]["deliveries"][0]["state"] == "sent"
        await app.post("/api/events/", json=posted | {"email": "zoe@example.com"})
        await until(lambda: unread(db, "zoe") == 3)


async def test_what_was_claimed_before_its_mail_was_sent_is_not_mailed(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mails"
    db.execute(
        "select tocsin.upsert_recipient('zoe'), tocsin.notify_email(%s, 'event.invited', 'x')",
        (ZOE,),
    )
    db.execute("select tocsin.notify_email('bob@example.com', 'event.invited', 'To Bob')")
    db.execute("select tocsin.claim_email(%s, 'zoe')", (ZOE,))
    async with mail_catcher(folder) as mailbox:
        settings = {
            "database_url": dsn,
            "smtp_url": mailbox.url,
            "public_url": "https://notify.example",
            "data_dir": str(tmp_path),
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings):
            await until(lambda: states(db) == [("sent", None), ("skipped", "claimed")])
    assert [mail["subject"] for mail in mails(folder)] == ["To Bob"]


@pytest.mark.parametrize("first", ["invitation", "claim"])
async def test_an_invitation_races_its_claim(db: Db, dsn: str, tmp_path: Path, first: str) -> None:
    """Each in an open transaction while the other commits: in the end it is in the inbox, once, and soon."""
    invite = "select tocsin.notify_email(%s, 'event.invited', 'x')"
    claim = "select tocsin.claim_email(%s, %s)"
    took = []
    async with house(dsn, tmp_path) as home:
        await home.http.wait_for_log("leading")
        for n in range(10):
            person, address = f"person{n}", f"Person{n}@Bücher.example"
            same = f"pERSON{n}@xn--bcher-kva.example"
            db.execute("select tocsin.upsert_recipient(%s)", (person,))
            async with (
                home.person(person) if n == 0 else httpx.AsyncClient(timeout=LONGEST) as client
            ):
                with psycopg.connect(dsn) as other:
                    if first == "invitation":
                        other.execute(invite, (address,))
                        db.execute(claim, (same, person))
                    else:
                        other.execute(claim, (same, person))
                        db.execute(invite, (address,))
                    if n % 2:  # the listener is idle, and gets a signal
                        db.execute("select pg_sleep(0.3)")
                    other.commit()
                    committed = time.monotonic()
                await until(lambda: unread(db, person) == 1)  # noqa: B023
                took.append(time.monotonic() - committed)
                if n == 0:
                    (listed,) = (await client.get("/api/notifications/")).json()["results"]
                    assert listed["read"] is False
    assert sorted(took)[5] < 2.0, took
    print(f"{first} first: median {sorted(took)[5] * 1000:.0f} ms, most {max(took) * 1000:.0f} ms")
    assert db.execute(
        "select count(*), count(distinct recipient_id), bool_and(in_inbox) from tocsin.notification"
    ).fetchone() == (10, 10, True)
    assert [unread(db, f"person{n}") for n in range(10)] == [1] * 10
