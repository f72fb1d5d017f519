"""`tocsin doctor`: each fault that it can see makes its check red, with the cure; where all is well, none is."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
import zoneinfo
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dns.message
import dns.rrset
import jwt
import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from tests.support.keys import PEM, PRIVATE_PEM
from tests.support.services import (
    SECRET,
    SERVICE_LOGIN,
    free_port,
    mail_catcher,
    running,
    service_dsn,
    until,
)
from tests.support.smtp_server import Scripted, raw
from tocsin.cli import main
from tocsin.cli.doctor import run_checks
from tocsin.cli.doctor.checks import CHECKS
from tocsin.cli.doctor.database import compare_session
from tocsin.cli.doctor.examination import DoctorOptions, Finding
from tocsin.cli.doctor.schema import (
    FreeConnections,
    Replication,
    judge_connections,
    judge_replication,
)
from tocsin.testing.apns import ApnsReply, ApnsServer, Authority
from tocsin.testing.apns_rules import Key
from tocsin.testing.fcm import PERMISSION_DENIED, FcmServer

Db = psycopg.Connection[Any]


async def find(name: str, options: DoctorOptions | None = None, **settings: Any) -> list[Finding]:
    """What one check finds with these settings and no others."""
    environ = {f"TOCSIN_{key.upper()}": value for key, value in settings.items()}
    environ.setdefault("TOCSIN_DATA_DIR", "/nonexistent")
    ((_, found),) = await run_checks(environ, options or DoctorOptions(), [name])
    return found


async def is_red(name: str, sentence: str, cure: str, **settings: Any) -> None:
    """The check is red, once, with these words in its sentence and its cure."""
    found = [each for each in await find(name, **settings) if each.status == "red"]
    assert len(found) == 1, found
    assert sentence in found[0].sentence
    assert cure in found[0].cure


async def is_yellow(name: str, sentence: str, cure: str, **settings: Any) -> None:
    found = [each for each in await find(name, **settings) if each.status == "yellow"]
    assert any(sentence in each.sentence and cure in each.cure for each in found), found


async def is_green(name: str, **settings: Any) -> str:
    found = await find(name, **settings)
    assert [each.status for each in found] == ["green"], found
    return found[0].sentence


# == The settings ==


async def test_wrong_settings_are_named_and_the_rest_is_checked() -> None:
    await is_red("settings", "TOCSIN_PORT must be a whole number", "docs/settings.md", port="99999")
    wrong = await find("settings", port="99999", jwt_secret="short", smpt_url="x")
    assert sum(each.status == "red" for each in wrong) == 2
    assert "Did you mean TOCSIN_SMTP_URL?" in {each.cure for each in wrong}
    await is_green("templates", port="99999")
    assert "Python 3." in await is_green("settings", port="8000")


# == The database ==


async def test_a_database_that_is_away_is_named_and_the_rest_is_checked() -> None:
    url = f"postgresql://a:b@127.0.0.1:{free_port()}/app"
    await is_red("database", "refused", "Start PostgreSQL", database_url=url)
    await is_red("database", "is not set", "Set TOCSIN_DATABASE_URL=")
    found = dict(
        await run_checks(
            {"TOCSIN_DATABASE_URL": url, "TOCSIN_DATA_DIR": "/nonexistent"}, DoctorOptions()
        )
    )
    assert found.keys() == {check.name for check in CHECKS}
    needing = {check.name for check in CHECKS if check.needs}
    assert {found[name][0].status for name in needing} == {"skipped"}
    assert found["templates"][0].status == "green"


async def test_a_refused_login_and_a_missing_database_have_their_cure(dsn: str) -> None:
    wrong = make_conninfo(dsn, password="wrong")
    await is_red(
        "database", "password authentication failed", "user and password", database_url=wrong
    )
    missing = make_conninfo(dsn, dbname="no_such_database")
    await is_red("database", "does not exist", "Create it", database_url=missing)


async def test_a_database_as_it_should_be_is_green(dsn: str) -> None:
    dsn = service_dsn(dsn)
    for name in (
        "requirements",
        "session",
        "schema",
        "rights",
        "notify",
        "clock",
        "transactions",
        "publications",
    ):
        await is_green(name, database_url=dsn)
    assert SERVICE_LOGIN in await is_green("database", database_url=dsn)
    assert "standby" in (await find("replication", database_url=dsn))[0].sentence


@pytest.fixture
def other(server_dsn: str) -> Iterator[str]:
    """A database that this test may spoil."""
    name = f"spoilt_{os.getpid()}"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(
            f"create database {name} template template0 encoding 'SQL_ASCII' locale 'C'".encode()
        )
        yield make_conninfo(server_dsn, dbname=name)
        admin.execute(f"drop database {name} with (force)".encode())


async def test_another_encoding_and_a_missing_schema_are_red(other: str) -> None:
    await is_red(
        "requirements",
        "encoding is SQL_ASCII",
        "create one with encoding 'UTF8'",
        database_url=other,
    )
    await is_red("schema", "is not migrated", "tocsin migrate", database_url=other)
    assert (await find("services", database_url=other))[0].status == "skipped"


@pytest.mark.parametrize(
    ("statement", "sentence", "cure"),
    [
        (
            "delete from tocsin.migration where name like '0001%%'",
            "earlier version",
            "tocsin migrate",
        ),
        (
            "insert into tocsin.migration (name, checksum) values ('9999_x.sql', '')",
            "newer",
            "Install",
        ),
        (
            "update tocsin.migration set checksum = '' where name = 'functions'",
            "earlier version",
            "tocsin migrate",
        ),
        (
            "insert into tocsin.unread_delta (recipient_id, n, xid) values ('a', 1, '999999999999')",
            "restored",
            "tocsin migrate",
        ),
    ],
)
async def test_a_schema_of_another_version_is_red(
    db: Db, dsn: str, statement: str, sentence: str, cure: str
) -> None:
    db.execute(statement.encode())
    await is_red("schema", sentence, cure, database_url=dsn)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("revoke usage on schema tocsin from tocsin_app", "tocsin_app may not execute notify()"),
        (
            "revoke insert on tocsin.delivery from tocsin_service",
            "tocsin_service lacks rights on 1 tables",
        ),
        (
            "grant execute on function tocsin.cancel(bigint) to public",
            "Everyone may execute 1 functions",
        ),
        (
            "alter function tocsin.cancel(bigint) reset search_path",
            "without a search_path of its own",
        ),
    ],
)
async def test_lost_rights_are_red(db: Db, dsn: str, statement: str, sentence: str) -> None:
    db.execute(statement.encode())
    await is_red("rights", sentence, "tocsin migrate", database_url=dsn)


async def test_a_role_without_rights_is_red(db: Db, dsn: str) -> None:
    role = f"stranger_{os.getpid()}"
    db.execute(f"create role {role} login password 'stranger'".encode())
    try:
        url = make_conninfo(dsn, user=role, password="stranger")
        await is_red(
            "rights",
            f"{role} of TOCSIN_DATABASE_URL may not use",
            "grant tocsin_service to",
            database_url=url,
        )
        await is_red("schema", "may not read", "tocsin_service", database_url=url)
    finally:
        db.execute(f"drop role {role}".encode())


async def test_settings_that_keep_apps_from_notifying_are_yellow(db: Db, dsn: str) -> None:
    name = db.info.dbname
    db.execute(f"alter database {name} set default_transaction_read_only = on".encode())
    try:
        await is_yellow(
            "session",
            "default_transaction_read_only=on",
            f"alter database {name} reset",
            database_url=dsn,
        )
    finally:
        with psycopg.connect(
            dsn, autocommit=True, options="-c default_transaction_read_only=off"
        ) as own:
            own.execute(f"alter database {name} reset default_transaction_read_only".encode())


def test_a_session_that_something_resets_is_red() -> None:
    (found,) = compare_session({"DateStyle": "SQL, DMY"})
    assert found.status == "red"
    assert "DateStyle = SQL, DMY" in found.sentence
    assert "pool_mode = session" in found.cure


async def test_too_few_connections_are_red(db: Db, dsn: str) -> None:
    url = service_dsn(dsn)
    db.execute(f"alter role {SERVICE_LOGIN} connection limit 20".encode())
    try:
        await is_red(
            "connections",
            "more connections are possible, and services need 40",
            "max_connections",
            database_url=url,
        )
    finally:
        db.execute(f"alter role {SERVICE_LOGIN} connection limit -1".encode())


def test_room_for_connections_is_judged_by_what_runs_already() -> None:
    row = FreeConnections(
        possible=97,
        used=67,
        role_limit=None,
        used_by_role=40,
        database_limit=None,
        used_in_database=60,
    )
    assert judge_connections(row, set()).status == "red"
    assert judge_connections(row, {"serve"}).status == "yellow"
    assert judge_connections(row, {"serve", "worker"}).status == "green"


async def test_a_transaction_that_is_open_for_long_is_yellow(dsn: str) -> None:
    with psycopg.connect(dsn, application_name="shop") as app:
        app.execute("select 1")
        pid = app.info.backend_pid
        options = DoctorOptions(long_transaction=timedelta(0))
        await is_yellow(
            "transactions",
            "(shop)",
            f"pg_terminate_backend({pid})",
            database_url=dsn,
            options=options,
        )


async def test_a_publication_that_blocks_changes_is_red(db: Db, dsn: str) -> None:
    db.execute("create publication everything for table tocsin.lease")
    await is_yellow("publications", "with people's addresses", "your app alone", database_url=dsn)
    db.execute("alter table tocsin.lease replica identity nothing")
    await is_red(
        "publications", "refuses changes of lease", "replica identity full", database_url=dsn
    )


def test_a_standby_that_is_missing_or_late_and_an_abandoned_slot_are_found() -> None:
    def judged(**changed: Any) -> list[tuple[str, str]]:
        fine: dict[str, Any] = {
            "needs_standby": False, "waits": True, "synchronous": 0, "standbys": 1, "lag": 0.1, "abandoned_slots": None
        }  # fmt: skip
        return [
            (each.status, each.cure) for each in judge_replication(Replication(**fine | changed))
        ]

    assert judged() == [("green", "")]
    assert judged(needs_standby=True)[0] == (
        "red",
        "Start the standby, or reset synchronous_standby_names.",
    )
    assert judged(lag=60.0)[0][0] == "yellow"
    assert judged(abandoned_slots=["old"])[0][1].endswith("pg_drop_replication_slot('old');")


async def test_clocks_that_differ_are_yellow_and_then_red(dsn: str) -> None:
    late = DoctorOptions(clock=lambda: time.time() - 10)
    await is_yellow(
        "clock", "PostgreSQL's clock is 10 s ahead", "NTP", database_url=dsn, options=late
    )
    early = DoctorOptions(clock=lambda: time.time() + 100)
    await is_red(
        "clock", "PostgreSQL's clock is 100 s behind", "NTP", database_url=dsn, options=early
    )


def doctor(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command itself, with these settings and no others."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {
        name if name.isupper() else f"TOCSIN_{name.upper()}": value
        for name, value in settings.items()
    }
    command = [sys.executable, "-m", "tocsin", "doctor", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)


def test_other_rules_of_time_zones_in_python_are_yellow(dsn: str, tmp_path: Path) -> None:
    utc = next(
        Path(folder, "UTC")
        for folder in (*zoneinfo.TZPATH, *_tzdata())
        if Path(folder, "UTC").exists()
    )
    (tmp_path / "Africa").mkdir()
    (tmp_path / "Africa" / "Addis_Ababa").write_bytes(utc.read_bytes())
    done = doctor(
        "zones", "--json", database_url=dsn, data_dir=str(tmp_path), PYTHONTZPATH=str(tmp_path)
    )
    rows = json.loads(done.stdout)["checks"]
    assert any(
        "Africa/Addis_Ababa" in row["sentence"] and "tzdata" in row["cure"] for row in rows
    ), rows
    assert {row["status"] for row in rows} == {"yellow"}
    assert done.returncode == 0


def _tzdata() -> list[str]:
    """The folder of the package tzdata, where it is installed."""
    package = importlib.util.find_spec("tzdata")
    return [
        str(Path(each, "zoneinfo"))
        for each in (package and package.submodule_search_locations) or ()
    ]


async def test_a_database_that_can_not_be_written_to_is_red(db: Db, dsn: str) -> None:
    url = service_dsn(dsn)
    assert (await find("storage", database_url=url))[-1].status in (
        "green",
        "yellow",
    )  # fsync is off in tests
    db.execute("alter table tocsin.attempt set unlogged")
    await is_red("storage", "unlogged: attempt", "set logged", database_url=url)
    db.execute("alter table tocsin.attempt set logged")
    db.execute("revoke insert on tocsin.idempotency from tocsin_service")
    await is_red("storage", "can't be written to", "PostgreSQL's log", database_url=url)


# == The services ==


def proxy(
    port: int, change: Callable[[bytes], Awaitable[bytes | None]], **listen: Any
) -> AbstractAsyncContextManager[int]:
    """A reverse proxy by TCP in front of a port; what comes back goes through `change` (None: is held back)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while data := await reader.read(65_536):
                upstream.write(data)

        task = asyncio.create_task(forth())
        try:
            while data := await upstream_reader.read(65_536):
                if changed := await change(data):
                    writer.write(changed)
                    await writer.drain()
        finally:
            task.cancel()
            upstream.transport.abort()

    return raw(talk, **listen)


