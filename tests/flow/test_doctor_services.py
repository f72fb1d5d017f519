"""`tocsin doctor`: faults of the services, of the way to them, and of mail and push, each with its cure."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dns.message
import dns.rcode
import dns.rrset
import jwt
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.doctor import find, is_green, is_red, is_yellow
from tests.support.keys import PEM, PRIVATE_PEM
from tests.support.services import SECRET, free_port, mail_catcher, running, until
from tests.support.smtp_server import Scripted, raw
from tocsin.cli.doctor.examination import DoctorOptions
from tocsin.settings.keys import new_vapid_key
from tocsin.testing.apns import ApnsReply, ApnsServer, Authority, Key
from tocsin.testing.fcm import PERMISSION_DENIED, FcmServer

Db = psycopg.Connection[Any]

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
    await _faults_of_the_certificate(port, base, folder)


async def _faults_of_the_certificate(port: int, base: dict[str, Any], folder: Path) -> None:
    authority = Authority()
    trusting = base | {"ca_file": str(authority.write(folder / "ca.pem"))}
    async with proxy(port, unchanged, ssl=authority.server_context("127.0.0.1")) as front:
        url = {"public_url": f"https://127.0.0.1:{front}"}
        await is_red("stream", "certificate", "TOCSIN_CA_FILE", **base | url)
        assert "first bytes after" in await is_green("stream", **trusting | url)
    async with proxy(port, unchanged, ssl=authority.server_context("n.example")) as front:
        url = {"public_url": f"https://127.0.0.1:{front}"}
        await is_red("stream", "mismatch", "for this host name", **trusting | url)
    async with proxy(port, unchanged, ssl=ending(authority, timedelta(days=-1))) as front:
        url = {"public_url": f"https://127.0.0.1:{front}"}
        await is_red("stream", "has expired", "Renew it", **trusting | url)
    async with proxy(port, unchanged, ssl=ending(authority, timedelta(days=3))) as front:
        url = {"public_url": f"https://127.0.0.1:{front}"}
        await is_yellow("stream", "expires in 2 days", "Renew it", **trusting | url)


def ending(authority: Authority, after: timedelta) -> ssl.SSLContext:
    """A server's context with a certificate that ends then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + after).configure_cert(context)
    return context


