"""The demo's webhook in `tocsin up`, which is sent all that happens; a file keeps what it received."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct
from psycopg.types.json import Jsonb

from tocsin.dev.supervisor import Report
from tocsin.engine.store.connection import connect
from tocsin.engine.store.webhook import WebhookType
from tocsin.sql import load
from tocsin.testing.webhooks import WebhookEndpoint

FILE = "webhooks.json"
KEPT = 50
NAME = "demo"


class CaughtMessage(Struct, frozen=True):
    """One message of a webhook, and whether its signature is right."""

    at: datetime  # UTC
    id: str
    type: str
    data: dict[str, Any]
    verified: bool


class WebhookCatcher:
    """Plays an app's endpoint, and keeps the last messages in a file."""

    def __init__(self, data_dir: Path, *, report: Report) -> None:
        self._file = data_dir / FILE
        self._report = report
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._endpoint = WebhookEndpoint(self._secret, on_request=self._received, keep=1)
        self._messages: list[CaughtMessage] = []

    async def start(self) -> None:
        """Listens on a free port of this machine."""
        await self._endpoint.__aenter__()

    async def stop(self) -> None:
        """Closes all connections."""
        await self._endpoint.__aexit__()

    def put_demo_target(self, dsn: str) -> None:
        """Makes the webhook of the demo, or gives it this start's address and secret."""
        with connect(dsn) as connection:
            connection.execute(
                load("demo")["put_demo_webhook"],
                {
                    "name": NAME,
                    "url": self._endpoint.url,
                    "events": list(get_args(WebhookType)),
                    "secrets": Jsonb([{"secret": self._secret}]),
                },
            )

    def _received(self, headers: Mapping[str, str], body: bytes) -> None:
        message = msgspec.json.decode(body, type=dict[str, Any])
        verified = self._endpoint.verified(headers, body)
        self._messages.append(
            CaughtMessage(
                datetime.now(UTC), headers["webhook-id"], message["type"], message["data"], verified
            )
        )
        del self._messages[:-KEPT]
        written = self._file.with_suffix(".new")
        try:
            written.write_bytes(msgspec.json.encode(self._messages))
            os.replace(written, self._file)
        except OSError as error:  # it did arrive; only the page can't show it
            self._report(f"{FILE} can't be written: {error.strerror}")


def read_messages(data_dir: Path) -> list[CaughtMessage]:
    """Returns the messages, the newest first."""
    with suppress(FileNotFoundError, msgspec.DecodeError):
        found = msgspec.json.decode((data_dir / FILE).read_bytes(), type=list[CaughtMessage])
        return found[::-1]
    return []
