"""Which tokens, cookies and keys are accepted, and which are refused."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.error import URLError

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import SECRET, URL, NewNotification, bearer, token
from tests.support.services import until
from tocsin.engine.model import Unavailable
from tocsin.engine.store.credential import create_api_key, list_api_keys, revoke_api_keys
from tocsin.engine.store.database import Database
from tocsin.http import tokens
from tocsin.http.errors import Unauthorized
from tocsin.http.tokens import KeySet, TokenVerifier
from tocsin.settings import Settings

COUNT = "/api/notifications/unread-count/"
PEOPLE = [
    ("GET", "/api/notifications/"),
    ("GET", "/api/notifications/1/"),
    ("PATCH", "/api/notifications/1/read/"),
    ("DELETE", "/api/notifications/1/"),
    ("POST", "/api/notifications/mark-all-read/"),
    ("GET", COUNT),
    ("GET", "/api/notifications/stream/"),
    ("GET", "/api/notifications/1/open/"),
    ("GET", "/api/notifications/1/why/"),
    ("GET", "/api/notification-preferences/"),
    ("PATCH", "/api/notification-preferences/"),
    ("GET", "/api/event-types/"),
    ("POST", "/api/stream-ticket/"),
]
APPS = [
    ("POST", "/api/events/"),
    ("GET", "/api/events/"),
    ("GET", "/api/events/1/"),
    ("POST", "/api/events/1/cancel/"),
    ("PUT", "/api/recipients/alice/"),
    ("GET", "/api/recipients/alice/"),
    ("DELETE", "/api/recipients/alice/"),
    ("GET", "/api/recipients/alice/export/"),
]


@pytest.mark.parametrize(("method", "path"), PEOPLE + APPS)
async def test_no_credentials_get_a_challenge(
    anyone: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await anyone.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), PEOPLE + APPS)
async def test_a_forged_token_or_key_gets_no_further(
    anyone: httpx.AsyncClient, method: str, path: str
) -> None:
    for bad in (token(key="another secret of at least 32 bytes"), "tocsin_nonsense"):
        response = await anyone.request(method, path, headers=bearer(bad))
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.mark.parametrize(("method", "path"), APPS)
async def test_a_person_is_not_an_app(alice: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await alice.request(method, path)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"), [each for each in PEOPLE if "event-types" not in each[1]]
)
async def test_an_app_is_not_a_person(machine: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await machine.request(method, path)).status_code == 403


def unsigned(payload: dict[str, Any], header: dict[str, Any]) -> str:
    parts = [json.dumps(each).encode() for each in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts) + "."


async def test_each_kind_of_bad_token_is_refused(anyone: httpx.AsyncClient) -> None:
    now = int(time.time())
    good = {"sub": "alice", "exp": now + 60}
    bad = [
        unsigned(good, {"alg": "none", "typ": "JWT"}),
        unsigned(good, {"alg": "None"}),
        unsigned(good, {"alg": "HS256"}),
        token(algorithm="HS512", key=SECRET * 2),
        token(ttl=-1),
        token(nbf=now + 60),
        token(iat=now + 60),
        token(iat="yesterday"),
        token(sub=""),
        token(sub="a\x00b"),
        token(sub="x" * 201),
        token(sub=7),  # type: ignore[arg-type]
        token(padding="x" * 9000),
        jwt.encode({"sub": "alice"}, SECRET),
        jwt.encode({"exp": now + 60}, SECRET),
        jwt.encode({"sub": "alice", "exp": "soon"}, SECRET),
        token()[:-2],
        "a.b.c",
        base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.x",
        token(exp=float("inf")),
        "nonsense",
    ]
    for each in bad:
        response = await anyone.get(COUNT, headers=bearer(each))
        assert response.status_code == 401, each
        assert each not in response.text
    for header in ("Basic YWxpY2U6eA==", "Bearer", "Bearer ", token()):
        response = await anyone.get(COUNT, headers={"Authorization": header})
        assert response.status_code == 401


async def test_a_remembered_token_still_expires(anyone: httpx.AsyncClient) -> None:
    short = token(ttl=3)
    assert (await anyone.get(COUNT, headers=bearer(short))).status_code == 200
    deadline = jwt.decode(short, options={"verify_signature": False})["exp"]
    while time.time() < deadline:
        await asyncio.sleep(0.02)  # the clock itself is the condition
    assert (await anyone.get(COUNT, headers=bearer(short))).status_code == 401


async def test_audience_and_issuer_must_be_ours(settings: Settings) -> None:
    strict = TokenVerifier(
        Settings(
            jwt_secret=SECRET, jwt_algorithms=("HS256",), jwt_audience="tocsin", jwt_issuer="us"
        )
    )
    assert (await strict.verify(token(aud="tocsin", iss="us"))).recipient_id == "alice"
    assert (await strict.verify(token(aud=["tocsin", "x"], iss="us"))).recipient_id == "alice"
    for claims in (
        {},
        {"aud": "tocsin"},
        {"aud": "other", "iss": "us"},
        {"aud": "tocsin", "iss": "them"},
    ):
        with pytest.raises(Unauthorized):
            await strict.verify(token(**claims))  # type: ignore[arg-type]
    ours_names_none = TokenVerifier(settings)
    assert (await ours_names_none.verify(token(iss="any"))).recipient_id == "alice"
    for audience in ("any", ["any"], "tocsin"):
        with pytest.raises(Unauthorized, match="TOCSIN_JWT_AUDIENCE"):
            await ours_names_none.verify(token(aud=audience))


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ({}, True),
        ({"typ": "jwt"}, True),
        ({"typ": "at+jwt"}, True),
        ({"typ": "AT+JWT"}, True),
        ({"typ": "application/at+jwt"}, True),
        ({"typ": "Application/JWT"}, True),
        ({"typ": None}, True),  # PyJWT leaves it out
        ({"typ": ""}, False),
        ({"typ": "logout+jwt"}, False),
        ({"typ": "dpop+jwt"}, False),
        ({"typ": "JOSE"}, False),
        ({"typ": "text/jwt"}, False),
        ({"typ": 7}, False),
        ({"typ": ["JWT"]}, False),
        ({"crit": ["exp"], "exp": 1}, False),
        ({"crit": []}, False),
        ({"crit": ["b64"], "b64": True}, False),
    ],
)
async def test_a_header_for_something_else_is_refused(
    settings: Settings, header: dict[str, Any], good: bool
) -> None:
    verifier = TokenVerifier(settings)
    text = signed({"alg": "HS256", **{k: v for k, v in header.items() if v is not None}})
    for _ in range(2):  # the second time by memory, where it was good
        if good:
            assert (await verifier.verify(text)).recipient_id == "alice"
        else:
            with pytest.raises(Unauthorized):
                await verifier.verify(text)
    assert (verifier.remembered(text) is not None) == good


def signed(header: dict[str, Any]) -> str:
    """A token that is good but for its header, which PyJWT would not write."""
    content = {"sub": "alice", "exp": int(time.time()) + 60}
    body = unsigned(content, header).rstrip(".")
    signature = hmac.digest(SECRET.encode(), body.encode(), "sha256")
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_clocks_may_differ_by_half_a_minute_for_the_start_and_not_for_the_end(
    settings: Settings,
) -> None:
    verifier = TokenVerifier(settings)
    now = int(time.time())
    early = await verifier.verify(token(nbf=now + 25, iat=now + 25))
    assert early.recipient_id == "alice"
    for late in (token(nbf=now + 45), token(iat=now + 45)):
        with pytest.raises(Unauthorized, match="30 s"):
            await verifier.verify(late)
    for ended in (0, -1, -20):
        with pytest.raises(Unauthorized, match="expired"):
            await verifier.verify(token(ttl=ended))


async def test_a_key_set_redirected_to_plain_http_is_not_read() -> None:
    seen: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            # loopback by its name here, and none by its form: it would be read if it were followed
            self.send_header("Location", f"http://127.1:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        key_set = KeySet(f"http://127.0.0.1:{server.server_port}/jwks")
        with pytest.raises(Unavailable):
            await key_set.key("one")
        server.shutdown()
    assert seen == ["/jwks"]


async def test_public_keys_verify_and_can_not_be_used_as_a_secret() -> None:
    for private, algorithm in (
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
    ):
        pem = (
            private.public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
        verifier = TokenVerifier(Settings(jwt_public_key=pem, jwt_algorithms=("RS256", "ES256")))
        good = jwt.encode({"sub": "alice", "exp": time.time() + 60}, private, algorithm=algorithm)
        assert (await verifier.verify(good)).recipient_id == "alice"
        forged = unsigned({"sub": "alice", "exp": time.time() + 60}, {"alg": "HS256"})
        with pytest.raises(Unauthorized):
            await verifier.verify(forged)


class Provider:
    """An identity provider whose keys can change, and which can be down."""

    def __init__(self, key_set: KeySet) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.down = False
        self.reads = 0
        key_set._fetch = self.fetch  # type: ignore[method-assign]
        self._set = key_set

    def fetch(self) -> Any:
        self.reads += 1
        if self.down:
            raise URLError("down")
        return {
            "keys": [
                jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
                | {"kid": kid, "use": "sig", "alg": "RS256"}
                for kid, key in self.keys.items()
            ]
        }

    def rotate(self, kid: str) -> None:
        self.keys = {kid: rsa.generate_private_key(65537, 2048)}

    def forget_when(self) -> None:
        """As if the last read were long ago."""
        self._set._tried_at = -1e9

    def nearly_forget(self) -> None:
        """As if the last read were nearly so long ago that the next token makes another."""
        self._set._tried_at = time.monotonic() - tokens._FRESH + 0.2

    def token(self, kid: str) -> str:
        payload = {"sub": "alice", "exp": time.time() + 60, "jti": str(time.time_ns())}
        return jwt.encode(payload, self.keys[kid], algorithm="RS256", headers={"kid": kid})


async def test_a_key_set_is_followed_when_it_rotates_and_outlives_its_provider() -> None:
    verifier = TokenVerifier(
        Settings(jwks_url="https://login.test/jwks", jwt_algorithms=("RS256",))
    )
    assert verifier._key_set is not None
    provider = Provider(verifier._key_set)
    provider.rotate("one")
    provider.down = True
    with pytest.raises(Unavailable):
        await verifier.verify(provider.token("one"))
    provider.down = False
    provider.forget_when()
    assert (await verifier.verify(provider.token("one"))).recipient_id == "alice"
    first = provider.token("one")
    provider.rotate("two")
    provider.forget_when()
    assert (await verifier.verify(provider.token("two"))).recipient_id == "alice"
    with pytest.raises(Unauthorized):
        await verifier.verify(first)
    provider.down = True
    provider.forget_when()
    assert (await verifier.verify(provider.token("two"))).recipient_id == "alice"


async def test_a_remembered_token_counts_no_longer_than_its_key_set_is_fresh() -> None:
    verifier = TokenVerifier(
        Settings(jwks_url="https://login.test/jwks", jwt_algorithms=("RS256",))
    )
    assert verifier._key_set is not None
    provider = Provider(verifier._key_set)
    provider.rotate("one")
    await verifier.verify(provider.token("one"))
    provider.nearly_forget()
    late = provider.token("one")
    await verifier.verify(late)
    provider.rotate("two")
    await until(lambda: verifier.remembered(late) is None)

    async def is_refused() -> bool:
        try:
            await verifier.verify(late)
        except Unauthorized:
            return True
        return False  # the key set is fresh for a moment longer

    await until(is_refused)


async def test_invented_key_ids_do_not_hammer_the_provider() -> None:
    verifier = TokenVerifier(
        Settings(jwks_url="https://login.test/jwks", jwt_algorithms=("RS256",))
    )
    assert verifier._key_set is not None
    provider = Provider(verifier._key_set)
    provider.rotate("one")
    other_key = rsa.generate_private_key(65537, 2048)
    for number in range(20):
        forged = jwt.encode(
            {"sub": "a", "exp": time.time() + 60}, other_key, "RS256", {"kid": str(number)}
        )
        with pytest.raises(Unauthorized):
            await verifier.verify(forged)
    assert provider.reads == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": URL}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 403),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"{URL}.evil.test"}, 403),
        ({"Origin": URL, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://notify.test", "X-Forwarded-Host": "evil.test"}, 403),
    ],
)
async def test_a_cookie_changes_things_from_our_own_pages_only(
    anyone: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    cookie = {"Cookie": f"tocsin_token={token()}"}
    assert (await anyone.get(COUNT, headers=cookie)).status_code == 200
    response = await anyone.post("/api/notifications/mark-all-read/", headers=cookie | headers)
    assert response.status_code == status


async def test_a_foreign_page_marks_nothing_through_open(
    anyone: httpx.AsyncClient, alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    path = f"/api/notifications/{new_notification(action_url='/x')}/"
    cookie = {"Cookie": f"tocsin_token={token()}"}
    for foreign in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}):
        assert (await anyone.get(f"{path}open/", headers=cookie | foreign)).status_code == 303
    assert (await alice.get(path)).json()["read"] is False
    await anyone.get(f"{path}open/", headers=cookie | {"Sec-Fetch-Site": "same-origin"})
    assert (await alice.get(path)).json()["read"] is True


async def test_a_revoked_key_ends_at_once(anyone: httpx.AsyncClient, database: Database) -> None:
    id_, key = await create_api_key(database, "billing")
    assert (await anyone.get("/api/events/", headers=bearer(key))).status_code == 200
    (listed,) = await list_api_keys(database)
    assert listed.last_used_at is not None
    await revoke_api_keys(database, str(id_))
    assert (await anyone.get("/api/events/", headers=bearer(key))).status_code == 401


async def test_a_key_of_another_scope_is_refused(
    anyone: httpx.AsyncClient, database: Database
) -> None:
    _, key = await create_api_key(database, "reports", scopes=["mail-events"])
    assert (await anyone.get("/api/events/", headers=bearer(key))).status_code == 403


async def test_the_database_holds_no_key(database: Database, dsn: str) -> None:
    _, key = await create_api_key(database, "secret")
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_jsonb(k)::text from tocsin.api_key k").fetchone()
    assert row is not None
    assert key.removeprefix("tocsin_") not in row[0]


async def test_without_a_database_the_response_is_503_with_retry_after(
    app: Litestar, alice: httpx.AsyncClient, database: Database
) -> None:
    await database.close()
    for path in ("/api/notifications/", "/readyz/"):
        response = await alice.get(path)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert "psycopg" not in response.text
    assert (await alice.get("/healthz/")).status_code == 200
