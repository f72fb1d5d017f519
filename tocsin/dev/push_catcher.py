"""The far ends of APNs, FCM, browsers and chats in `tocsin up`, and the file that keeps what arrives for the demo.

Importing this imports all of `tocsin.testing`, which takes half a second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_SH, flock
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tocsin.dev.chat_catcher import ChatCatcher
from tocsin.dev.supervisor import Report
from tocsin.dev.webhook_catcher import WebhookCatcher
from tocsin.settings.running_instance import SecretFileError, write_secret
from tocsin.testing.apns import ApnsServer, Authority, Key, Received
from tocsin.testing.fcm import FcmServer, ReceivedMessage, new_private_key
from tocsin.testing.web_push import PushService, ReceivedPush

FILE = "phones.jsonl"
KEPT = 200

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
PUSH_SERVICE = "PUSH_SERVICE"
"""The URL of the far end of browsers, among what `tocsin up` publishes; no setting, since each endpoint has it."""


class FarEnds:
    """One each of browsers, chats and webhooks, and at most one of APNs and of FCM.

    The constructor blocks for a moment; raises OSError and SecretFileError. The keys that Apple and Google would issue
    are made once. The certificate authority of APNs is new each time, so its key is never written to disk.
    """

    def __init__(self, data_dir: Path, *, apns: bool, fcm: bool, report: Report) -> None:
        self._pushes = PushFile(data_dir / FILE)
        self._report = report
        folder = data_dir / FOLDER
        if apns or fcm:
            folder.mkdir(mode=0o700, exist_ok=True)
        self._apns_key = folder / "apns-key.p8"
        self._ca_file = folder / "apns-ca.pem"
        self._fcm_key = folder / "fcm-key.pem"
        self._account = folder / "fcm-service-account.json"
        self._chats = ChatCatcher(data_dir, report=report)
        self._webhooks = WebhookCatcher(data_dir, report=report)
        self._apns = self._make_apns() if apns else None
        self._fcm = self._make_fcm() if fcm else None
        self._browsers = PushService(keep=1, on_request=self._on_browser)

    async def start(self) -> dict[str, str]:
        """Listens on free ports of this machine; returns the settings by which each is reached."""
        await self._chats.start()
        await self._webhooks.start()
        await self._browsers.start()
        push_service = {PUSH_SERVICE: self._browsers.url}
        return await self._start_apns() | await self._start_fcm() | push_service

    def put_demo_targets(self, dsn: str) -> None:
        """Makes the chat target and the webhook of the demo."""
        self._chats.put_demo_target(dsn)
        self._webhooks.put_demo_target(dsn)

    async def stop(self) -> None:
        """Closes all connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                ends = (self._apns, self._fcm, self._browsers, self._chats, self._webhooks)
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
            self._keep(from_apns(received, datetime.now(UTC)))

    def _on_fcm(self, arrived: ReceivedMessage) -> None:
        if arrived.result == 200:
            self._keep(from_fcm(arrived))

    def _on_browser(self, received: ReceivedPush) -> None:
        if received.result == 201:
            self._keep(from_browser(received))

    def _keep(self, push: CaughtPush) -> None:
        try:
            self._pushes.keep(push)
        except OSError as error:  # the push did arrive; only the demo page can't show it
            self._report(f"{FILE} can't be written: {error.strerror}")


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
