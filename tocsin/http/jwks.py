"""The key set of an identity provider (RFC 7517): kept, read anew for a new key id, and used on while that is down."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import structlog
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWKSetError, PyJWTError

from tocsin.engine.model import Unavailable
from tocsin.settings.addresses import is_untampered

_FRESH = 300.0  # seconds until the set is read anew
_PAUSE = 10.0  # between two reads, so that tokens with invented key ids can't make us hammer the provider
_TIMEOUT = 5
_LARGEST = 1_000_000  # bytes of a key set

log = structlog.get_logger("tocsin.http")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows no redirect to plain http, where anybody on the way could put in a key of their own."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not is_untampered(newurl):
            raise URLError("a redirect to plain http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class KeySet:
    """The keys behind one JWKS address."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        self._url = url
        self._opener = build_opener(
            _SafeRedirects, HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))
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
            except (PyJWTError, ValueError, OSError, HTTPException) as error:
                self._answered = False
                log.warning(
                    "the JWKS can't be read", error=type(error).__name__, kept=len(self._keys)
                )
            self._tried_at = time.monotonic()

    def _read(self) -> dict[str | None, PyJWK]:
        data = self._fetch()
        if not isinstance(data, dict):
            raise PyJWKSetError("not a key set")
        return {
            key.key_id: key
            for key in PyJWKSet.from_dict(data).keys
            if key.public_key_use in (None, "sig")
        }

    def _fetch(self) -> object:
        with self._opener.open(self._url, timeout=_TIMEOUT) as response:
            text = response.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise PyJWKSetError("the key set is too large")
        found: object = json.loads(text)
        return found
