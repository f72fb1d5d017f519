"""The far end of chats in `tocsin up`, and the file that keeps what was posted for the demo page."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from tocsin.dev.supervisor import Report
from tocsin.engine.store.connection import connect
from tocsin.sql import load
from tocsin.testing.chats import ChatServer, Post

FILE = "chats.json"
KEPT = 50
TOPIC = "forum.thread:7"  # of the demo's replies
NAME, KIND = "demo", "discord"


class CaughtPost(Struct, frozen=True):
    """One message of a chat, as it is now."""

    at: datetime  # UTC
    kind: str
    target: str
    id: int
    text: str
    edits: int


class ChatCatcher:
    """Plays the services of chats, and keeps the last posts in a file."""

    def __init__(self, data_dir: Path, *, report: Report) -> None:
        self._file = data_dir / FILE
        self._report = report
        self._server = ChatServer(on_request=lambda _: self._keep())

    async def start(self) -> None:
        """Listens on a free port of this machine."""
        await self._server.__aenter__()

    async def stop(self) -> None:
        """Closes all connections."""
        await self._server.__aexit__()

    def put_demo_target(self, dsn: str) -> None:
        """Makes the target of the demo, or gives it this start's address."""
        with connect(dsn) as connection:
            connection.execute(
                load("chat_target")["put_chat_target"],
                {
                    "name": NAME,
                    "chat_kind": KIND,
                    "url": self._server.url(KIND, NAME),
                    "recipient_id": None,
                    "topic": TOPIC,
                },
            )

    def _keep(self) -> None:
        del self._server.posts[:-KEPT]
        shown = [_caught(each) for each in self._server.posts]
        written = self._file.with_suffix(".new")
        try:
            written.write_bytes(msgspec.json.encode(shown))
            os.replace(written, self._file)
        except OSError as error:  # it did arrive; only the demo page can't show it
            self._report(f"{FILE} can't be written: {error.strerror}")


def read_posts(data_dir: Path) -> list[CaughtPost]:
    """Returns the posts, the newest first."""
    with suppress(FileNotFoundError, msgspec.DecodeError):
        posts = msgspec.json.decode((data_dir / FILE).read_bytes(), type=list[CaughtPost])
        return posts[::-1]
    return []


def _caught(post: Post) -> CaughtPost:
    return CaughtPost(post.at, post.kind, post.target, post.id, post.text, post.edits)
