"""The key set of an identity provider (RFC 7517): kept, read anew for a new key id, and used on while that is down."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import structlog
from jwt import PyJWK, PyJWKClient, PyJWKSet
from jwt.exceptions import PyJWKSetError, PyJWTError

from tocsin.engine.model import Unavailable

_FRESH = 300.0  # seconds until the set is read anew
_PAUSE = 10.0  # between two reads, so that tokens with invented key ids can't make us hammer the provider
_TIMEOUT = 5

log = structlog.get_logger("tocsin.http")


class KeySet:
    """The keys behind one JWKS address."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        context = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
        # PyJWKClient only fetches: its own caches know nothing of a provider that is down
        self._client = PyJWKClient(
            url, cache_jwk_set=False, cache_keys=False, timeout=_TIMEOUT, ssl_context=context
        )
        self._keys: dict[str | None, PyJWK] = {}
        self._tried_at = -_FRESH
        self._answered = False
        self._reading = asyncio.Lock()

    @property
    def fresh_for(self) -> float:
        """Seconds until the set is read anew: a key that its provider withdrew counts no longer than that."""
        return max(0.0, self._tried_at + _FRESH - time.monotonic())

    async def key(self, key_id: str | None) -> PyJWK | None:
        """The key of that id, or None; raises Unavailable where it may be a new one of a provider that is down."""
        age = time.monotonic() - self._tried_at
        found = self._find(key_id)
        if age > _FRESH or (found is None and age > _PAUSE):
            await self._refresh()
            found = self._find(key_id)
        if found is None and not self._answered:
            raise Unavailable("the key set can't be read")
        return found

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        before = self._tried_at
        async with self._reading:
            if self._tried_at != before:  # someone else just did
                return
            try:
                self._keys = await asyncio.to_thread(self._read)
                self._answered = True
            except (PyJWTError, ValueError, OSError) as error:
                self._answered = False
                log.warning(
                    "the JWKS can't be read", error=type(error).__name__, kept=len(self._keys)
                )
            self._tried_at = time.monotonic()

    def _read(self) -> dict[str | None, PyJWK]:
        data = self._client.fetch_data()
        if not isinstance(data, dict):
            raise PyJWKSetError("not a key set")
        return {
            key.key_id: key
            for key in PyJWKSet.from_dict(data).keys
            if key.public_key_use in (None, "sig")
        }
