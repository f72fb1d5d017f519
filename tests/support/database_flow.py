"""One flow through a whole service, for databases of all kinds: notify, badge, mail, digest, API."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
from psycopg import sql

from tests.support.forked import run_tocsin
from tests.support.services import (
    LONGEST,
    SECRET,
    Service,
    free_port,
    mail_catcher,
    mails,
    running,
    until,
)
from tocsin.migrate import migrate

Db = psycopg.Connection[Any]

HOSTILE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Auckland",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "statement_timeout": "1s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "500ms",
    "idle_session_timeout": "1s",
    "search_path": "nowhere",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "row_security": "off",
    "quote_all_identifiers": "on",
}
"""What a database may have set, each of which was meant for somebody else."""


def set_on_database(dsn: str, settings: dict[str, str]) -> None:
    """Changes a setting for all sessions that are opened from now on."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        for name, value in settings.items():
            statement = sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(owner.info.dbname), sql.Identifier(name), sql.Literal(value)
            )
            if name == "search_path":
                statement = sql.SQL("alter database {} set search_path = {}").format(
                    sql.Identifier(owner.info.dbname), sql.Identifier(value)
                )
            owner.execute(statement)


def reinstall(dsn: str) -> None:
    """Removes Tocsin from the database and migrates it again."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("set default_transaction_read_only = off")
        owner.execute("set statement_timeout = 0")
        owner.execute("set lock_timeout = 0")
        owner.execute("drop schema if exists tocsin cascade")
        owner.execute("drop schema if exists tocsin_queue cascade")
    migrate(dsn)


class Installation:
    """A running `serve` and `worker` on a database, and its mails; of `program`, or else of this environment."""

    def __init__(
        self, dsn: str, folder: Path, program: tuple[str, ...] = (), pooler: str = ""
    ) -> None:
        self.dsn = dsn
        self.pooler = pooler
        self.folder = folder
        self.program = program
        self.port = free_port()
        self.settings: dict[str, str] = {}
        self.services: list[Service] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Installation:
        mailbox = await self._stack.enter_async_context(mail_catcher(self.folder / "mails"))
        self.settings = {
            "database_url": self.dsn,
            "pooler_url": self.pooler,
            "smtp_url": mailbox.url,
            "host": "127.0.0.1",
            "port": str(self.port),
            "public_url": f"http://127.0.0.1:{self.port}",
            "jwt_secret": SECRET,
            "data_dir": str(self.folder),
        }
        for command in ("serve", "worker"):
            log = self.folder / f"{command}.log"
            service = running(command, log=log, program=self.program, settings=self.settings)
            self.services.append(await self._stack.enter_async_context(service))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def log(self) -> str:
        return "".join(service.log for service in self.services)

    def cli(self, *arguments: str) -> str:
        """Returns the last line that a command prints."""
        environ = {f"TOCSIN_{name.upper()}": value for name, value in self.settings.items()}
        done = (
            _run(self.program, *arguments, environ=environ)
            if self.program
            else run_tocsin(*arguments, environ=environ)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def client(self, credentials: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {credentials}"}
        url = self.settings["public_url"]
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=LONGEST)

    def person(self, name: str) -> httpx.AsyncClient:
        claims = {"sub": name, "exp": int(time.time() + 600)}
        return self.client(jwt.encode(claims, SECRET, "HS256"))

    async def mails_to(self, address: str, count: int) -> list[dict[str, Any]]:
        """Returns so many mails, once they have arrived."""

        def found() -> list[dict[str, Any]]:
            return [mail for mail in mails(self.folder / "mails") if address in mail["to"]]

        await until(lambda: len(found()) >= count)
        return found()


async def run_flow(
    dsn: str,
    folder: Path,
    app_settings: Iterable[str] = (),
    *,
    app_dsn: str | None = None,
    program: tuple[str, ...] = (),
    pooler: str = "",
) -> None:
    """Runs the flow; the app's own session has what the database set, but for `app_settings` (`name = value`)."""
    async with Installation(dsn, folder, program, pooler) as tocsin:
        await asyncio.gather(*(until_ready(tocsin), _leading(tocsin)))
        with psycopg.connect(app_dsn or dsn) as app:
            for setting in app_settings:
                app.execute(f"set session {setting}".encode())
            app.commit()
            await _notify_and_read(tocsin, app)
            await _digest(tocsin, app)
        assert "Traceback" not in tocsin.log, tocsin.log


