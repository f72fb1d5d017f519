"""The mail catcher of `tocsin up`: it receives by real SMTP, and returns files and dicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
import pytest_asyncio

from tocsin.dev.mail_catcher import MailCatcher, clear, read_mail, read_mails


@pytest_asyncio.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[MailCatcher]:
    box = MailCatcher(tmp_path / "mailbox", max_bytes=50_000)
    await box.start()
    yield box
    await box.stop()


def mail(
    subject: str = "Hello", text: str = "Plain\n", html: str | None = "<p>Rich</p>\n"
) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Tocsin <notifications@example.com>"
    message["To"] = "Alice <alice@example.com>"
    message["Subject"] = subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


async def send(mailbox: MailCatcher, content: EmailMessage | bytes, *recipients: str) -> None:
    sender = "bounce+1@example.com"
    to = list(recipients) or ["alice@example.com"]
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=mailbox.port, start_tls=False) as client:
        if isinstance(content, bytes):
            await client.sendmail(sender, to, content)
        else:
            await client.send_message(content, sender=sender, recipients=to)


async def test_a_mail_is_kept_before_the_sender_gets_a_reply(mailbox: MailCatcher) -> None:
    await send(mailbox, mail(), "alice@example.com", "bob@example.com")

    [kept] = read_mails(mailbox.folder)
    assert kept["from"] == "notifications@example.com"
    assert kept["to"] == ["alice@example.com", "bob@example.com"]
    assert kept["subject"] == "Hello"
    assert kept["text"] == "Plain\n"
    assert kept["html"] == "<p>Rich</p>\n"
    assert kept["headers"]["From"] == "Tocsin <notifications@example.com>"
    assert kept["envelope_from"] == "bounce+1@example.com"
    assert kept["received_at"].endswith("Z")
    assert read_mail(mailbox.folder, kept["id"]) == kept
    assert [path for path in mailbox.folder.iterdir() if path.suffix == ".tmp"] == []


async def test_the_newest_mail_comes_first_and_the_limit_holds(mailbox: MailCatcher) -> None:
    for number in range(5):
        await send(mailbox, mail(f"Mail {number}"))

    subjects = [kept["subject"] for kept in read_mails(mailbox.folder, limit=3)]
    assert subjects == ["Mail 4", "Mail 3", "Mail 2"]
    assert clear(mailbox.folder) == 5
    assert list(mailbox.folder.iterdir()) == []


async def test_foreign_letters_arrive_in_headers_bodies_and_addresses(mailbox: MailCatcher) -> None:
    await send(mailbox, mail("Übergröße 🎉", "Grüße\n", "<p>日本</p>\n"), "jörg@exämple.com")

    [kept] = read_mails(mailbox.folder)
    assert (kept["subject"], kept["text"], kept["html"]) == (
        "Übergröße 🎉",
        "Grüße\n",
        "<p>日本</p>\n",
    )
    assert kept["to"] == ["jörg@exämple.com"]
    assert kept["headers"]["Subject"] == "Übergröße 🎉"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no headers at all",
        b"Subject: =?utf-8?b?!!!?=\r\n\r\n\xff\xfe",
        b"Content-Type: text/plain; charset=klingon\r\n\r\nhello",
        b"Content-Type: multipart/alternative\r\n\r\nno boundary",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n<p>cut",
        b"From: <<<>>\r\nTo: ,;:\r\nSubject: \xff\xff\r\nMessage-ID: <\r\nDate: never\r\n\r\nhi",
        b"Content-Transfer-Encoding: base64\r\nContent-Type: text/plain\r\n\r\n%%%",
        b"A: b\r\n" * 2000 + b"\r\nhello",
    ],
)
async def test_broken_mail_is_kept_and_read_as_well_as_it_goes(
    mailbox: MailCatcher, broken: bytes
) -> None:
    await send(mailbox, broken)
    await send(mailbox, mail("After it"))

    after, kept = read_mails(mailbox.folder)
    assert after["subject"] == "After it"
    assert kept["to"] == ["alice@example.com"]
    assert all(isinstance(kept[key], str) for key in ("from", "subject", "text", "html"))
    "".join(kept["headers"].values()).encode()  # no half characters that JSON can't hold


async def test_repeated_headers_are_all_there(mailbox: MailCatcher) -> None:
    await send(mailbox, b"Received: one\r\nReceived: two\r\nSubject: x\r\n\r\nhello")

    [kept] = read_mails(mailbox.folder)
    assert kept["headers"]["Received"] == "one\ntwo"


async def test_an_attachment_is_not_the_body(mailbox: MailCatcher) -> None:
    message = mail(html=None)
    message.add_attachment("a,b\n", subtype="html", filename="data.html")
    await send(mailbox, message)

    [kept] = read_mails(mailbox.folder)
    assert (kept["text"], kept["html"]) == ("Plain\n", "")


async def test_a_mail_that_is_too_large_is_refused(mailbox: MailCatcher) -> None:
    with pytest.raises(aiosmtplib.SMTPResponseException) as caught:
        await send(mailbox, mail(text="x" * 60_000 + "\n"))

    assert caught.value.code == 552
    assert read_mails(mailbox.folder) == []


async def test_only_the_newest_mails_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.dev.mail_catcher.PRUNE_EVERY", 4)
    box = MailCatcher(tmp_path, kept=2)
    await box.start()
    for number in range(4):
        await send(box, mail(f"Mail {number}"))
    await box.stop()

    assert [kept["subject"] for kept in read_mails(tmp_path)] == ["Mail 3", "Mail 2"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("mail_id", ["../secrets", "nope", "", "a/b", "."])
def test_no_other_file_can_be_read_as_a_mail(tmp_path: Path, mail_id: str) -> None:
    (tmp_path / "secrets.eml").write_text("secret")

    assert read_mail(tmp_path / "mailbox", mail_id) is None
    assert read_mails(tmp_path / "nowhere") == []


async def test_a_sender_that_hangs_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    box = MailCatcher(tmp_path)
    await box.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    await reader.readline()
    writer.write(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\n")

    async with asyncio.timeout(60):  # and not the five minutes of an idle session
        await box.stop()
        with suppress(ConnectionResetError):
            await reader.read()
    writer.close()


async def test_many_mails_at_once_are_all_kept(mailbox: MailCatcher) -> None:
    async def one(number: int) -> None:
        await send(mailbox, mail(f"Mail {number}"))

    await asyncio.gather(*(one(number) for number in range(40)))

    assert len({kept["subject"] for kept in read_mails(mailbox.folder)}) == 40
