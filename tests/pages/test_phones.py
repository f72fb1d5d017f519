"""The pushes on the phones of `make up`: how they are parsed, kept and shown."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import (
    DEVELOPMENT_URL,
    SECRET,
    URL,
    Db,
    development_app,
    transport_to,
)
from tocsin.dev.far_ends import (
    PHONES,
    CaughtPush,
    FarEnds,
    PushFile,
    clear,
    from_apns,
    from_fcm,
    read_pushes,
)
from tocsin.dev.seed import demo, seed
from tocsin.engine.store.database import Database
from tocsin.settings import Settings, running_instance
from tocsin.settings.running_instance import SecretFileError
from tocsin.testing.apns import Received
from tocsin.testing.fcm import ReceivedMessage

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
JSON = {"Accept": "application/json"}
XSS = "<script>alert(1)</script>"


def arrival(number: int = 0, *, token: str = "a1" * 32, **more: Any) -> CaughtPush:
    at = NOW + timedelta(seconds=number)
    named: dict[str, Any] = {"provider": "apns", "kind": "alert", "title": f"{number}"} | more
    return CaughtPush(at=at, token=token, **named)


def received(payload: dict[str, Any]) -> Received:
    return Received("a1" * 32, {"apns-collapse-id": "c"}, payload, 1, 200)


def arrived(message: dict[str, Any]) -> ReceivedMessage:
    return ReceivedMessage(NOW, "pixel", message, "", 200)


def test_an_alert_of_apns_is_read_whole() -> None:
    alert = {"title": "Bob: hello", "body": "How are you?"}
    aps = {"alert": alert, "badge": 3, "sound": "default"}
    shown = from_apns(received({"aps": aps, "action_url": "/messages/7"}), NOW)
    assert shown == CaughtPush(
        at=NOW,
        provider="apns",
        token="a1" * 32,
        kind="alert",
        title="Bob: hello",
        body="How are you?",
        badge=3,
        sound="default",
        data={"action_url": "/messages/7"},
        collapse_id="c",
    )


def test_an_alert_of_fcm_is_read_whole() -> None:
    message = {
        "notification": {"title": "Bob: hello", "body": "How are you?"},
        "data": {"action_url": "/messages/7"},
        "android": {
            "notification": {"tag": "t", "default_sound": True, "notification_count": 3},
        },
        "apns": {"payload": {"aps": {"badge": 3}}},
    }
    shown = from_fcm(arrived(message))
    assert (shown.kind, shown.title, shown.body) == ("alert", "Bob: hello", "How are you?")
    assert (shown.badge, shown.sound, shown.collapse_id) == (3, "default", "t")
    assert shown.data == {"action_url": "/messages/7"}


@pytest.mark.parametrize(
    ("aps", "kind", "badge"),
    [
        ({"badge": 0}, "badge", 0),
        ({"badge": 2, "content-available": 1}, "badge", 2),
        ({"content-available": 1}, "background", None),
        ({}, "background", None),
        ({"alert": "as a text"}, "alert", None),
    ],
)
def test_a_push_that_shows_nothing_is_marked(
    aps: dict[str, Any], kind: str, badge: int | None
) -> None:
    shown = from_apns(received({"aps": aps}), NOW)
    assert (shown.kind, shown.badge) == (kind, badge)
    if "alert" not in aps:
        behind = from_fcm(arrived({"data": {"silent": "1"}, "apns": {"payload": {"aps": aps}}}))
        assert (behind.kind, behind.badge) == (kind, badge)


def test_what_anybody_sent_breaks_nothing() -> None:
    odd = from_apns(received({"aps": {"alert": {"title": 1}, "badge": "x", "sound": {}}}), NOW)
    assert (odd.title, odd.badge, odd.sound) == ("", None, None)
    assert from_fcm(arrived({"notification": 1, "android": [], "data": None})).data == {}


def test_the_newest_are_kept_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / PHONES
    phones = PushFile(file, kept=5)
    for number in range(23):
        phones.keep(arrival(number))
        assert len(file.read_bytes().splitlines()) < 10
    assert [each.title for each in read_pushes(file, 5)] == ["22", "21", "20", "19", "18"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_they_outlive_a_restart_and_a_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / PHONES
    PushFile(file).keep(arrival(1))
    file.write_bytes(file.read_bytes() + b'{"at":"2026')
    PushFile(file).keep(arrival(2))
    assert [each.title for each in read_pushes(file)] == ["2", "1"]
    clear(file)
    assert read_pushes(file) == []
    PushFile(file).keep(arrival(3))
    assert [each.title for each in read_pushes(file)] == ["3"]


def test_the_keys_of_the_far_ends_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "far-ends"
    names = ("apns-key.p8", "fcm-key.pem")
    FarEnds(tmp_path, apns=True, fcm=True, report=print)
    made = [(folder / name).read_text() for name in names]
    FarEnds(tmp_path, apns=True, fcm=True, report=print)
    assert [(folder / name).read_text() for name in names] == made
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names} == {0o600}
    (folder / "fcm-key.pem").write_text("cut off")
    with pytest.raises(SecretFileError, match=r"fcm-key\.pem holds no key: start over"):
        FarEnds(tmp_path, apns=True, fcm=True, report=print)


def test_a_full_disk_is_reported_and_refuses_no_push(tmp_path: Path) -> None:
    lines: list[str] = []
    ends = FarEnds(tmp_path, apns=True, fcm=False, report=lines.append)
    (tmp_path / PHONES).mkdir()  # as good as a full disk: nothing can be written there
    ends._on_apns(received({"aps": {"alert": "x"}}))
    assert lines == ["phones.jsonl can't be written: Is a directory"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / PHONES


@pytest_asyncio.fixture
async def page(database: Database, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The service as `tocsin up` starts it, with a far end of FCM beside it and none of APNs."""
    settings = Settings(
        jwt_secret=SECRET, jwt_algorithms=("HS256",), public_url=URL, data_dir=tmp_path
    )
    app = development_app(settings, database)
    up = running_instance.RunningInstance(1, URL, {"TOCSIN_FCM_SERVICE_ACCOUNT": "account.json"})
    with running_instance.lock_data_dir(tmp_path) as lock:
        running_instance.publish(lock, up)
        async with httpx.AsyncClient(
            transport=transport_to(app), base_url=DEVELOPMENT_URL
        ) as client:
            yield client


