"""Suppressed addresses: listed with their reasons, masked, and lifted by app and operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.cli import main

PATH = "/api/suppressions/"


def suppress(db: Db, address: str, reason: str = "smtp_550_5.1.1", *, ago: str = "0") -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason, created_at) values (%s, %s, now() - %s::interval)",
        (address, reason, ago),
    )


def email_decision(db: Db, recipient: str) -> list[str]:
    db.execute("update tocsin.channel set available = true")
    db.execute("select tocsin.notify('forum.new_reply', array[%s], 'New')", (recipient,))
    row = db.execute(
        "select decisions -> 'email' from tocsin.notification order by notification_id desc limit 1"
    ).fetchone()
    assert row is not None
    decision: list[str] = row[0]
    return decision


async def test_they_are_listed_newest_first_masked_and_explained(
    machine: httpx.AsyncClient, db: Db, people: None
) -> None:
    suppress(db, "alice@example.com", ago="2 days")
    suppress(db, "zoe@example.org", "unsubscribed", ago="1 day")
    suppress(db, "bob@example.com", "complaint")
    db.execute("select tocsin.erase_recipient('bob')")
    found = (await machine.get(PATH)).json()
    assert [(each["address"], each["reason"]) for each in found["results"]] == [
        (None, "complaint"),  # erased: a keyed hash is left
        ("z***e@example.org", "unsubscribed"),
        ("a***e@example.com", "smtp_550_5.1.1"),
    ]
    assert "does not exist" in found["results"][2]["meaning"]
    assert found["next"] is found["previous"] is None
    only = (await machine.get(PATH, params={"reason": "unsubscribed"})).json()["results"]
    assert [each["address"] for each in only] == ["z***e@example.org"]


async def test_long_lists_have_pages(machine: httpx.AsyncClient, db: Db) -> None:
    for number in range(5):
        suppress(db, f"person{number}@example.com", ago=f"{number} hours")
    first = (await machine.get(PATH, params={"limit": 2})).json()
    second = (await machine.get(first["next"])).json()
    third = (await machine.get(second["next"])).json()
    assert [len(each["results"]) for each in (first, second, third)] == [2, 2, 1]
    assert third["next"] is None
    assert (await machine.get(second["previous"])).json()["results"] == first["results"]
    wrong = await machine.get(PATH, params={"cursor": "abc"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "cursor")


@pytest.mark.parametrize(
    "spelling", ["alice@example.com", "Alice@EXAMPLE.com", "alice%40example.com"]
)
async def test_a_lifted_address_is_mailed_again(
    machine: httpx.AsyncClient, db: Db, people: None, spelling: str
) -> None:
    suppress(db, "alice@example.com")
    assert email_decision(db, "alice") == ["off", "suppressed"]
    assert (await machine.delete(f"{PATH}{spelling}/")).status_code == 204
    assert email_decision(db, "alice") == ["on", "default"]
    again = await machine.delete(f"{PATH}{spelling}/")
    assert (again.status_code, again.json()["detail"]) == (404, "This address is not suppressed.")


async def test_a_hash_that_an_erasure_left_is_lifted_by_the_address(
    machine: httpx.AsyncClient, db: Db, people: None
) -> None:
    suppress(db, "alice@example.com")
    db.execute("select tocsin.erase_recipient('alice')")
    assert (await machine.delete(f"{PATH}alice@example.com/")).status_code == 204
    assert (await machine.get(PATH)).json()["results"] == []


@pytest.fixture
def cli(dsn: str, data_dir: Any) -> Callable[..., Result]:
    environ = {"TOCSIN_DATABASE_URL": dsn, "TOCSIN_DATA_DIR": str(data_dir)}
    return lambda *words: CliRunner().invoke(main, ["suppressions", *words], env=environ)


def test_the_commands_list_and_lift_them(cli: Callable[..., Result], db: Db, people: None) -> None:
    assert "No address is suppressed." in cli("list").stderr
    suppress(db, "alice@example.com")
    suppress(db, "zoe@example.org", "unsubscribed", ago="1 hour")
    lines = cli("list").stdout.splitlines()
    assert "a***e@example.com" in lines[0]
    assert "The mailbox does not exist" in lines[0]
    assert "zoe@example.org" in cli("list", "--unmasked").stdout
    assert "zoe" not in cli("list", "--reason", "complaint").stdout
    assert "--limit" in cli("list", "--limit", "1").stderr
    assert "may be mailed again" in cli("lift", "alice@example.com").stdout
    assert email_decision(db, "alice") == ["on", "default"]
    wrong = cli("lift", "alice@example.com")
    assert (wrong.exit_code, wrong.stderr) == (1, "tocsin: This address is not suppressed.\n")