async def unchanged(data: bytes) -> bytes:
    return data


async def test_an_installation_that_runs_is_green_and_faults_on_the_way_to_it_are_red(
    dsn: str, tmp_path: Path
) -> None:
    port = free_port()
    base: dict[str, Any] = {
        "database_url": dsn,
        "public_url": f"http://127.0.0.1:{port}",
        "jwt_secret": SECRET,
        "port": str(port),
    }
    await is_red("services", "No worker is running", "Start `tocsin worker`", **base)
    await is_red("stream", "can't be reached", "Start `tocsin serve`", **base)
    async with (
        mail_catcher(tmp_path / "mail") as mails,
        running("serve", log=tmp_path / "serve.log", settings=base) as serve,
        running(
            "worker",
            log=tmp_path / "worker.log",
            settings=base | {"smtp_url": f"smtp://127.0.0.1:{mails.port}"},
        ),
    ):

        async def is_ready() -> bool:
            found = [*await find("stream", **base), *await find("services", **base)]
            return all(each.status == "green" for each in found)

        await until(is_ready)
        assert "1 serve, 1 worker running" in await is_green("services", **base)
        other_key = base | {"jwt_secret": SECRET[::-1]}
        await is_red("stream", "refuses a token", "same TOCSIN_JWT_", **other_key)
        await _faults_on_the_way(port, base, tmp_path)
        await serve.stop()
    (each,) = [one for one in await find("services", **base) if "No HTTP process" in one.sentence]
    assert each.cure == "Start `tocsin serve`."


