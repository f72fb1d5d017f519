"""Helpers of the APNs tests: a far end, and the credentials for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tocsin.engine.actors.apns_token import MemoryStore, ProviderKey, ProviderToken
from tocsin.testing.apns import ApnsServer, Authority, Key

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