EVENT = b'event: badge\ndata: {"count": 0}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@asynccontextmanager
async def something_between(
    stream: bytes, *, ready: bytes = b"200 OK", late: float = 0.0
) -> AsyncIterator[Any]:
    """The settings of a public URL behind which something responds to a request of a stream with these bytes.

    It holds them back for `late` seconds.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/readyz" in head.splitlines()[0]:
                what = b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                writer.write(b"HTTP/1.1 " + ready + b"\r\n" + what)
            else:
                await asyncio.sleep(late)
                writer.write(stream)
                await writer.drain()
                writer.write_eof()
                return

    async with raw(talk) as port:
        yield {"public_url": f"http://127.0.0.1:{port}", "jwt_secret": SECRET}


async def test_what_a_proxy_does_to_a_stream_is_named() -> None:
    compressed = STREAM + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(EVENT)
    async with something_between(compressed) as settings:
        await is_yellow("stream", "compressed (gzip)", "gzip off", **settings)
    async with something_between(STREAM + b"\r\n" + EVENT) as settings:
        await is_green("stream", **settings)
        patient = DoctorOptions(wait_for_heartbeat=True)
        await is_red("stream", "was cut", "proxy_read_timeout", **settings, options=patient)
    async with something_between(STREAM + b"\r\n" + EVENT, late=1.2) as settings:
        await is_yellow("stream", "The first bytes of a stream took ", "gzip off", **settings)
    failed = b"HTTP/1.1 500 Broken\r\nContent-Type: text/html\r\n\r\n"
    async with something_between(failed) as settings:
        await is_red("stream", "the status 500 and the type text/html", "unchanged", **settings)
    async with something_between(b"", ready=b"503 Unavailable") as settings:
        await is_red("stream", "is not ready", "the other checks", **settings)


async def test_a_public_url_that_is_missing_or_without_tls_is_named() -> None:
    await is_red("stream", "TOCSIN_PUBLIC_URL is not set", "https://")
    away = {"public_url": "http://notify.invalid", "jwt_secret": SECRET}
    await is_yellow("stream", "is not https", "Put a proxy with a certificate in front", **away)
    await is_red("stream", "can't be reached", "its DNS", **away)


async def test_a_slow_way_to_the_database_is_yellow(dsn: str) -> None:
    async def delayed(data: bytes) -> bytes:
        await asyncio.sleep(0.3)
        return data

    async with proxy(int(str(conninfo_to_dict(dsn)["port"])), delayed) as front:
        far = make_conninfo(dsn, port=front)
        await is_yellow("notify", "A NOTIFY took", "what is between", database_url=far)


async def test_processes_of_another_version_are_yellow(db: Db, dsn: str) -> None:
    db.execute(
        "insert into tocsin.process (process_id, kind, host, pid, version, started_at, reported_at, report)"
        " values (gen_random_uuid(), 'serve', 'host', 1, '0.0.9', now(), now(), '{}')"
    )
    await is_yellow("services", "of version 0.0.9", "one version", database_url=dsn)


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


async def test_the_certificate_of_the_mail_server_is_looked_at(tmp_path: Path) -> None:
    authority = Authority()
    settings = {"ca_file": str(authority.write(tmp_path / "ca.pem"))}
    async with raw(Scripted(), ssl=ending(authority, timedelta(days=-1))) as port:
        settings["smtp_url"] = f"smtps://127.0.0.1:{port}"
        await is_red("smtp", "certificate has expired", "Renew the mail server's", **settings)
    async with raw(Scripted(), ssl=ending(authority, timedelta(days=3))) as port:
        settings["smtp_url"] = f"smtps://127.0.0.1:{port}"
        await is_yellow("smtp", "expires in 2 days", "Renew it", **settings)
    await is_red("smtp", "can't be used", "host and port", smtp_url="smtp://mail.invalid:25")


async def test_a_template_that_fails_is_red(tmp_path: Path) -> None:
    (tmp_path / "forum.html").write_text("{% block content %}")
    await is_red("templates", "forum.html", "tocsin templates check", templates_dir=str(tmp_path))


class Zone(asyncio.DatagramProtocol):
    """A name server with these records: {(name, kind): [text]}; None: it fails."""

    def __init__(self, records: dict[tuple[str, str], list[str]] | None) -> None:
        self._records = records

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query, recursion_available=True)
        if self._records is None:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif texts := self._records.get((question.name.to_text(omit_final_dot=True), kind)):
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server(
    records: dict[tuple[str, str], list[str]] | None,
) -> AsyncIterator[DoctorOptions]:
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
    assert "Neither SPF nor DKIM authenticates" in found[-1].sentence
    records["shop.tocsin-check.de", "TXT"] = ['"v=spf1 -all"', '"v=spf1 mx -all"']
    async with name_server(records) as options:
        await is_red("dns", "2 SPF records", "Merge", options=options, **unsigned)
    records["shop.tocsin-check.de", "TXT"] = ['"v=spf1 +all"']
    async with name_server(records) as options:
        await is_yellow("dns", "allows everyone", "-all", options=options, **unsigned)


async def test_a_resolver_that_fails_is_named() -> None:
    mail = {"smtp_url": "smtp://127.0.0.1:1", "email_from": "a@shop.tocsin-check.de"}
    async with name_server(None) as options:
        await is_yellow("dns", "can't be asked", "--dns-server", options=options, **mail)


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
        await is_red(
            "apns", "is refused: unable to get local issuer", "TOCSIN_CA_FILE", **untrusted
        )
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
    await is_red("fcm", "gives no access token", "Check the network", **settings)


async def test_web_push_needs_https_and_a_contact() -> None:
    settings = {"vapid_key": new_vapid_key(), "email_from": "push@example.com"}
    right = await is_green("web_push", public_url="https://notify.example.com", **settings)
    assert "mailto:push@example.com" in right
    await is_red("web_push", "https only", "PUBLIC_URL", public_url="http://a.example", **settings)
    await is_yellow("web_push", "Apple's", "VAPID_SUBJECT", vapid_key=settings["vapid_key"])


async def test_certificates_of_apns_and_fcm_that_expired_are_red(tmp_path: Path) -> None:
    authority, key = Authority(), Key.new()
    expired = ending(authority, timedelta(days=-1))
    settings = {
        "apns_key": key.private, "apns_key_id": key.key_id, "apns_team_id": key.team_id,
        "apns_topic": "com.example.app", "ca_file": str(authority.write(tmp_path / "ca.pem")),
    }  # fmt: skip
    cause, cure = "is refused: certificate has expired", "this machine's clock"
    async with raw(Scripted(), ssl=expired) as port:
        await is_red("apns", cause, cure, **settings, apns_url=f"https://127.0.0.1:{port}")
    async with FcmServer(tls=expired) as server:
        account = {"fcm_service_account": server.service_account_json, "fcm_url": server.url}
        await is_red("fcm", f"{server.url}/token {cause}", cure, **settings, **account)
    async with FcmServer() as issuer, raw(Scripted(), ssl=expired) as port:
        account = {"fcm_service_account": issuer.service_account_json}
        url = f"https://127.0.0.1:{port}"
        await is_red("fcm", f"{url} {cause}", cure, **settings, **account, fcm_url=url)