async def _faults_on_the_way(port: int, base: dict[str, Any], folder: Path) -> None:
    held = False

    async def holds_streams(data: bytes) -> bytes | None:
        nonlocal held
        held = held or b"text/event-stream" in data
        return None if held else data

    async def loses_the_service(data: bytes) -> bytes:
        return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"

    async def redirects(data: bytes) -> bytes:
        return b"HTTP/1.1 301 Moved\r\nLocation: https://n.example/\r\nContent-Length: 0\r\n\r\n"

    async def is_another(data: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"

    for change, sentence, cure in (
        (holds_streams, "no first bytes", "proxy_buffering off"),
        (loses_the_service, "no service behind it", "the proxy's upstream"),
        (redirects, "redirects to https://n.example/", "Set TOCSIN_PUBLIC_URL"),
        (is_another, "is not Tocsin's", "path prefix"),
    ):
        async with proxy(port, change) as front:
            await is_red(
                "stream", sentence, cure, **base | {"public_url": f"http://127.0.0.1:{front}"}
            )
    authority = Authority()
    ca_file = authority.write(folder / "ca.pem")
    async with proxy(port, unchanged, ssl=authority.server_context("127.0.0.1")) as front:
        secure = base | {"public_url": f"https://127.0.0.1:{front}"}
        await is_red("stream", "certificate", "TOCSIN_CA_FILE", **secure)
        found = await find("stream", **secure, ca_file=str(ca_file))
        assert all(each.status in ("green", "yellow") for each in found), found


async def test_keys_for_tokens_are_tried() -> None:
    await is_red("tokens", "No JWT key is set", "TOCSIN_JWT_SECRET")
    url = f"http://127.0.0.1:{free_port()}/jwks.json"
    await is_red("tokens", "can't be read", "TOCSIN_JWKS_URL", jwks_url=url)
    token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, PRIVATE_PEM, "ES256")
    await is_green("tokens", jwt_public_key=PEM, options=DoctorOptions(token=token))
    await is_red(
        "tokens",
        "is refused",
        "docs/http.md",
        jwt_secret=SECRET,
        options=DoctorOptions(token=token),
    )


