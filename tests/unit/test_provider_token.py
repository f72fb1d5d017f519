"""One provider token for all, refreshed every 20 to 60 minutes and never sooner."""

from __future__ import annotations

import asyncio

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tocsin.engine.actors.apns_token import (
    MemoryStore,
    ProviderKey,
    ProviderToken,
    TokenUnavailable,
)
from tocsin.engine.model import SignedToken
from tocsin.testing.apns import Key

pytestmark = pytest.mark.asyncio

KEY = Key.new()
MINUTE = 60


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Store(MemoryStore):
    """Counts, yields as a database would, and may be down."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = self.saves = 0
        self.down = False

    async def load(self, key: str) -> SignedToken | None:
        self.loads += 1
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError
        return await super().load(key)

    async def save(self, signed: SignedToken, *, replacing: SignedToken | None) -> SignedToken:
        self.saves += 1
        await asyncio.sleep(0)
        return await super().save(signed, replacing=replacing)


def signing(key: Key = KEY) -> ProviderKey:
    return ProviderKey(pem=key.private, key_id=key.key_id, team_id=key.team_id)


def worker(store: Store, clock: Clock, key: Key = KEY) -> ProviderToken:
    return ProviderToken(signing(key), store, clock=clock)


async def test_a_token_names_its_key_its_team_and_its_time() -> None:
    token = await worker(Store(), Clock()).token()
    private = load_pem_private_key(KEY.private.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    claims = jwt.decode(
        token, private.public_key(), algorithms=["ES256"], options={"verify_iat": False}
    )
    assert claims == {"iss": KEY.team_id, "iat": 1_800_000_000}
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": KEY.key_id}


async def test_simultaneous_callers_get_one_token() -> None:
    store, clock = Store(), Clock()
    workers = [worker(store, clock) for _ in range(4)]
    tokens = await asyncio.gather(*(each.token() for each in workers for _ in range(50)))
    assert len(set(tokens)) == 1
    assert store.loads == 4


async def test_a_token_lasts_forty_minutes() -> None:
    store, clock = Store(), Clock()
    tokens = worker(store, clock)
    first = await tokens.token()
    clock.now += 40 * MINUTE - 1
    assert await tokens.token() == first
    assert store.loads == 1
    clock.now += 1
    assert await tokens.token() != first


async def test_workers_take_what_another_signed() -> None:
    store, clock = Store(), Clock()
    one, two = worker(store, clock), worker(store, clock)
    await one.token()
    clock.now += 30 * MINUTE
    assert await two.token() == await one.token()
    clock.now += 10 * MINUTE
    assert await one.token() == await two.token()
    assert store.saves == 2


async def test_a_restart_signs_nothing() -> None:
    store, clock = Store(), Clock()
    first = await worker(store, clock).token()
    clock.now += 10 * MINUTE
    assert await worker(store, clock).token() == first


async def test_another_key_has_a_token_of_its_own() -> None:
    store, clock = Store(), Clock()
    assert await worker(store, clock).token() != await worker(store, clock, Key.new()).token()


async def test_a_token_older_than_twenty_minutes_that_is_called_expired_is_signed_again() -> None:
    store, clock = Store(), Clock()
    tokens = worker(store, clock)
    first = await tokens.token()
    clock.now += 25 * MINUTE
    assert await tokens.renew(first)
    second = await tokens.token()
    assert second != first
    clock.now += 25 * MINUTE
    assert await tokens.renew(second)


async def test_a_young_token_that_is_called_expired_is_signed_again_once() -> None:
    store, clock = Store(), Clock()
    tokens = worker(store, clock)
    first = await tokens.token()
    assert await tokens.renew(first)
    second = await tokens.token()
    assert second != first
    assert not await tokens.renew(second)
    assert await tokens.token() == second
    clock.now += 20 * MINUTE + 1
    assert await tokens.renew(second)


async def test_many_refusals_of_one_token_sign_once() -> None:
    store, clock = Store(), Clock()
    workers = [worker(store, clock) for _ in range(4)]
    first = await workers[0].token()
    for each in workers:
        await each.token()
    renewed = await asyncio.gather(*(each.renew(first) for each in workers for _ in range(20)))
    assert all(renewed)
    assert len({await each.token() for each in workers}) == 1


async def test_a_store_that_is_down_leaves_the_token_as_long_as_it_is_good() -> None:
    store, clock = Store(), Clock()
    tokens = worker(store, clock)
    first = await tokens.token()
    store.down = True
    clock.now += 54 * MINUTE
    assert await tokens.token() == first
    clock.now += MINUTE
    with pytest.raises(TokenUnavailable):
        await tokens.token()
    with pytest.raises(TokenUnavailable):
        await tokens.renew(first)
    store.down = False
    assert await tokens.token() != first


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "not a private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a private key"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "not a P-256 key"),
        (pem(rsa.generate_private_key(65537, 2048)), "not a P-256 key"),
    ],
)
async def test_a_key_that_is_none_is_refused_in_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ProviderKey(pem=text, key_id="K", team_id="T")
