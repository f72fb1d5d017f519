"""Tokens that a shared secret signed: what the quick check accepts is what PyJWT accepts."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import jwt
import pytest

from tocsin.http.tokens import SharedSecret

SECRET = "the secret of these tests, 64 bytes and more, for the longest hash of all"
NOW = int(time.time())
GOOD = {"sub": "alice", "exp": NOW + 86_400}
HEADER = {"alg": "HS256", "typ": "JWT"}
LEEWAY = 30.0


def segment(content: object) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(
    claims: object, header: object = HEADER, *, key: str = SECRET, by: str = "sha256"
) -> str:
    """Returns a token with any header and claims, signed by that hash."""
    return sign(f"{segment(header)}.{segment(claims)}", key=key, by=by)


def sign(text: str, *, key: str = SECRET, by: str = "sha256") -> str:
    return f"{text}.{segment(hmac.digest(key.encode(), text.encode(), by))}"


def checked(audience: str | None = None, issuer: str | None = None) -> SharedSecret:
    algorithms = ("HS256", "HS512", "RS256")
    return SharedSecret(SECRET, algorithms, audience=audience, issuer=issuer, leeway=LEEWAY)


def by_pyjwt(text: str, audience: str | None = None, issuer: str | None = None) -> Any:
    """Returns the claims, or None."""
    try:
        return jwt.decode(
            text,
            SECRET,
            algorithms=["HS256", "HS512", "RS256"],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "sub"]},
        )
    except (jwt.PyJWTError, ValueError, ArithmeticError, RecursionError):
        return None


ORDINARY = [
    signed(GOOD),
    signed(GOOD, {"alg": "HS256"}),
    signed(GOOD, {"alg": "HS256", "typ": "at+jwt", "kid": "one"}),
    signed(GOOD, {"alg": "HS512", "typ": "JWT"}, by="sha512"),
    signed(GOOD | {"exp": NOW + 86_400.5, "iat": NOW, "nbf": NOW - 5.5, "jti": "1", "iss": "any"}),
    signed(GOOD | {"iat": NOW + 20, "nbf": NOW + 20}),
    signed(GOOD | {"sub": "ä✓🙂", "roles": ["x", {"y": None}], "z": 1e3}),
    signed(GOOD | {"padding": "x" * 3000}),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_token_is_accepted_with_the_claims_that_pyjwt_reads(text: str) -> None:
    found, expected = checked().accept(text, NOW), by_pyjwt(text)
    assert found is not None
    assert (found.sub, found.exp) == (expected["sub"], expected["exp"])


BODY = f"{segment(HEADER)}.{segment(GOOD)}"
SIGNATURE = sign(BODY).rpartition(".")[2]
HOSTILE = {
    "no algorithm": signed(GOOD, {"alg": "none"}),
    "no signature": f"{BODY}.",
    "none and no signature": f"{segment({'alg': 'none'})}.{segment(GOOD)}.",
    "an algorithm that is not allowed": signed(GOOD, {"alg": "HS384"}, by="sha384"),
    "an algorithm in other letters": signed(GOOD, {"alg": "hs256"}),
    "an algorithm of another hash": signed(GOOD, {"alg": "HS512"}),
    "an algorithm with a public key": signed(GOOD, {"alg": "RS256"}),
    "a list of algorithms": signed(GOOD, {"alg": ["HS256"]}),
    "no header": signed(GOOD, []),
    "no alg": signed(GOOD, {"typ": "JWT"}),
    "another secret": signed(GOOD, key="another secret of 32 bytes and more"),
    "an empty secret": signed(GOOD, key=""),
    "a critical extension": signed(GOOD, HEADER | {"crit": ["exp"]}),
    "an unencoded body": signed(GOOD, HEADER | {"crit": ["b64"], "b64": False}),
    "a number as kid": signed(GOOD, HEADER | {"kid": 7}),
    "expired": signed(GOOD | {"exp": NOW - 40}),
    "not yet valid": signed(GOOD | {"nbf": NOW + 50_000}),
    "issued in the future": signed(GOOD | {"iat": NOW + 50_000}),
    "true as exp": signed(GOOD | {"exp": True}),
    "null as exp": signed(GOOD | {"exp": None}),
    "text as exp": signed(GOOD | {"exp": "soon"}),
    "infinity as exp": signed(GOOD | {"exp": float("inf")}),
    "more than infinity as exp": signed(b'{"sub": "alice", "exp": 1e999}'),
    "null as nbf": signed(GOOD | {"nbf": None}),
    "a list as iat": signed(GOOD | {"iat": [1]}),
    "no exp": signed({"sub": "alice"}),
    "no sub": signed({"exp": NOW + 86_400}),
    "a number as sub": signed(GOOD | {"sub": 7}),
    "null as sub": signed(GOOD | {"sub": None}),
    "a number as jti": signed(GOOD | {"jti": 7}),
    "an audience": signed(GOOD | {"aud": "tocsin"}),
    "audiences": signed(GOOD | {"aud": ["tocsin"]}),
    "a second exp": signed(b'{"sub": "alice", "exp": %d, "exp": 1}' % (NOW + 86_400)),
    "claims that are a list": signed([GOOD]),
    "claims that are not JSON": signed(b"{'sub': 'alice'}"),
    "claims that are not UTF-8": signed(b'{"sub": "\xff", "exp": %d}' % (NOW + 86_400)),
    "a control character": signed(b'{"sub": "alice", "x": "\x01", "exp": %d}' % (NOW + 86_400)),
    "claims and more": signed(json.dumps(GOOD).encode() + b"{}"),
    "deep claims": signed(b'{"sub": "a", "exp": 1, "x": %b}' % (b"[" * 2000)),
    "two segments": BODY,
    "four segments": f"{BODY}.x.{SIGNATURE}",
    "an empty text": "",
    "dots": "..",
    "not ASCII": f"{BODY}.{SIGNATURE[:-1]}ä",
    "a space before": f" {BODY}.{SIGNATURE}",
    "a line end after": f"{BODY}.{SIGNATURE}\n",
    "a signature in the other alphabet": sign(BODY.replace("-", "+").replace("_", "/")) + "+/",
    "a shortened signature": f"{BODY}.{SIGNATURE[:-1]}",
    "a longer signature": f"{BODY}.{SIGNATURE}A",
    "a line end in the body": sign(f"{BODY[:40]}\n{BODY[40:]}"),
    "a foreign character in the body": sign(f"{BODY}!"),
    "a body with padding in it": sign(f"{BODY}=AAA"),
    "a body of the other alphabet": sign(f"{segment(HEADER)}.{segment(GOOD | {'x': '>>>???'})}/+"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_pyjwt_refuses_is_not_accepted(text: str) -> None:
    assert by_pyjwt(text) is None
    assert checked().accept(text, NOW) is None


def test_bits_beyond_the_last_byte_are_not_accepted() -> None:
    """Two texts of base64url with the same bytes: a strict reader takes one of them."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    body = segment(GOOD | {"x": next(_with_rest_of(GOOD, 2))})
    other = body[:-1] + alphabet[alphabet.index(body[-1]) + 1]
    assert base64.urlsafe_b64decode(body + "==") == base64.urlsafe_b64decode(other + "==")
    for last, good in ((body, True), (other, False)):
        text = sign(f"{segment(HEADER)}.{last}")
        assert (by_pyjwt(text) is not None) == good
        assert (checked().accept(text, NOW) is not None) == good
    spare = SIGNATURE[:-1] + alphabet[alphabet.index(SIGNATURE[-1]) + 1]
    assert checked().accept(f"{BODY}.{spare}", NOW) is None