# == Mail ==


@pytest.mark.parametrize(
    ("odd", "url", "sentence", "cure"),
    [
        (
            {"CONNECT": "554 no service here"},
            "smtp://127.0.0.1:{}",
            "554 no service here",
            "host and port",
        ),
        ({"CONNECT": None}, "smtp://127.0.0.1:{}", "smtp_disconnected_connect", "host and port"),
        (
            {"EHLO": "250-x\r\n250 AUTH PLAIN", "AUTH": "535 5.7.8 wrong"},
            "smtp://a:b@127.0.0.1:{}",
            "535 5.7.8 wrong",
            "user and password",
        ),
        ({}, "smtp://127.0.0.1:{}?starttls=always", "STARTTLS is not offered", "starttls=auto"),
        ({}, "smtp://a:b@127.0.0.1:{}", "smtp_auth_not_offered", "user and password"),
        ({}, "smtps://127.0.0.1:{}", "smtp_tls_failed", "host and port"),
        (
            {"MAIL": "553 5.7.1 not your address"},
            "smtp://127.0.0.1:{}",
            "553 5.7.1 not your address",
            "",
        ),
    ],
)
async def test_a_mail_server_that_refuses_is_red(
    odd: dict[str, str | None], url: str, sentence: str, cure: str
) -> None:
    async with raw(Scripted(**odd)) as port:
        await is_red("smtp", sentence, cure, smtp_url=url.format(port))


