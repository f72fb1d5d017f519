"""Helpers of the APNs tests: a far end, and the credentials for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tocsin.engine.actors.apns_connection import ApnsConnection, Request
from tocsin.engine.actors.apns_reply import ApnsResponse, NoResponse
from tocsin.engine.actors.apns_token import MemoryStore, ProviderKey, ProviderToken
from tocsin.testing.apns import ApnsServer, Authority, Key, trusting

TOPIC = "org.example.app"
DEVICE = "aabbccdd" * 8


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.write(tmp_path_factory.mktemp("ca") / "ca.pem")


@pytest.fixture(scope="module")
def key() -> Key:
    return Key.new()


@pytest.fixture
async def server(authority: Authority, key: Key) -> AsyncIterator[ApnsServer]:
    async with ApnsServer(authority, key, topics={TOPIC}) as far_end:
        yield far_end


def tokens_of(key: Key, **options: Any) -> ProviderToken:
    signing = ProviderKey(pem=key.private, key_id=key.key_id, team_id=key.team_id)
    return ProviderToken(signing, options.pop("store", MemoryStore()), **options)


@asynccontextmanager
async def outlasting(seconds: float) -> AsyncIterator[None]:
    """Fails unless the block still waits after so many seconds."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


class Corrected:
    """One of our connections."""

    def __init__(self, connection: ApnsConnection, token: str) -> None:
        self.connection = connection
        self.token = token

    async def send(
        self, device: str = DEVICE, *, timeout: float = 10.0
    ) -> ApnsResponse | NoResponse:
        headers = (
            ("apns-topic", TOPIC),
            ("apns-push-type", "alert"),
            ("apns-id", str(uuid4())),
        )
        request = Request(device, headers, b'{"aps":{"alert":"hello"}}')
        return await self.connection.send(request, self.token, timeout=timeout)


def h2_context(authority: Authority) -> ssl.SSLContext:
    context = trusting(authority)
    context.set_alpn_protocols(["h2"])
    return context