def _with_rest_of(claims: dict[str, Any], rest: int) -> Iterator[str]:
    """Yields a padding with which the last group of base64 has that many characters."""
    for size in range(4):
        if len(segment(claims | {"x": "x" * size})) % 4 == rest:
            yield "x" * size


@pytest.mark.parametrize(
    ("audience", "issuer", "claims"),
    [
        ("tocsin", None, {"aud": "tocsin"}),
        ("tocsin", None, {"aud": "other"}),
        ("tocsin", None, {"aud": ""}),
        ("tocsin", None, {"aud": ["other"]}),
        ("tocsin", None, {}),
        (None, "us", {"iss": "us"}),
        (None, "us", {"iss": "them"}),
        (None, "us", {"iss": ["us"]}),
        (None, "us", {"iss": None}),
        (None, "us", {}),
        ("tocsin", "us", {"aud": "tocsin", "iss": "us"}),
        ("tocsin", "us", {"aud": "tocsin", "iss": "them"}),
        ("tocsin", "us", {"aud": "us", "iss": "tocsin"}),
    ],
)
def test_audience_and_issuer_are_those_that_pyjwt_accepts(
    audience: str | None, issuer: str | None, claims: dict[str, Any]
) -> None:
    text = signed(GOOD | claims)
    found = checked(audience, issuer).accept(text, NOW) is not None
    assert found == (by_pyjwt(text, audience, issuer) is not None)


def test_no_token_with_one_character_changed_is_accepted() -> None:
    text, random = signed(GOOD | {"jti": "1"}), Random(1)
    for place in range(len(text)):
        for other in random.sample("ABCXYZabcxyz0189-_.=+/! \n\x00ä", 6):
            changed = text[:place] + other + text[place + 1 :]
            assert changed == text or checked().accept(changed, NOW) is None


@pytest.mark.parametrize(
    "secret",
    ['{"kty": "oct", "k": "AAAA"}', "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"],
)
def test_a_key_that_pyjwt_does_not_take_as_a_secret_accepts_nothing(secret: str) -> None:
    shared = SharedSecret(secret, ("HS256",), audience=None, issuer=None, leeway=LEEWAY)
    text = signed(GOOD, key=secret)
    with pytest.raises(jwt.InvalidKeyError):
        jwt.decode(text, secret, algorithms=["HS256"])
    assert shared.accept(text, NOW) is None