async def test_a_mail_server_that_takes_mail_is_green_and_gets_none(tmp_path: Path) -> None:
    server = Scripted()
    async with raw(server) as port:
        assert "takes mail from" in await is_green("smtp", smtp_url=f"smtp://127.0.0.1:{port}")
    assert "DATA" not in server.commands
    async with raw(Scripted(EHLO="250-x\r\n250 SIZE 10000")) as port:
        await is_yellow("smtp", "10,000 bytes", "1 MB", smtp_url=f"smtp://127.0.0.1:{port}")
    await is_yellow("smtp", "no_provider", "Set it")


async def test_a_template_that_fails_is_red(tmp_path: Path) -> None:
    (tmp_path / "forum.html").write_text("{% block content %}")
    await is_red("templates", "forum.html", "tocsin templates check", templates_dir=str(tmp_path))


class Zone(asyncio.DatagramProtocol):
    """A name server with these records: {(name, kind): [text]}."""

    def __init__(self, records: dict[tuple[str, str], list[str]]) -> None:
        self._records = records

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query, recursion_available=True)
        if texts := self._records.get((question.name.to_text(omit_final_dot=True), kind)):
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server(records: dict[tuple[str, str], list[str]]) -> AsyncIterator[DoctorOptions]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Zone(records), local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    try:
        yield DoctorOptions(dns_server=f"{host}:{port}")
    finally:
        transport.close()


