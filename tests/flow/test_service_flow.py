"""The service from outside: events by SQL, Python, HTTP and command; the stream, the mails, and a graceful stop."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest

import tocsin
from tests.support.forked import run_tocsin
from tests.support.house import Stream, following, house
from tests.support.services import (
    LONGEST,
    SECRET,
    free_port,
    mail_catcher,
    mail_count,
    running,
    service_dsn,
    until,
)
from tocsin.dev import embedded_postgres
from tocsin.http.errors import Unauthorized
from tocsin.http.tokens import TokenVerifier
from tocsin.migrate import migrate
from tocsin.settings import Settings

Db = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def people(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com', 'Alice')")


async def test_events_by_sql_python_http_and_command_move_the_badge_and_are_mailed(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    mails = tmp_path / "mails"
    async with mail_catcher(mails) as mailbox, house(dsn, tmp_path, smtp_url=mailbox.url) as home:
        async with (
            running("worker", log=tmp_path / "worker.log", settings=home.settings) as worker,
            home.person("alice", home.cli("token", "alice")) as alice,
            home.app() as app,
            following(alice) as stream,
        ):
            await home.http.wait_for_log("listening")
            await worker.wait_for_log("working")
            assert await stream.event("badge") == '{"count":0,"unseen":0}'
            await _notify_by_sql_and_python(home.cli("dsn", "--role", "app"), stream, mails)
            response = await app.post(
                "/api/events/",
                json={"event_type": "forum.new_reply", "recipients": ["alice"], "title": "By HTTP"},
            )
            assert response.status_code == 202
            assert await stream.event("badge") == '{"count":3,"unseen":3}'
            await until(lambda: mail_count(mails) == 3)
            home.cli("notify", "forum.new_reply", "alice", "--title", "By hand")
            assert await stream.event("badge") == '{"count":4,"unseen":4}'
            await until(lambda: mail_count(mails) == 4)
            listed = (await alice.get("/api/notifications/")).json()["results"]
            assert [one["title"] for one in listed] == ["By hand", "By HTTP", "By Python", "By SQL"]
            marked = await alice.post("/api/notifications/mark-all-read/")
            assert marked.json() == {"marked": 4}
            assert await stream.event("read") == '{"ids":"all","read":true}'
            assert await stream.event("badge") == '{"count":0,"unseen":0}'
            why = home.print("why", str(listed[0]["id"]))
            assert "It was sent." in why
            assert "Push is not set up on this service." in why


async def _notify_by_sql_and_python(dsn: str, stream: Stream, mails: Path) -> None:
    with psycopg.connect(dsn) as host_app:
        host_app.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], 'By SQL', action_url => '/a')"
        )
        with pytest.raises(TimeoutError):
            await stream.event("badge", 0.4)
        host_app.commit()
        assert await stream.event("badge") == '{"count":1,"unseen":1}'
        # or the next one would go out in the same mail
        await until(lambda: mail_count(mails) == 1)
        tocsin.notify(
            host_app,
            recipient="alice",
            event_type="forum.new_reply",
            title="By Python",
            metadata={"post_id": 12},
        )
        host_app.commit()
        assert await stream.event("badge") == '{"count":2,"unseen":2}'
        await until(lambda: mail_count(mails) == 2)


async def test_badges_move_while_no_worker_runs(db: Db, dsn: str, tmp_path: Path) -> None:
    async with (
        house(dsn, tmp_path) as home,
        home.person("alice") as alice,
        following(alice) as stream,
    ):
        assert await stream.event("badge") == '{"count":0,"unseen":0}'
        db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'x')")
        assert await stream.event("badge") == '{"count":1,"unseen":1}'


async def test_sigterm_with_open_streams_ends_cleanly(db: Db, dsn: str, tmp_path: Path) -> None:
    async with house(dsn, tmp_path) as home, home.person("alice") as alice:
        async with following(alice) as one, following(alice) as two:
            assert await one.event("badge") == await two.event("badge")
            await home.http.stop()
        assert home.http.process.returncode == 0
        assert "Traceback" not in home.http.log


async def test_streams_survive_a_restart_of_postgres(tmp_path: Path, server_folder: Path) -> None:
    data = server_folder / "streams"
    own = await asyncio.to_thread(embedded_postgres.start, data, print)
    try:
        migrate(own.dsn)
        with psycopg.connect(own.dsn, autocommit=True) as db:
            db.execute("select tocsin.upsert_recipient('alice')")
        async with (
            house(own.dsn, tmp_path) as home,
            home.person("alice") as alice,
            following(alice) as stream,
        ):
            assert await stream.event("badge") == '{"count":0,"unseen":0}'
            embedded_postgres.stop(own, immediate=True)
            away = await alice.get("/api/notifications/unread-count/", timeout=20)
            assert away.status_code == 503
            assert "retry-after" in away.headers
            own = await asyncio.to_thread(embedded_postgres.start, data, print)
            with psycopg.connect(own.dsn, autocommit=True) as db:
                db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'x')")
            assert await stream.event("badge") == '{"count":1,"unseen":1}'
            back = await alice.get("/api/notifications/unread-count/", timeout=20)
            assert back.json() == {"count": 1, "unseen": 1}
    finally:
        embedded_postgres.stop(own)


async def test_demo_pages_are_not_served(db: Db, dsn: str, tmp_path: Path) -> None:
    async with (
        house(dsn, tmp_path) as home,
        httpx.AsyncClient(base_url=home.url, timeout=LONGEST) as anyone,
    ):
        assert (await anyone.get("/dev/")).status_code == 404
        assert (await anyone.get("/dev/mail/")).status_code == 404


async def test_the_pages_of_make_up_are_for_this_machine_and_give_away_no_secret_of_the_app(
    db: Db, dsn: str, tmp_path: Path
) -> None:
    port = free_port()
    more = {"metrics_port": str(free_port()), "metrics_token": "the-token-of-metrics"}
    async with house(dsn, tmp_path, "serve", "--dev", port=str(port), **more) as home:
        async with httpx.AsyncClient(base_url=home.url, timeout=LONGEST) as anyone:
            own = (await anyone.get("/dev/token/?person=alice")).json()["token"]
            for name in ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"):
                for host in (name, f"{name}:{port}", f"{name}:1"):
                    response = await anyone.get("/dev/token/?person=alice", headers={"Host": host})
                    assert response.status_code == 200, host
            with pytest.raises(jwt.InvalidSignatureError):
                jwt.decode(own, SECRET, ["HS256"])
            for token in (own, home.cli("token", "alice")):
                async with home.person("alice", token) as alice:
                    assert (await alice.get("/api/me/")).json()["recipient"] == "alice"
                    count = "/api/notifications/unread-count/"
                    assert [(await alice.get(count)).status_code for _ in range(2)] == [200, 200]
                    # once the token is remembered, the count is returned before Litestar
                    foreign = await alice.get(count, headers={"Host": "evil.test"})
                    assert foreign.status_code == 421
            for host in (
                "evil.test",
                "evil.test:80",
                "127.0.0.1.evil.test",
                "localhost.evil.test",
                "evil.test#localhost",
                "localhost@evil.test",
                "[::1]x",
                "127.1",
                "0.0.0.0",
                "[::ffff:10.0.0.1]",
                "10.0.0.1",
                "",
            ):
                for path in ("/dev/token/?person=alice", "/dev/mail/", "/", "/schema", "/readyz"):
                    refused = await anyone.get(path, headers={"Host": host})
                    assert refused.status_code in (400, 421), (host, path)
                    assert own[:20] not in refused.text
            problem = await anyone.get("/dev/mail/", headers={"Host": "evil.test"})
            assert problem.headers["content-type"] == "application/problem+json"
            assert "localhost" in problem.json()["detail"]
            metrics = f"http://127.0.0.1:{more['metrics_port']}/metrics"
            assert "tocsin_http_requests_total" in (await anyone.get(metrics)).text
    elsewhere = TokenVerifier(Settings(jwt_secret=SECRET, jwt_algorithms=("HS256",)))
    with pytest.raises(Unauthorized):
        await elsewhere.verify(own)


async def test_a_service_with_the_pages_of_make_up_refuses_to_listen_for_others(
    dsn: str, tmp_path: Path
) -> None:
    settings = {
        "database_url": dsn,
        "public_url": "https://x.example",
        "jwt_secret": SECRET,
        "data_dir": str(tmp_path),
        "host": "0.0.0.0",
    }
    async with running("serve", "--dev", log=tmp_path / "http.log", settings=settings) as http:
        assert await asyncio.wait_for(http.process.wait(), LONGEST) == 1
    (line,) = http.log.strip().splitlines()
    assert "TOCSIN_HOST 0.0.0.0" in line
    assert "127.0.0.1" in line


@pytest.mark.parametrize("missing", ["public_url", "jwt_secret"])
async def test_serve_refuses_to_start_without(dsn: str, tmp_path: Path, missing: str) -> None:
    settings = {
        "database_url": dsn,
        "public_url": "https://x.example",
        "jwt_secret": SECRET,
        "data_dir": str(tmp_path),
    }
    del settings[missing]
    log = tmp_path / "http.log"
    async with running("serve", log=log, settings=settings) as http:
        assert await asyncio.wait_for(http.process.wait(), LONGEST) == 1
    lines = http.log.strip().splitlines()
    assert len(lines) == 1
    assert "TOCSIN_PUBLIC_URL" in lines[0] or "TOCSIN_JWT_SECRET" in lines[0]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", None, "is in use: set it to a free one"),
        ("metrics_port", None, "is in use: set it to a port of this process alone"),
        ("host", "192.0.2.7", "is no address of this machine: set it to 127.0.0.1"),
    ],
)
async def test_serve_refuses_an_address_that_it_cannot_listen_at(
    dsn: str, tmp_path: Path, name: str, value: str | None, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = value or str(taken.getsockname()[1])
        settings = {
            "database_url": dsn,
            "public_url": "https://x.example",
            "jwt_secret": SECRET,
            "port": str(free_port()),
            name: value,
        }
        async with running("serve", log=tmp_path / "http.log", settings=settings) as http:
            assert await asyncio.wait_for(http.process.wait(), LONGEST) == 1
    (line,) = http.log.strip().splitlines()
    assert f"TOCSIN_{name.upper()} {value} {words}" in line


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_database_that_is_away_or_not_migrated_stops_the_start_with_one_line(
    dsn: str, db: Db, tmp_path: Path, command: str
) -> None:
    settings = {
        "database_url": "postgresql://nobody@127.0.0.1:1/nowhere",
        "public_url": "https://x.example",
        "jwt_secret": SECRET,
        "data_dir": str(tmp_path),
        "database_wait": "0",
    }
    async with running(command, log=tmp_path / "away.log", settings=settings) as away:
        assert await asyncio.wait_for(away.process.wait(), LONGEST) == 1
    assert len(away.log.strip().splitlines()) == 1
    assert "TOCSIN_DATABASE_URL can't be reached" in away.log
    db.execute("drop schema tocsin cascade")
    bare = settings | {"database_url": dsn}
    async with running(command, log=tmp_path / "bare.log", settings=bare) as unmigrated:
        assert await asyncio.wait_for(unmigrated.process.wait(), LONGEST) == 1
    assert (
        unmigrated.log.strip()
        == "tocsin: The database is not migrated: run `tocsin migrate` first."
    )


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_database_from_before_the_first_release_stops_the_start_with_one_line(
    dsn: str, db: Db, tmp_path: Path, command: str
) -> None:
    db.execute("insert into tocsin.migration (name, checksum) values ('0002_device.sql', '')")
    settings = {
        "database_url": service_dsn(dsn),
        "public_url": "https://x.example",
        "jwt_secret": SECRET,
        "data_dir": str(tmp_path),
    }
    async with running(command, log=tmp_path / "log", settings=settings) as refused:
        assert await asyncio.wait_for(refused.process.wait(), LONGEST) == 1
    (line,) = refused.log.strip().splitlines()
    assert line.startswith(
        "tocsin: The database was made by a version from before the first release"
    )
    assert "`drop schema tocsin, tocsin_queue cascade`" in line


def test_the_installed_command_runs() -> None:
    installed = Path(sys.executable).with_name("tocsin")
    assert subprocess.check_output([str(installed), "--version"], text=True).startswith("tocsin")


def test_commands_print_errors_in_one_line(db: Db, dsn: str, tmp_path: Path) -> None:
    environ = {"TOCSIN_DATABASE_URL": dsn, "TOCSIN_DATA_DIR": str(tmp_path)}
    for arguments, words in (
        (("notify", "forum.new_repl", "alice", "--title", "x"), "forum.new_reply"),
        (("notify", "forum.new_reply", "mallory", "--title", "x"), "unknown recipient 'mallory'"),
        (("notify", "forum.new_reply", "alice", "--title", ""), "title is empty"),
        (("api-key", "create", ""), "1 to 100 characters"),
        (("api-key", "revoke", "7"), "api-key list"),
        (("why", "7"), "no such notification"),
        (("event-types", "apply", "nowhere.toml"), "nowhere.toml"),
    ):
        done = run_tocsin(*arguments, environ=environ)
        assert done.returncode == 1, done
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert words in done.stderr
        assert not done.stderr.strip().endswith("..")


async def test_a_burst_of_commits_reaches_every_stream(db: Db, dsn: str, tmp_path: Path) -> None:
    async with house(dsn, tmp_path) as home, home.person("alice") as alice:
        async with following(alice) as one, following(alice) as two:
            await one.event("badge")
            await two.event("badge")
            for _ in range(50):
                db.execute("select tocsin.notify('forum.new_thread', array['alice'], 'x')")
            for stream in (one, two):
                while await stream.event("badge") != '{"count":50,"unseen":50}':
                    pass
