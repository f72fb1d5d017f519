"""Under `make up` a mail can come back, by a button on its page."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import DEVELOPMENT_URL, KEY, Db, development_app, transport_to
from tests.support.ledger import deliver
from tocsin.dev.mail_catcher import MailEnvelope
from tocsin.engine.mail.links import make_tag
from tocsin.engine.store.database import Database
from tocsin.settings import Settings


@pytest.fixture
async def page(
    database: Database, tmp_path: Path, people: None
) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data_dir=tmp_path, public_url=DEVELOPMENT_URL)
    app = development_app(settings, database)
    async with httpx.AsyncClient(
        transport=transport_to(app), base_url=f"{DEVELOPMENT_URL}/dev/mail/", follow_redirects=True
    ) as client:
        yield client
    await app.state.offload.stop()


def caught(folder: Path, delivery_id: int) -> str:
    """Stores a mail as the catcher does; returns its id."""
    mailbox = folder / "mailbox"
    mailbox.mkdir(exist_ok=True)
    mail_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    envelope = MailEnvelope("notifications@localhost", ["alice@example.com"])
    (mailbox / f"{mail_id}.json").write_bytes(msgspec.json.encode(envelope))
    tag = make_tag(KEY, delivery_id)
    source = f"Subject: New reply\r\nX-Tocsin-Delivery: {tag}\r\n\r\nHello\r\n"
    (mailbox / f"{mail_id}.eml").write_bytes(source.encode())
    return mail_id


@pytest.mark.parametrize(
    ("kind", "reason"), [("bounce", "bounce_5.1.1"), ("complaint", "complaint")]
)
async def test_a_button_lets_a_mail_come_back(
    page: httpx.AsyncClient, db: Db, tmp_path: Path, kind: str, reason: str
) -> None:
    (delivery_id,) = deliver(db, "sent")
    mail_id = caught(tmp_path, delivery_id)
    shown = await page.get(f"{mail_id}/")
    assert f'action="return/{kind}/"' in shown.text
    after = await page.post(f"{mail_id}/return/{kind}/")
    assert (after.status_code, after.url.path) == (200, f"/dev/mail/{mail_id}/")
    assert after.history[0].headers["location"] == f"../../?returned={kind}"
    assert "suppressions lift alice@example.com" in after.text
    assert db.execute("select address, reason from tocsin.suppression").fetchall() == [
        ("alice@example.com", reason)
    ]


async def test_there_is_no_other_way_to_come_back(
    page: httpx.AsyncClient, db: Db, tmp_path: Path
) -> None:
    mail_id = caught(tmp_path, 1)
    assert (await page.post(f"{mail_id}/return/delay/")).status_code in (404, 422)
    assert (await page.post("none/return/bounce/")).status_code == 404
    assert db.execute("select count(*) from tocsin.mail_event").fetchone() == (0,)
