"""Workers of single channels: each delivers by its own, and what belongs to another waits for that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from tests.support.services import mail_catcher, mail_count, running, until
from tests.support.webhook_endpoint import SECRET, Endpoint
from tocsin.cli import main

Db = psycopg.Connection[Any]


async def test_workers_share_the_channels_and_wait_for_each_other(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com')")
    async with mail_catcher(tmp_path / "mails") as mails, Endpoint(SECRET) as endpoint:
        db.execute(
            "insert into tocsin.target (channel, name, url, recipient_id, secrets) "
            "values ('webhook', 'alices', %s, 'alice', %s)",
            (endpoint.url, Jsonb([{"secret": SECRET}])),
        )
        settings: dict[str, Any] = {
            "database_url": dsn,
            "public_url": "http://127.0.0.1:1",
            "smtp_url": f"smtp://127.0.0.1:{mails.port}",
            "allow_private_endpoints": "1",
        }
        mailer = ("worker", "--channels", "email")
        async with running(
            "worker",
            "--channels",
            "webhook, chat",
            log=tmp_path / "webhooks.log",
            settings=settings,
        ) as webhooks:
            await webhooks.wait_for_log("working")
            assert '"providers": ["chat", "webhook"]' in webhooks.log
            async with running(*mailer, log=tmp_path / "mails.log", settings=settings):
                await until(lambda: _available(db) == ["chat", "email", "webhook"])
            db.execute("select tocsin.notify('forum.new_reply', array['alice'], 'Reply')")
            await until(lambda: _states(db) == {"webhook": "sent", "email": "queued"})
            async with running(*mailer, log=tmp_path / "mails.log", settings=settings):
                await until(lambda: mail_count(tmp_path / "mails") == 1)
    assert len(endpoint.received) == 1


def test_an_unknown_channel_is_refused_with_those_that_exist() -> None:
    for name in ("sms", "in_app"):
        refused = CliRunner().invoke(main, ["worker", "--channels", f"email,{name}"])
        assert refused.exit_code == 2
        assert (
            f"there is no channel '{name}' to deliver by; "
            "there are email, push, web_push, webhook, chat" in refused.output.replace("\n", " ")
        )


def _available(db: Db) -> list[str]:
    found = db.execute("select channel from tocsin.channel where available and task is not null")
    return sorted(channel for (channel,) in found)


def _states(db: Db) -> dict[str, str]:
    return dict(db.execute("select channel, state::text from tocsin.delivery").fetchall())
