"""The provider token: one JWT for all connections of all workers, signed anew every 40 minutes.

Apple: "Establishing a token-based connection to APNs": a token is refreshed no more than once every 20
minutes and no less than once every 60, counted per team; sooner is answered 429
TooManyProviderTokenUpdates, later 403 ExpiredProviderToken.
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
"""Seconds after which a token is signed anew."""

LEAST = 20 * 60
"""Seconds that a token is kept at least, but for one that Apple calls expired."""

USABLE = 55 * 60
"""Seconds that a token may be used while no new one can be stored."""


log = structlog.get_logger(__name__)


class TokenUnavailable(Exception):
    """The store that all workers share can't be reached, and there is no token that is still good."""


class TokenStore(Protocol):
    """Where the workers share their token."""

    async def load(self, key: str) -> SignedToken | None:
        """The token of this key that stands."""

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores it if `replacing` still stands, and returns what stands then."""


class TokenSource(Protocol):
    """What an actor needs of it."""

    async def token(self) -> str:
        """The token of this moment; raises TokenUnavailable."""

    async def renew(self, stale: str) -> bool:
        """Apple called `stale` expired: true if there is another one now; raises TokenUnavailable."""


class ProviderKey:
    """A .p8 key of a team; raises ValueError where it isn't one, in words for the operator."""

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
        """Signs a token as of `now`, in Unix seconds."""
        claims = {"iss": self._team_id, "iat": now}
        token = jwt.encode(claims, self._key, "ES256", headers={"kid": self._key_id, "typ": None})
        return SignedToken(self.name, token, now, early)


class MemoryStore:
    """A store for a single process, and for tests."""

    def __init__(self) -> None:
        self._tokens: dict[str, SignedToken] = {}

    async def load(self, key: str) -> SignedToken | None:
        """The token of this key that stands."""
        return self._tokens.get(key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        """Stores it if `replacing` still stands, and returns what stands then."""
        standing = self._tokens.get(signed.key)
        if standing is None or standing == replacing:
            self._tokens[signed.key] = signed
        return self._tokens[signed.key]


class ProviderToken:
    """Hands out the token that all share; `clock` is in Unix seconds, best the same for all workers."""

    def __init__(
        self, key: ProviderKey, store: TokenStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._current: SignedToken | None = None

    async def token(self) -> str:
        """The token of this moment; at most one look into the store at a time, and few of them."""
        if not self._younger(self._current, REFRESH):
            async with self._lock:
                if not self._younger(self._current, REFRESH):
                    await self._refresh()
        assert self._current is not None
        return self._current.token

    async def renew(self, stale: str) -> bool:
        """Whether there is another token now than the one that Apple called expired.

        One that was signed less than 20 minutes ago should be good: our clock is wrong, or Apple's.
        It is replaced all the same, but only once: more would be too many updates.
        """
        async with self._lock:
            if self._current is None or self._current.token != stale:
                return True
            standing = await self._load()
            if standing is not None and standing.token != stale:
                self._current = standing
                return True
            young = self._younger(self._current, LEAST)
            if young and self._current.early:
                return False
            await self._sign(replacing=standing, early=young)
            return self._current.token != stale

    async def _refresh(self) -> None:
        try:
            standing = await self._load()
            if standing is not None and self._younger(standing, REFRESH):
                self._current = standing
            else:
                await self._sign(replacing=standing)
        except TokenUnavailable:
            if not self._younger(self._current, USABLE):
                raise

    async def _load(self) -> SignedToken | None:
        try:
            return await self._store.load(self._key.name)
        except Exception as error:
            raise TokenUnavailable from error

    async def _sign(self, *, replacing: SignedToken | None, early: bool = False) -> None:
        """Signs one; where another worker was faster, takes that worker's."""
        signed = self._key.sign(self._now(replacing), early=early)
        try:
            self._current = await self._store.save(signed, replacing=replacing)
        except Exception as error:
            raise TokenUnavailable from error
        log.info("apns provider token signed", early=early, ours=self._current == signed)

    def _now(self, replacing: SignedToken | None) -> int:
        """The same second would give the same claims, which Apple takes for the same token."""
        now = int(self._clock())
        return now + 1 if replacing is not None and replacing.issued_at == now else now

    def _younger(self, signed: SignedToken | None, age: float) -> bool:
        return signed is not None and self._clock() - signed.issued_at < age