async def test_each_push_is_shown_with_its_person_and_without_its_token(
    page: httpx.AsyncClient, db: Db, dsn: str, file: Path
) -> None:
    seed(dsn)
    tokens = dict(
        db.execute("select recipient_id, token from tocsin.device where provider = 'apns'")
    )
    assert all(len(bytes.fromhex(token)) == 32 for token in tokens.values())
    PushFile(file).keep(arrival(1, token=tokens["alice"], badge=2, data={"action_url": "/a"}))
    PushFile(file).keep(arrival(2, token=tokens["carol"], kind="badge", title="", badge=0))
    PushFile(file).keep(arrival(3, token="nobody's"))
    response = await page.get("/dev/phones", headers=JSON)
    everybody = response.json()
    assert [each["recipient"] for each in everybody] == [None, "carol", "alice"]
    assert everybody[2] == {
        "at": "2026-11-22T09:30:01Z",
        "provider": "apns",
        "recipient": "alice",
        "token": tokens["alice"][-6:],
        "kind": "alert",
        "title": "1",
        "body": "",
        "badge": 2,
        "sound": None,
        "data": {"action_url": "/a"},
        "collapse_id": None,
    }
    assert tokens["alice"] not in response.text
    (hers,) = (await page.get("/dev/phones/?person=carol", headers=JSON)).json()
    assert (hers["kind"], hers["badge"]) == ("badge", 0)
    assert (await page.get("/dev/phones?person=dave", headers=JSON)).json() == []
    assert (await page.delete("/dev/phones/")).status_code == 204
    assert (await page.get("/dev/phones", headers=JSON)).json() == []


async def test_the_demo_draws_the_first_live_device_of_each(
    page: httpx.AsyncClient, db: Db, dsn: str
) -> None:
    seed(dsn)
    assert db.execute("select count(*) from tocsin.device").fetchone() == (len(demo()["phones"]),)
    shown = (await page.get("/dev/?left=carol&right=bob")).text
    assert shown.count('class="phone"') == 2
    assert "Its pushes go to Apple: <code>TOCSIN_APNS_KEY</code> is set." in shown
    assert "Nothing yet" in shown
    db.execute("update tocsin.device set disabled_at = now() where provider = 'apns'")
    assert "Its pushes go to Apple" not in (await page.get("/dev/?left=carol&right=bob")).text
    assert "Dave has no phone" in (await page.get("/dev/?left=dave")).text


async def test_no_text_of_a_push_comes_to_life(
    page: httpx.AsyncClient, people: None, file: Path
) -> None:
    PushFile(file).keep(arrival(title=XSS, body=XSS, data={"action_url": XSS}))
    response = await page.get("/dev/phones/")
    assert XSS not in response.text
    assert response.text.count("&lt;script&gt;") == 3
    assert "unsafe" not in response.headers["content-security-policy"]
    script = (await page.get("/dev/assets/phones.js")).text
    assert "innerHTML" not in script


def test_people_without_phones_can_be_seeded_too(db: Db, dsn: str) -> None:
    seed(dsn, phones=False)
    assert db.execute("select count(*) from tocsin.device").fetchone() == (0,)
