"""The provider token: one JWT for all connections of all workers, renewed every 40 minutes.

Apple: "Establishing a token-based connection to APNs". A token is refreshed at most once every 20 minutes and at least
once every 60, counted per team; the response is 429 TooManyProviderTokenUpdates if it is too early, and 403
ExpiredProviderToken if it is too late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

import jwt
import structlog
from cryptography.hazmat.primitives import serialization

from tocsin.engine.model import SignedToken
from tocsin.settings.keys import load_apns_key

REFRESH = 40 * 60
"""Seconds after which a token is renewed."""

LEAST = 20 * 60
"""Seconds that a token is kept at least, unless Apple reports it as expired."""

USABLE = 55 * 60
"""Seconds that a token may be used while no new one can be stored."""


log = structlog.get_logger(__name__)


class TokenUnavailable(Exception):
    """The store that all workers share can't be reached, and there is no valid token."""


class TokenStore(Protocol):
    """Where the workers share their token."""

    async def load(self, key: str) -> SignedToken | None:
        """Returns the current token of this key."""

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores a token if `replacing` is still the current one; returns the current one after that."""


class ProviderKey:
    """A .p8 key of a team; raises ValueError with a message for the operator if it is invalid."""

    def __init__(self, *, pem: str, key_id: str, team_id: str) -> None:
        key = load_apns_key(pem)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self.name = f"{team_id}.{key_id}.{sha256(public).hexdigest()[:16]}"

    def sign(self, now: int, *, early: bool = False) -> SignedToken:
        """Returns a token signed at `now`, in Unix seconds."""
        claims = {"iss": self._team_id, "iat": now}
        token = jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id, "typ": None})
        return SignedToken(self.name, token, now, early)


class MemoryStore:
    """A store for a single process."""

    def __init__(self) -> None:
        self._tokens: dict[str, SignedToken] = {}

    async def load(self, key: str) -> SignedToken | None:
        """Returns the current token of this key."""
        return self._tokens.get(key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores a token if `replacing` is still the current one; returns the current one after that."""
        stored = self._tokens.get(signed.key)
        if stored is None or stored == replacing:
            self._tokens[signed.key] = signed
        return self._tokens[signed.key]


class ProviderToken:
    """Returns the token that all workers share; `clock` is in Unix seconds, best the same for all workers."""

    def __init__(
        self, key: ProviderKey, store: TokenStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._current: SignedToken | None = None

    async def token(self) -> str:
        """Returns the current token; reads the store seldom, and once at a time."""
        if not self._younger(self._current, REFRESH):
            async with self._lock:
                if not self._younger(self._current, REFRESH):
                    await self._refresh()
        assert self._current is not None
        return self._current.token

    async def renew(self, stale: str) -> bool:
        """Returns whether there is another token than the one that Apple reported as expired.

        One that was signed less than 20 minutes ago should be valid: our clock is wrong, or Apple's. It is replaced,
        but only once: more would be too many updates.
        """
        async with self._lock:
            if self._current is None or self._current.token != stale:
                return True
            stored = await self._load()
            if stored is not None and stored.token != stale:
                self._current = stored
                return True
            young = self._younger(self._current, LEAST)
            if young and self._current.early:
                return False
            await self._sign(replacing=stored, early=young)
            return self._current.token != stale

    async def _refresh(self) -> None:
        try:
            stored = await self._load()
            if stored is not None and self._younger(stored, REFRESH):
                self._current = stored
            else:
                await self._sign(replacing=stored)
        except TokenUnavailable:
            if not self._younger(self._current, USABLE):
                raise

    async def _load(self) -> SignedToken | None:
        try:
            return await self._store.load(self._key.name)
        except Exception as error:
            raise TokenUnavailable from error

    async def _sign(self, *, replacing: SignedToken | None, early: bool = False) -> None:
        """Signs a token, or uses that of another worker that was faster."""
        signed = self._key.sign(self._now(replacing), early=early)
        try:
            self._current = await self._store.save(signed, replacing=replacing)
        except Exception as error:
            raise TokenUnavailable from error
        log.info("apns provider token signed", early=early, ours=self._current == signed)

    def _now(self, replacing: SignedToken | None) -> int:
        """Returns the time to sign: in the same second the claims, and so the token, would be the same."""
        now = int(self._clock())
        return now + 1 if replacing is not None and replacing.issued_at == now else now

    def _younger(self, signed: SignedToken | None, age: float) -> bool:
        return signed is not None and self._clock() - signed.issued_at < age
