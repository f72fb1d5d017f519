"""The URLs of chats lead to public addresses only, as they are put and as something is sent."""

from __future__ import annotations

import httpx
import pytest
from msgspec.structs import replace

from tests.support.chats import *  # noqa: F403 - fixtures
from tests.support.chats import DEVELOPMENT, PATH, TOPIC, deliver, states
from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.engine.store.database import Database
from tocsin.settings import Settings
from tocsin.testing.chats import ChatServer

pytestmark = pytest.mark.own_app


@pytest.fixture  # type: ignore[no-redef]
def settings() -> Settings:
    return replace(DEVELOPMENT, allow_private_endpoints=False)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("http://hooks.slack.com/services/T0/B0/x", "Give an https address"),
        ("https://127.0.0.1/services/T0/B0/x", "private address"),
        ("https://169.254.169.254/services/T0/B0/x", "private address"),
        ("https://[::ffff:10.0.0.1]/services/T0/B0/x", "private address"),
        ("https://localhost/services/T0/B0/x", "private address"),
        ("https://nowhere.invalid/services/T0/B0/x", "can't be resolved"),
    ],
)
async def test_a_url_that_leads_elsewhere_is_refused(
    machine: httpx.AsyncClient, url: str, cure: str
) -> None:
    given = {"kind": "slack", "url": url, "topic": TOPIC}
    refused = await machine.put(f"{PATH}team/", json=given)
    assert refused.status_code == 422
    assert cure in refused.json()["errors"][0]["message"]


async def test_a_target_that_was_stored_before_is_not_connected_to(
    db: Db, database: Database, settings: Settings, chats: ChatServer, people: None
) -> None:
    db.execute(
        "insert into tocsin.target (channel, name, kind, url, topic) values ('chat', 'team', 'slack', %s, %s)",
        (chats.url("slack").replace("http:", "https:"), TOPIC),
    )
    db.execute("select tocsin.notify_topic(%s, 'forum.new_reply', 'x')", (TOPIC,))
    await deliver(db, database, settings)
    assert states(db) == [("failed", "chat_address_forbidden", None)]
    assert chats.requests == 0
