"""Who caused a notification: name and picture, which is shown from hosts that the setting allows."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import METRICS_TOKEN, SECRET, URL, Db, NewNotification
from tocsin import InvalidArgument, upsert_recipient
from tocsin.engine.store.notification import Initiator
from tocsin.settings import Settings

INBOX = "/api/notifications/"
PICTURE = "https://pictures.example.com/bob.png"


@pytest.fixture  # type: ignore[no-redef]
def settings() -> Settings:
    """Pictures of two hosts."""
    return Settings(
        jwt_secret=SECRET,
        jwt_algorithms=("HS256",),
        public_url=URL,
        metrics_token=METRICS_TOKEN,
        avatar_hosts=("pictures.example.com", "*.cdn.example"),
    )


async def profile(client: httpx.AsyncClient) -> Any:
    (found,) = (await client.get(INBOX)).json()["results"]
    return found["initiator_profile"]


async def test_a_notification_names_its_initiator_wherever_it_is_read(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    upsert_recipient(db, "bob", name="Bob", avatar_url=PICTURE)
    id_ = new_notification(initiator="bob", actions=[{"key": "yes", "label": "Yes"}])
    bob = {"id": "bob", "name": "Bob", "avatar_url": PICTURE}
    assert await profile(alice) == bob
    for method, path in (
        ("GET", f"{INBOX}{id_}/"),
        ("PATCH", f"{INBOX}{id_}/read/"),
        ("POST", f"{INBOX}{id_}/actions/yes/"),
    ):
        assert (await alice.request(method, path)).json()["initiator_profile"] == bob
    found = (await alice.get(f"{INBOX}?read=true")).json()["results"]
    assert [each["initiator_profile"] for each in found] == [bob]


async def test_without_an_initiator_or_what_the_app_knows_of_them_it_is_null(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    new_notification()
    assert await profile(alice) is None
    db.execute("delete from tocsin.notification")
    new_notification(initiator="somebody-unknown")
    assert await profile(alice) == {"id": "somebody-unknown", "name": None, "avatar_url": None}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (PICTURE, True),
        ("https://PICTURES.example.com:443/bob.png", True),
        ("https://a.b.cdn.example/x", True),
        ("/people/bob.png", True),
        ("https://cdn.example/x", False),
        ("https://evilcdn.example/x", False),
        ("https://pictures.example.com.evil.test/x", False),
        ("https://pictures.example.com:8443/x", False),
        ("http://pictures.example.com/bob.png", False),
    ],
)
async def test_a_picture_is_shown_from_allowed_hosts_alone(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db, url: str, shown: bool
) -> None:
    upsert_recipient(db, "bob", name="Bob", avatar_url=url)
    new_notification(initiator="bob")
    assert (await profile(alice))["avatar_url"] == (url if shown else None)


def test_without_the_setting_only_paths_are_shown() -> None:
    other = Initiator("bob", "Bob", PICTURE)
    assert other.with_picture_of(()).avatar_url is None
    assert Initiator("bob", "Bob", "/bob.png").with_picture_of(()).avatar_url == "/bob.png"


async def test_the_stream_has_the_initiator_too(new_notification: NewNotification, db: Db) -> None:
    upsert_recipient(db, "bob", avatar_url=PICTURE)
    row = db.execute("select pg_current_snapshot()::text").fetchone()
    assert row is not None
    new_notification(initiator="bob")
    news = db.execute(
        "select tocsin.stream_updates(array['alice'], array['alice'], array[%s]::pg_snapshot[],"
        " array[null]::pg_snapshot[], array[null]::bigint[], 10)",
        row,
    ).fetchone()
    assert news is not None
    (arrived,) = json.loads(news[0])["arrived"]
    assert arrived["notification"]["initiator_profile"]["avatar_url"] == PICTURE


async def test_an_app_sets_keeps_and_removes_a_picture(machine: httpx.AsyncClient) -> None:
    path = "/api/recipients/dora/"
    for body, expected in (
        ({"avatar_url": PICTURE}, PICTURE),
        ({"name": "Dora"}, PICTURE),
        ({"avatar_url": None}, PICTURE),
        ({"avatar_url": ""}, None),
    ):
        response = await machine.put(path, json=body)
        assert response.json()["avatar_url"] == expected
        assert (await machine.get(path)).json()["avatar_url"] == expected
    await machine.put(path, json={"avatar_url": PICTURE})
    exported = (await machine.get(f"{path}export/")).json()
    assert exported["recipient"]["avatar_url"] == PICTURE


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.test/x", "x" * 2001, "bob.png"])
async def test_an_address_that_no_picture_can_have_is_refused(
    machine: httpx.AsyncClient, db: Db, url: str
) -> None:
    response = await machine.put("/api/recipients/dora/", json={"avatar_url": url})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "avatar_url"
    with pytest.raises(InvalidArgument, match="avatar_url"):
        upsert_recipient(db, "dora", avatar_url=url)
    body = {"event_type": "forum.new_reply", "title": "x"}
    body |= {"recipients": [{"id": "dora", "avatar_url": url}]}  # type: ignore[dict-item]
    response = await machine.post("/api/events/", json=body)
    assert response.json()["errors"][0]["field"] == "recipients[0].avatar_url"
    assert db.execute("select count(*) from tocsin.recipient").fetchone() == (0,)


async def test_a_recipient_that_an_event_creates_has_a_picture(
    machine: httpx.AsyncClient,
) -> None:
    body = {"event_type": "forum.new_reply", "title": "x"}
    body |= {"recipients": [{"id": "dora", "avatar_url": PICTURE}]}  # type: ignore[dict-item]
    assert (await machine.post("/api/events/", json=body)).status_code == 202
    assert (await machine.get("/api/recipients/dora/")).json()["avatar_url"] == PICTURE
