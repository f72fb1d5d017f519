"""An event of a topic, from SQL to a chat, by a worker process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from tests.support.services import running, until
from tocsin.testing.chats import ChatServer

Db = psycopg.Connection[Any]
TOPIC = "forum.thread:42"


async def test_events_of_a_topic_are_posted_in_order_and_to_wait_for_a_turn_is_no_attempt(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    async with ChatServer() as chats:
        db.execute(
            "insert into tocsin.target (channel, name, kind, url, topic) values ('chat', 'team', 'telegram', %s, %s)",
            (chats.url("telegram", "7"), TOPIC),
        )
        settings = {
            "database_url": dsn,
            "data_dir": str(tmp_path),
            "allow_private_endpoints": "true",
            "public_url": "https://notify.example.com",
        }
        async with running("worker", log=tmp_path / "worker.log", settings=settings):
            for number in range(3):
                db.execute(
                    "select tocsin.notify_topic(%s, 'forum.new_reply', %s, action_url => '/forums/7')",
                    (TOPIC, f"Reply {number}"),
                )
            await until(lambda: len(chats.posts) == 3)
    link = "https://notify.example.com/forums/7"
    assert [each.text for each in chats.posts] == [
        f'<b><a href="{link}">Reply {number}</a></b>' for number in range(3)
    ]
    attempts = db.execute("select attempts from tocsin.delivery where channel = 'chat'").fetchall()
    assert attempts == [(1,)] * 3
