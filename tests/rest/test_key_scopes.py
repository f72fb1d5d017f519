"""What a key may do: one scope for each call, event types by pattern, several live keys of one name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from litestar import Litestar, get
from litestar.routes import HTTPRoute

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, bearer
from tocsin.cli import main
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store.credential import (
    APP_SCOPES,
    SCOPES,
    create_api_key,
    list_api_keys,
    revoke_api_keys,
)
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.http.auth import ACCESS, SCOPE
from tocsin.settings import Settings

VALUES = {
    "event_id": "1",
    "recipient_id": "somebody",
    "address": "a@example.com",
    "suppression_id": "1",
    "notification_id": "1",
    "name": "team",
}


SCOPE_OF = {
    ("POST", "/api/events"): "events:write",
    ("GET", "/api/events"): "events:read",
    ("GET", "/api/events/{event_id}"): "events:read",
    ("POST", "/api/events/{event_id}/cancel"): "events:write",
    ("POST", "/api/events/withdraw"): "events:write",
    ("PUT", "/api/recipients/{recipient_id}"): "recipients",
    ("GET", "/api/recipients/{recipient_id}"): "recipients",
    ("DELETE", "/api/recipients/{recipient_id}"): "erase",
    ("POST", "/api/erasures"): "erase",
    ("GET", "/api/recipients/{recipient_id}/export"): "recipients",
    ("POST", "/api/recipients/{recipient_id}/claims"): "recipients",
    ("POST", "/api/recipients/{recipient_id}/read"): "recipients",
    ("PUT", "/api/chat-targets/{name}"): "channels",
    ("GET", "/api/chat-targets"): "channels",
    ("GET", "/api/chat-targets/{name}"): "channels",
    ("DELETE", "/api/chat-targets/{name}"): "channels",
    ("GET", "/api/suppressions"): "suppressions",
    ("DELETE", "/api/suppressions/{address}"): "suppressions",
    ("POST", "/api/mail-events/generic"): "mail-events",
    ("POST", "/api/mail-events/dsn"): "mail-events",
    ("GET", "/api/webhooks"): "channels",
    ("PUT", "/api/webhooks/{name}"): "channels",
    ("GET", "/api/webhooks/{name}"): "channels",
    ("DELETE", "/api/webhooks/{name}"): "channels",
    ("POST", "/api/webhooks/{name}/rotate"): "channels",
    ("POST", "/api/webhooks/{name}/test"): "channels",
    ("POST", "/api/webhooks/{name}/replay"): "channels",
    ("GET", "/api/webhooks/{name}/messages"): "channels",
    ("DELETE", "/ops/session"): "ops",
    ("GET", "/ops/api/overview"): "ops",
    ("GET", "/ops/api/dead-letters"): "ops",
    ("GET", "/ops/api/dead-letters/reasons"): "ops",
    ("POST", "/ops/api/dead-letters/replay"): "ops",
    ("GET", "/ops/api/suppressions"): "ops",
    ("DELETE", "/ops/api/suppressions/{suppression_id}"): "ops",
    ("GET", "/ops/api/search"): "ops",
    ("GET", "/ops/api/notifications/{notification_id}/why"): "ops",
}


def calls_by_key(app: Litestar) -> dict[tuple[str, str], str]:
    """The scope of each (method, path template) that takes keys, as the app has them."""
    return {
        (str(method), route.path_format): handler.opt[SCOPE]
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if handler.opt.get(ACCESS) in ("app", "operator") and method != "OPTIONS"
    }


async def test_each_call_takes_a_key_of_its_own_scope_and_of_no_other(
    app: Litestar, anyone: httpx.AsyncClient, database: Database, people: None
) -> None:
    keys = {scope: (await create_api_key(database, scope, scopes=[scope]))[1] for scope in SCOPES}
    calls = calls_by_key(app)
    assert {call: scope for call, scope in calls.items() if call[0] != "HEAD"} == SCOPE_OF
    for (method, path), needed in calls.items():
        address = re.sub(r"\{(\w+)\}", lambda found: VALUES[found[1]], path) + "/"
        for scope, key in keys.items():
            response = await anyone.request(method, address, headers=bearer(key))
            if scope == needed:
                assert response.status_code not in (401, 403), (method, path, response.text)
            else:
                assert response.status_code == 403, (method, path, scope, response.text)
                assert method == "HEAD" or f"the scope {needed}," in response.json()["detail"]


async def test_a_call_by_a_key_without_a_scope_of_its_own_does_not_start(
    settings: Settings, database: Database
) -> None:
    @get("/api/forgotten/", opt={ACCESS: "app"})
    async def forgotten() -> None:
        """Returns nothing."""

    with pytest.raises(LookupError, match="/api/forgotten"):
        create_app(
            settings, database, BadgeHub(database), link_key=b"k" * 32, extra_routes=[forgotten]
        )


async def test_the_description_names_the_scope_of_each_call(anyone: httpx.AsyncClient) -> None:
    paths = (await anyone.get("/schema/openapi.json")).json()["paths"]
    for (method, path), scope in SCOPE_OF.items():
        security = paths[f"{path}/"][method.lower()]["security"]
        assert [scope] in [each.get("api_key") or each.get("ops_key") for each in security]


async def test_any_key_but_an_operators_reads_the_event_types(
    anyone: httpx.AsyncClient, database: Database
) -> None:
    for scope in SCOPES:
        _, key = await create_api_key(database, scope, scopes=[scope])
        response = await anyone.get("/api/event-types/", headers=bearer(key))
        assert response.status_code == (403 if scope == "ops" else 200), scope


async def test_a_key_for_some_event_types_writes_and_reads_no_others(
    anyone: httpx.AsyncClient, machine: httpx.AsyncClient, database: Database, people: None
) -> None:
    _, key = await create_api_key(database, "forum", event_types=["forum.*", "billing.payment_due"])
    headers = bearer(key)

    def event(event_type: str) -> dict[str, Any]:
        return {"event_type": event_type, "recipients": ["alice"], "title": "New"}

    foreign = (await machine.post("/api/events/", json=event("election.opened"))).json()
    for event_type, status in (
        ("forum.new_reply", 202),
        ("billing.payment_due", 202),
        ("billing.invoice_issued", 403),
        ("election.opened", 403),
        ("forums.new_reply", 403),
        ("", 403),
    ):
        created = await anyone.post("/api/events/", json=event(event_type), headers=headers)
        assert created.status_code == status, event_type
        listed = await anyone.get(
            "/api/events/", params={"event_type": event_type}, headers=headers
        )
        assert listed.status_code == (200 if status == 202 else 403)
        if status == 202:
            path = f"/api/events/{created.json()['event_id']}/"
            assert (await anyone.get(path, headers=headers)).status_code == 200
            assert (await anyone.post(f"{path}cancel/", headers=headers)).status_code == 200
        else:
            assert "forum.*" in created.json()["detail"]
    path = f"/api/events/{foreign['event_id']}/"
    for method, address in (
        ("GET", "/api/events/"),
        ("GET", "/api/events/?recipient=alice"),
        ("GET", path),
        ("POST", f"{path}cancel/"),
    ):
        assert (await anyone.request(method, address, headers=headers)).status_code == 403
    assert (await machine.get(path)).json()["deliveries"] != {}
    everything = (await machine.get("/api/events/")).json()["results"]
    assert len(everything) == 3


@pytest.mark.parametrize(
    ("wrong", "cure"),
    [
        ({"scopes": ["events"]}, "events:write"),
        ({"scopes": []}, "events:write"),
        ({"event_types": ["*"]}, "forum.*"),
        ({"event_types": ["forum"]}, "forum.*"),
        ({"event_types": ["forum.*.x"]}, "forum.*"),
        ({"event_types": ["forum.new_repyl"]}, "forum.new_reply"),
        ({"event_types": ["form.*"]}, "forum"),
        ({"event_types": ["forum.*"] * 101}, "at most 100"),
    ],
)
async def test_a_wrong_scope_or_pattern_makes_no_key(
    database: Database, wrong: dict[str, Any], cure: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await create_api_key(database, "wrong", **wrong)
    assert cure in caught.value.fields[0][1]
    assert await list_api_keys(database) == []


async def test_two_keys_of_one_name_are_live_until_one_is_revoked(
    anyone: httpx.AsyncClient, database: Database
) -> None:
    async def status(key: str) -> int:
        return (await anyone.get("/api/events/", headers=bearer(key))).status_code

    first_id, first = await create_api_key(database, "shop")
    _, second = await create_api_key(database, "shop")
    assert [await status(first), await status(second)] == [200, 200]
    (ended,) = await revoke_api_keys(database, str(first_id))
    assert ended.id == first_id
    assert [await status(first), await status(second)] == [401, 200]
    assert all(each.last_used_at for each in await list_api_keys(database))


async def test_a_key_is_revoked_by_its_id_its_beginning_or_its_name(database: Database) -> None:
    keys = [await create_api_key(database, name) for name in ("a", "a", "b", "c", "7000")]

    async def revoked(which: str) -> list[int]:
        return [each.id for each in await revoke_api_keys(database, which)]

    for nothing in ("nobody", "tocsin_", "tocsin_$", "", str(keys[-1][0] + 1), "a" * 500):
        with pytest.raises(NotFound, match="api-key list"):
            await revoked(nothing)
    assert await revoked(keys[2][1]) == [keys[2][0]]
    assert await revoked(keys[3][1][:13]) == [keys[3][0]]
    assert await revoked("a") == [keys[0][0], keys[1][0]]
    assert await revoked("7000") == [keys[4][0]]
    with pytest.raises(NotFound):
        await revoked("a")


async def test_what_begins_several_keys_revokes_none(database: Database, db: Db) -> None:
    for _ in range(2):
        await create_api_key(database, "twin")
    db.execute("update tocsin.api_key set prefix = 'tocsin_AAAAAA'")
    with pytest.raises(Invalid) as caught:
        await revoke_api_keys(database, "tocsin_AAA")
    ids = ", ".join(str(each.id) for each in await list_api_keys(database))
    assert ids in caught.value.fields[0][1]
    assert all(each.revoked_at is None for each in await list_api_keys(database))


@pytest.fixture
def cli(dsn: str, data_dir: Any) -> Callable[..., Result]:
    environ = {"TOCSIN_DATABASE_URL": dsn, "TOCSIN_DATA_DIR": str(data_dir)}
    return lambda *words: CliRunner().invoke(main, ["api-key", *words], env=environ)


def test_the_commands_make_show_and_end_keys(cli: Callable[..., Result], db: Db) -> None:
    assert "api-key create NAME" in cli("list").stderr
    first = cli("create", "shop").stdout.splitlines()[-1]
    limited = ("--scope", "events:write", "--event-types", "forum.*")
    second = cli("create", "shop", *limited).stdout.splitlines()[-1]
    lines = cli("list").stdout.splitlines()
    assert [first[:13] in lines[0], second[:13] in lines[1]] == [True, True]
    assert ",".join(APP_SCOPES) in lines[0]
    assert "mail-events" not in lines[0]
    assert "events:write for forum.*" in lines[1]
    assert all("made 2" in line and "never used" in line for line in lines)
    assert first not in cli("list").stdout
    help_text = " ".join(cli("create", "--help").stdout.split())
    assert all(scope in help_text for scope in SCOPES)
    for wrong, cure in (
        (("create", "x", "--scope", "all"), "Use some of events:write"),
        (("create", "x", "--event-types", "x.*"), "There are"),
        (("revoke", "nobody"), "api-key list"),
    ):
        result = cli(*wrong)
        assert (result.exit_code, result.stdout) == (1, "")
        assert cure in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert cli("revoke", "shop").stdout.count("Revoked") == 2
    assert cli("list").stdout.count("revoked") == 2
