"""/settings/: in the reader's language, at any address, and without personal data."""

from __future__ import annotations

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, token

PAGE = "/settings/"
ENGLISH, GERMAN, ARABIC = 'lang="en" dir="ltr"', 'lang="de" dir="ltr"', 'lang="ar" dir="rtl"'


def cookie(who: str, ttl: float = 600) -> dict[str, str]:
    return {"Cookie": f"tocsin_token={token(who, ttl=ttl)}"}


async def test_it_is_for_the_person_of_the_cookie(anyone: httpx.AsyncClient) -> None:
    signed_in = await anyone.get(PAGE, headers=cookie("alice"))
    assert signed_in.status_code == 200
    assert "<tocsin-preferences" in signed_in.text
    assert "alice" not in signed_in.text
    for headers in ({}, cookie("alice", ttl=-60), {"Cookie": "tocsin_token=x"}):
        response = await anyone.get(PAGE, headers=headers)
        assert response.status_code == 401
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "<tocsin-preferences" in response.text  # it shows what to do


async def test_an_app_has_no_settings(machine: httpx.AsyncClient) -> None:
    assert (await machine.get(PAGE)).status_code == 401


async def test_it_runs_modules_of_its_own_alone(anyone: httpx.AsyncClient) -> None:
    response = await anyone.get(PAGE)
    policy = response.headers["content-security-policy"]
    assert "script-src 'self'; connect-src 'self'" in policy
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
    assert "unsafe" not in policy
    assert response.text.count("<script") == 1
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "root"), [("/settings/", ".."), ("/settings", "."), ("/settings/?a=/", "..")]
)
async def test_its_module_is_found_with_and_without_the_last_slash(
    anyone: httpx.AsyncClient, path: str, root: str
) -> None:
    found = await anyone.get(path)
    (module,) = [part.split('"')[0] for part in found.text.split('src="')[1:]]
    assert module.startswith(f"{root}/assets/")
    assert (await anyone.get(module.removeprefix(root))).status_code == 200


@pytest.mark.parametrize(
    ("accepts", "lang"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", GERMAN),
        ("fr, ar;q=0.5, en;q=0.4", ARABIC),
        ("de;q=0, en", ENGLISH),
        ("tlh", ENGLISH),
        ("*", ENGLISH),
        ("de;q=x,,;;,\"'<", ENGLISH),
        ("", ENGLISH),
    ],
)
async def test_it_speaks_what_the_browser_asks_for(
    anyone: httpx.AsyncClient, accepts: str, lang: str
) -> None:
    response = await anyone.get(PAGE, headers={"Accept-Language": accepts})
    assert lang in response.text


async def test_what_the_app_stored_of_a_person_takes_precedence(
    anyone: httpx.AsyncClient, people: None, db: Db
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', locale => 'de-AT')")
    response = await anyone.get(PAGE, headers=cookie("alice") | {"Accept-Language": "ar"})
    assert GERMAN in response.text
    assert 'locale="de-AT"' in response.text
    db.execute("select tocsin.upsert_recipient('alice', locale => 'fr')")
    response = await anyone.get(PAGE, headers=cookie("alice"))
    assert ENGLISH in response.text
    assert 'locale="fr"' in response.text
