"""The far ends of APNs, FCM, browsers, chats and webhooks in `tocsin up`, and the files that keep what arrives.

Importing this imports all of `tocsin.testing`, which takes half a second.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_SH, flock
from io import FileIO
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.dev.supervisor import Report
from tocsin.engine.store.connection import connect
from tocsin.engine.store.target import WebhookType
from tocsin.settings.running_instance import SecretFileError, write_secret
from tocsin.sql import load
from tocsin.testing.apns import ApnsServer, Authority, Key, Received
from tocsin.testing.chats import ChatServer, Post
from tocsin.testing.far_end import WebhookEndpoint
from tocsin.testing.fcm import FcmServer, ReceivedMessage, new_private_key
from tocsin.testing.web_push import PushService, ReceivedPush

PHONES = "phones.jsonl"
KEPT = 200
SHOWN = 50  # posts of chats, and messages of the webhook

T = TypeVar("T")
Kind = Literal["alert", "badge", "background"]


class CaughtPush(Struct, frozen=True, kw_only=True):
    """One push as a phone gets it; a provider does not know the person behind the token."""

    at: datetime  # UTC
    provider: str  # apns, fcm, web_push
    token: str
    kind: Kind  # shown; only the icon's number; only to wake the app
    title: str = ""
    body: str = ""
    badge: int | None = None  # None leaves the icon as it is
    sound: str | None = None
    data: dict[str, Any] = {}
    collapse_id: str | None = None  # a later push with the same one replaces it


class PushFile:
    """Keeps pushes in a file, a line each, before the sender gets its response; from `kept` to twice as many."""

    def __init__(self, file: Path, *, kept: int = KEPT) -> None:
        self._file = file
        self._kept = kept

    def keep(self, push: CaughtPush) -> None:
        """Adds one; raises OSError."""
        with _open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT) as file:
            lines = file.readall().splitlines(keepends=True)
            if len(lines) >= 2 * self._kept - 1:
                file.truncate(0)
                file.write(b"".join(lines[1 - self._kept :]))
            elif lines and not lines[-1].endswith(b"\n"):  # a crash interrupted its write
                file.write(b"\n")
            file.write(msgspec.json.encode(push) + b"\n")


def read_pushes(file: Path, limit: int = KEPT) -> list[CaughtPush]:
    """Returns the pushes, the newest first."""
    try:
        with _open(file, os.O_RDONLY) as opened:
            lines = opened.readall().splitlines()
    except FileNotFoundError:
        return []
    return [push for line in reversed(lines[-limit:]) if (push := _parsed(line))]


def clear(file: Path) -> None:
    """Removes them all."""
    with suppress(FileNotFoundError), _open(file, os.O_RDWR) as opened:
        opened.truncate(0)


@contextmanager
def _open(file: Path, flags: int) -> Iterator[FileIO]:
    """Opens the file with a lock, since one process writes and another reads and removes; private to this user."""
    descriptor = os.open(file, flags, 0o600)
    with FileIO(descriptor, "rb" if flags == os.O_RDONLY else "r+b") as opened:
        flock(opened, LOCK_SH if flags == os.O_RDONLY else LOCK_EX)
        yield opened


def _parsed(line: bytes) -> CaughtPush | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(line, type=CaughtPush)
    return None


def from_apns(received: Received, at: datetime) -> CaughtPush:
    """Returns a push to an iPhone: `aps` is for the system, the rest for the app."""
    payload: dict[str, Any] = dict(received.payload)
    aps = _object(payload.pop("aps", None))
    alert = aps.get("alert")
    texts = {"body": alert} if isinstance(alert, str) else _object(alert)
    return CaughtPush(
        at=at,
        provider="apns",
        token=received.device,
        kind=_kind(shown=bool(texts), badge=aps.get("badge")),
        title=_text(texts.get("title")) or "",
        body=_text(texts.get("body")) or "",
        badge=_number(aps.get("badge")),
        sound=_text(aps.get("sound")),
        data=payload,
        collapse_id=received.headers.get("apns-collapse-id"),
    )


def from_fcm(arrived: ReceivedMessage) -> CaughtPush:
    """Returns a push to an Android phone, or to an iPhone through FCM, whose badge is in a block of its own."""
    message = arrived.message
    texts = _object(message.get("notification"))
    android = _object(_object(message.get("android")).get("notification"))
    aps = _object(_object(_object(message.get("apns")).get("payload")).get("aps"))
    badge = android.get("notification_count", aps.get("badge"))
    return CaughtPush(
        at=arrived.at,
        provider="fcm",
        token=arrived.token,
        kind=_kind(shown=bool(texts), badge=badge),
        title=_text(texts.get("title")) or "",
        body=_text(texts.get("body")) or "",
        badge=_number(badge),
        sound=_text(android.get("sound")) or ("default" if android.get("default_sound") else None),
        data=_object(message.get("data")),
        collapse_id=_text(android.get("tag")),
    )


def from_browser(received: ReceivedPush) -> CaughtPush:
    """Returns a push to a browser; `data` has the address that a click opens."""
    message = _object(msgspec.json.decode(received.message or b"null"))
    shown = _object(message.get("notification"))
    return CaughtPush(
        at=received.at,
        provider="web_push",
        token=received.endpoint,
        kind="alert",
        title=_text(shown.get("title")) or "",
        body=_text(shown.get("body")) or "",
        badge=_number(message.get("app_badge")),
        data=_object(shown.get("data")) | {"navigate": _text(shown.get("navigate"))},
        collapse_id=_text(shown.get("tag")),
    )


def _kind(*, shown: bool, badge: object) -> Kind:
    if shown:
        return "alert"
    return "background" if badge is None else "badge"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


FOLDER = "far-ends"
TOPIC = "org.example.tocsin"
KEY_ID, TEAM_ID = "DEMOKEY123", "DEMOTEAM12"
PROJECT_ID = "tocsin-demo"
STOP_SECONDS = 0.5
CHATS, WEBHOOKS = "chats.json", "webhooks.json"
DEMO_TARGET = "demo"  # the name of its chat target, and of its webhook
CHAT_TOPIC = "forum.thread:7"  # of the demo's replies
PUSH_SERVICE = "PUSH_SERVICE"
"""The URL of the far end of browsers, among what `tocsin up` publishes; no setting, since each endpoint has it."""


class CaughtMessage(Struct, frozen=True):
    """One message of the demo's webhook, and whether its signature is right."""

    at: datetime  # UTC
    id: str
    type: str
    data: dict[str, Any]
    verified: bool