async def test_the_domain_of_the_sender_is_looked_up(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = (
        Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
    )
    settings = {
        "smtp_url": "smtp://127.0.0.1:1",
        "email_from": "a@shop.tocsin-check.de",
        "dkim_key": key,
        "dkim_selector": "s1",
    }
    records = {
        ("shop.tocsin-check.de", "MX"): ["10 mx.tocsin-check.de."],
        ("shop.tocsin-check.de", "TXT"): ['"other=1"', '"v=spf1 mx " "-all"'],
        ("_dmarc.tocsin-check.de", "TXT"): ['"v=DMARC1; p=reject"'],
    }
    async with name_server(records) as options:
        (missing,) = [
            each for each in await find("dns", options=options, **settings) if each.status == "red"
        ]
    assert "s1._domainkey.shop.tocsin-check.de has no DKIM record" in missing.sentence
    record = missing.cure.split('"')[1]
    records["s1._domainkey.shop.tocsin-check.de", "TXT"] = [f'"{record}"']
    async with name_server(records) as options:
        await is_green("dns", options=options, **settings)
    records["s1._domainkey.shop.tocsin-check.de", "TXT"] = ['"v=DKIM1; p=AAAA"']
    async with name_server(records) as options:
        await is_red("dns", "is of another key", "Let its p= be", options=options, **settings)
    unsigned = {name: value for name, value in settings.items() if not name.startswith("dkim")}
    async with name_server({}) as options:
        found = await find("dns", options=options, **unsigned)
    assert [each.status for each in found].count("red") == 2
    assert "Neither SPF nor DKIM vouches" in found[-1].sentence
    records["shop.tocsin-check.de", "TXT"] = ['"v=spf1 -all"', '"v=spf1 mx -all"']
    async with name_server(records) as options:
        await is_red("dns", "2 SPF records", "Merge", options=options, **unsigned)
    records["shop.tocsin-check.de", "TXT"] = ['"v=spf1 +all"']
    async with name_server(records) as options:
        await is_yellow("dns", "allows everyone", "-all", options=options, **unsigned)


async def test_a_sender_outside_of_the_public_dns_is_not_looked_up() -> None:
    (found,) = await find("dns", smtp_url="smtp://127.0.0.1:1", email_from="a@localhost")
    assert found.status == "skipped"


# == Push ==


async def test_apns_is_asked_whether_it_accepts_the_key(tmp_path: Path) -> None:
    authority, key = Authority(), Key.new()
    settings = {
        "apns_key": key.private, "apns_key_id": key.key_id, "apns_team_id": key.team_id,
        "apns_topic": "com.example.app", "apns_ca_file": str(authority.write(tmp_path / "ca.pem")),
    }  # fmt: skip
    async with ApnsServer(authority, key, topics={"com.example.app"}) as server:
        settings["apns_url"] = server.url
        assert "accepts the key" in await is_green("apns", **settings)
        assert len(server.received) == 1
        wrong = settings | {"apns_key": Key.new().private}
        await is_red("apns", "refuses the key", "TOCSIN_APNS_KEY_ID", **wrong)
        server.default = ApnsReply(400, "TopicDisallowed")
        await is_red("apns", "refuses the topic", "TOCSIN_APNS_TOPIC", **settings)
        server.default = ApnsReply(503, "ServiceUnavailable")
        await is_yellow("apns", "out of order", "Wait", **settings)
        untrusted = {name: value for name, value in settings.items() if name != "apns_ca_file"}
        await is_red("apns", "apns_tls_failed", "TOCSIN_CA_FILE", **untrusted)
    await is_red("apns", "apns_connect_refused", "", **settings)


async def test_fcm_is_asked_whether_it_accepts_the_account() -> None:
    async with FcmServer() as server:
        settings = {"fcm_service_account": server.service_account_json, "fcm_url": server.url}
        assert "accepts the account" in await is_green("fcm", **settings)
        server.script.always(server.script.EVERY, PERMISSION_DENIED)
        await is_red("fcm", "refuses the account", "with the role to send", **settings)
        other = server.service_account | {"client_email": f"{uuid4().hex}@x.example"}
        await is_red(
            "fcm",
            "gives no access token",
            "Was its key deleted?",
            **settings | {"fcm_service_account": json.dumps(other)},
        )
    await is_red("fcm", "gives no access token", "", **settings)


# == The command ==


def test_the_command_prints_each_check_and_exits_with_1_where_one_is_red(tmp_path: Path) -> None:
    done = doctor("settings", "tokens", data_dir=str(tmp_path), port="99999")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("red     settings      TOCSIN_PORT must be")
    assert "→ Set TOCSIN_JWT_SECRET" in done.stdout
    assert done.stdout.endswith("2 of 2 checks are red.\n")
    unknown = CliRunner().invoke(main, ["doctor", "nonsense"])
    assert "there is no check 'nonsense'" in unknown.output


def test_the_docs_list_each_check() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text("utf-8")
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in text.splitlines()
        if line.startswith("| `") and " | " in line
    )
    assert {f"`{check.name}`": check.purpose for check in CHECKS}.items() <= rows.items()
