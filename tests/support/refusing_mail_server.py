"""A mail server whose refusals a test scripts, and a worker that sends to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.services import Service, free_port, running

Db = psycopg.Connection[Any]
Refusal = Callable[[str], str | None]


class Far:
    """A mail server whose replies a test scripts: `refusal` returns the reply for an address; None accepts it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.refusal: Refusal = lambda address: None
        self.slow = 0.0
        self.mails: list[tuple[str, str]] = []  # (address, Message-ID)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.refusal(address)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.slow)
        text = bytes(envelope.original_content or b"").decode()
        message_id = text.split("Message-ID: ", 1)[1].split()[0]
        self.mails.append((envelope.rcpt_tos[0], message_id))
        return "250 OK"

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(self), "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    server = Far()
    async with server.listening():
        yield server


def worker(
    dsn: str, far: Far, folder: Path, name: str = "worker"
) -> AbstractAsyncContextManager[Service]:
    return running(
        "worker",
        log=folder / f"{name}.log",
        settings={
            "database_url": dsn,
            "smtp_url": far.url,
            "public_url": "https://notify.example",
            "data_dir": str(folder),
        },
    )


def notify_people(
    db: Db, count: int, event_type: str = "forum.new_reply", prefix: str = "p"
) -> int:
    names = [f"{prefix}{i}" for i in range(count)]
    db.execute(
        "select tocsin.upsert_recipient(n, n || '@example.com') from unnest(%s::text[]) n", (names,)
    )
    row = db.execute("select tocsin.notify(%s, %s, 'x')", (event_type, names)).fetchone()
    assert row is not None
    return int(row[0])


def states(db: Db) -> dict[str, int]:
    return dict(
        db.execute("select state::text, count(*) from tocsin.delivery group by 1").fetchall()
    )