def migrate_by(program: tuple[str, ...], dsn: str) -> None:
    """Runs the program's `migrate`."""
    done = _run(program, "migrate", environ={"TOCSIN_DATABASE_URL": dsn})
    assert done.returncode == 0, done.stderr


def _run(
    program: tuple[str, ...], *arguments: str, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    return subprocess.run(
        [*program, *arguments], env=ours | environ, capture_output=True, text=True
    )


async def until_ready(tocsin: Installation) -> None:
    """Waits until it serves; fails where a process ends before."""
    async with tocsin.person("alice") as client:

        async def ready() -> bool:
            assert all(each.process.returncode is None for each in tocsin.services), tocsin.log
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(ready)


async def _leading(tocsin: Installation) -> None:
    await until(lambda: '"leading"' in tocsin.log)


async def _notify_and_read(tocsin: Installation, app: Db) -> None:
    key = tocsin.cli("api-key", "create", "flow")
    async with tocsin.person("alice") as alice, tocsin.client(key) as service:
        app.execute("select tocsin.upsert_recipient('alice', 'alice@example.com', 'Älice', 'de')")
        app.execute("select tocsin.subscribe('alice', 'forum.thread:7')")
        call = "select tocsin.notify('forum.new_reply', array['alice'], 'Grüße', 'Zwei', '/f/7', '{}', 'bob', 'key-1')"
        first = app.execute(call).fetchone()
        assert app.execute(call).fetchone() == first
        assert app.execute("select tocsin.unread_count('alice')").fetchone() == (1,)
        app.commit()
        await until(lambda: _count(alice, 1))
        (mail,) = await tocsin.mails_to("alice@example.com", 1)
        assert mail["subject"] == "Grüße"
        assert first is not None
        event = (await service.get(f"/api/events/{first[0]}/")).json()
        assert event["title"] == "Grüße"
        assert event["created_at"].endswith("Z")
        by_api = {"event_type": "forum.new_reply", "recipients": ["alice"], "title": "By API"}
        assert (await service.post("/api/events/", json=by_api)).status_code == 202
        await tocsin.mails_to("alice@example.com", 2)
        (newest, _) = (await alice.get("/api/notifications/")).json()["results"]
        marked = await alice.patch(f"/api/notifications/{newest['id']}/read/")
        assert marked.json()["read"] is True
        await until(lambda: _count(alice, 1))
        assert (await alice.get(f"/api/notifications/{newest['id']}/why/")).status_code == 200
    assert "flow" in tocsin.cli("api-key", "list")


async def _count(person: httpx.AsyncClient, count: int) -> bool:
    response = await person.get("/api/notifications/unread-count/")
    return bool(response.json()["count"] == count)


async def _digest(tocsin: Installation, app: Db) -> None:
    app.execute("select tocsin.upsert_recipient('bob', 'bob@example.com')")
    app.commit()
    async with tocsin.person("bob") as bob:
        wanted = {"frequency": "daily", "timezone": "Europe/Rome", "send_at": "07:30"}
        response = await bob.patch("/api/digest-preferences/", json=wanted)
        assert response.status_code == 200, response.text
        next_at = datetime.fromisoformat(response.json()["next_at"])
        assert next_at - datetime.now(UTC) < timedelta(hours=26)
        app.execute("select tocsin.notify('forum.new_reply', array['bob'], 'For the digest')")
        app.commit()
        tocsin.cli("digest", "run", "--now", next_at.isoformat())
        (mail,) = await tocsin.mails_to("bob@example.com", 1)
        assert "For the digest" in mail["text"]