class FarEnds:
    """One each of browsers, chats and webhooks, and at most one of APNs and of FCM.

    The constructor blocks for a moment; raises OSError and SecretFileError. The keys that Apple and Google would issue
    are made once. The certificate authority of APNs is new each time, so its key is never written to disk.
    """

    def __init__(self, data_dir: Path, *, apns: bool, fcm: bool, report: Report) -> None:
        self._pushes = PushFile(data_dir / PHONES)
        self._chats_file, self._webhooks_file = data_dir / CHATS, data_dir / WEBHOOKS
        self._report = report
        folder = data_dir / FOLDER
        if apns or fcm:
            folder.mkdir(mode=0o700, exist_ok=True)
        self._apns_key = folder / "apns-key.p8"
        self._ca_file = folder / "apns-ca.pem"
        self._fcm_key = folder / "fcm-key.pem"
        self._account = folder / "fcm-service-account.json"
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._messages: list[CaughtMessage] = []
        self._apns = self._make_apns() if apns else None
        self._fcm = self._make_fcm() if fcm else None
        self._browsers = PushService(keep=1, on_request=self._on_browser)
        self._chats = ChatServer(keep=SHOWN, on_request=self._on_chat)
        self._webhooks = WebhookEndpoint(self._secret, keep=1, on_request=self._on_webhook)

    async def start(self) -> dict[str, str]:
        """Listens on free ports of this machine; returns the settings by which each is reached."""
        for each in (self._chats, self._webhooks, self._browsers):
            await each.start()
        push_service = {PUSH_SERVICE: self._browsers.url}
        return await self._start_apns() | await self._start_fcm() | push_service

    def put_demo_targets(self, dsn: str) -> None:
        """Makes the chat target and the webhook of the demo, or gives them the addresses of this start."""
        chat = {
            "name": DEMO_TARGET,
            "chat_kind": "discord",
            "url": self._chats.url("discord", DEMO_TARGET),
            "recipient_id": None,
            "topic": CHAT_TOPIC,
        }
        webhook = {
            "name": DEMO_TARGET,
            "url": self._webhooks.url,
            "events": list(get_args(WebhookType)),
            "secrets": Jsonb([{"secret": self._secret}]),
        }
        with connect(dsn) as connection:
            connection.execute(load("target")["put_chat_target"], chat)
            connection.execute(load("demo")["put_demo_webhook"], webhook)

    async def stop(self) -> None:
        """Closes all connections."""
        ends = (self._apns, self._fcm, self._browsers, self._chats, self._webhooks)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(end.stop() for end in ends if end))

    def _make_apns(self) -> ApnsServer:
        authority = Authority()
        authority.write(self._ca_file)
        pem = _kept(self._apns_key, lambda: Key.new().private)
        try:
            key = Key(pem, KEY_ID, TEAM_ID)
            return ApnsServer(authority, key, topics={TOPIC}, keep=1, on_request=self._on_apns)
        except ValueError:
            raise _no_key(self._apns_key) from None

    def _make_fcm(self) -> FcmServer:
        pem = _kept(self._fcm_key, new_private_key)
        try:
            return FcmServer(
                project_id=PROJECT_ID, private_key=pem, keep=1, on_request=self._on_fcm
            )
        except ValueError:
            raise _no_key(self._fcm_key) from None

    async def _start_apns(self) -> dict[str, str]:
        if self._apns is None:
            return {}
        await self._apns.start()
        return {
            "TOCSIN_APNS_KEY": str(self._apns_key),
            "TOCSIN_APNS_KEY_ID": KEY_ID,
            "TOCSIN_APNS_TEAM_ID": TEAM_ID,
            "TOCSIN_APNS_TOPIC": TOPIC,
            "TOCSIN_APNS_URL": self._apns.url,
            "TOCSIN_APNS_CA_FILE": str(self._ca_file),
        }

    async def _start_fcm(self) -> dict[str, str]:
        if self._fcm is None:
            return {}
        await self._fcm.start()
        # written each time, since it names the port of the token endpoint
        write_secret(self._account, self._fcm.service_account_json.encode())
        return {
            "TOCSIN_FCM_SERVICE_ACCOUNT": str(self._account),
            "TOCSIN_FCM_URL": self._fcm.url,
        }

    def _on_apns(self, received: Received) -> None:
        if received.status == 200:
            self._keep_push(from_apns(received, datetime.now(UTC)))

    def _on_fcm(self, arrived: ReceivedMessage) -> None:
        if arrived.result == 200:
            self._keep_push(from_fcm(arrived))

    def _on_browser(self, received: ReceivedPush) -> None:
        if received.result == 201:
            self._keep_push(from_browser(received))

    def _keep_push(self, push: CaughtPush) -> None:
        with self._reporting(PHONES):
            self._pushes.keep(push)

    def _on_chat(self, _: Post) -> None:
        with self._reporting(CHATS):
            _replace(self._chats_file, self._chats.posts)

    def _on_webhook(self, request: tuple[dict[str, str], bytes]) -> None:
        headers, body = request
        sent = msgspec.json.decode(body, type=dict[str, Any])
        verified = self._webhooks.verified(headers, body)
        message = CaughtMessage(
            datetime.now(UTC), headers["webhook-id"], sent["type"], sent["data"], verified
        )
        self._messages = [*self._messages, message][-SHOWN:]
        with self._reporting(WEBHOOKS):
            _replace(self._webhooks_file, self._messages)

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        """Reports a file that can't be written: what was sent did arrive; only the demo page can't show it."""
        try:
            yield
        except OSError as error:
            self._report(f"{name} can't be written: {error.strerror}")


def _replace(file: Path, shown: Sequence[Struct]) -> None:
    written = file.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(shown))
    written.replace(file)


def read_posts(data_dir: Path) -> list[Post]:
    """Returns the posts to chats, the newest first."""
    return _read(data_dir / CHATS, Post)


def read_messages(data_dir: Path) -> list[CaughtMessage]:
    """Returns the messages of the demo's webhook, the newest first."""
    return _read(data_dir / WEBHOOKS, CaughtMessage)


def _read(file: Path, kind: type[T]) -> list[T]:
    with suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode(file.read_bytes(), type=list[kind])[::-1]  # type: ignore[valid-type]
    return []


def _kept(file: Path, make: Callable[[], str]) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        made = make()
        write_secret(file, made.encode())
        return made
    except UnicodeDecodeError:
        raise _no_key(file) from None


def _no_key(file: Path) -> SecretFileError:
    return SecretFileError(f"{file} holds no key: start over with make reset")
