"""Which input is valid: the same rule by SQL, by HTTP, for links in HTML, and for addresses of mails."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypotheses
from hypothesis import strategies as st

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tocsin.engine.actors.email_mime import to_address
from tocsin.engine.mail.links import Links
from tocsin.engine.text import is_web_address, sanitise
from tocsin.settings.addresses import address_fault

# Only immutable functions are called, so that all examples may share one database.
MANY = hypotheses(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

INVISIBLE = [
    "",
    " \t",
    "\u200b",
    "\ufeff\u200d",
    "\u202a\u202c",
    "\u2066\u2069",
    "\u3164",
    "\u115f\uffa0",
    "\u0301",
    "\u2800",
    "\u00ad",
    "\u3000\u00a0",
    "\ufe0f",
    "\U000e0041",
]
TWO_LINES = [f"a{char}b" for char in "\n\r\x0b\x0c\x1c\x85\u2028\u2029\x00"]
ONE_LINE = ["a", "Zoë", "é", "👩‍👩‍👧", "א\u200f", "日本", "x\u200b", "क्ष"]

WEB_ADDRESSES = [
    "/",
    "/a//b?c=/d#e",
    "/فارسی‌زبان",
    "/a\"b<c>'d",
    "http://a",
    "HTTPS://Example.COM",
    "https://example.com.",
    "https://example.com:65535/",
    "https://example.com:443?a#b",
    "https://example.com#a",
    "https://my_host.internal/a",
    "https://xn--bcher-kva.example/",
    "https://bücher.example/",
    "https://例え.jp/a",
    "https://127.0.0.1:8000/a@b:c",
    "https://1.example.com",
]
NO_WEB_ADDRESSES = [
    "",
    "a",
    "?a",
    "#a",
    "./a",
    "//example.com/a",
    "/\\example.com",
    "/a\\b",
    "/a b",
    "/a\tb",
    "/a\x85b",
    "/a\u2028b",
    "/\u202etxt.exe",
    "https:",
    "https://",
    "https:///a",
    "https:/example.com",
    "https://?a",
    "https://:443",
    "https://example.com:",
    "https://example.com:abc",
    "https://example.com:0",
    "https://example.com:65536",
    "https://example.com:443a",
    "https://example.com:8000:1",
    "https://[::1",
    "https://::1/",
    "https://[::1]/",
    "https://user@example.com/",
    "https://user:pw@example.com",
    "https://example.com\\@evil.example/",
    "https://exa mple.com",
    "https://exa%6dple.com",
    "https://a..b",
    "https://.a",
    "https://1.2.3",
    "https://1.2.3.256",
    "https://example.1",
    "https://good.example／@evil.example",
    "https://good.example．evil",
    "https://a℀b.example",
    "https://exam\u200bple.com",
    "https://<b>.example",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    " https://example.com",
    "https://example.com\n",
    "ftp://example.com",
    "data:text/html,x",
]

ADDRESSES = [
    "alice@example.com",
    "A.B+c@Example.COM",
    "o'neil!#$%&*/=?^_`{|}~-@example.com",
    "a@localhost",
    "a@b.c",
    "a@1.example",
    "a@a-b--c.example",
    f"{'a' * 64}@example.com",
    f"a@{'b' * 63}.example",
    "zoë@bücher.example",
    "用户@例子.广告",
    "दो@डेटामेल.भारत",
]
NO_ADDRESSES = [
    "",
    "alice",
    "@example.com",
    "alice@",
    "a@b..c",
    "a@-b.com",
    "a@b-.com",
    "a@b.com.",
    "a@.b.com",
    f"{'a' * 65}@example.com",
    f"{'ä' * 33}@example.com",
    f"a@{'b' * 64}.com",
    f"a@{'ü' * 60}.com",
    f"a@{'.'.join(['b' * 60] * 5)}.com",
    ".a@b.com",
    "a.@b.com",
    "a..b@c.com",
    "a b@c.com",
    '"a b"@c.com',
    "a(b)@c.com",
    "a,b@c.com",
    "a@b,c@d",
    "a@b@c",
    "a;b@c.com",
    "a\\b@c.com",
    "<a@b.com>",
    "Alice <a@b.com>",
    "‹a@b.com›",
    "a@b.com›",
    "a@127.0.0.1",
    "a@[127.0.0.1]",
    "a@b_c.com",
    "a@b.123",
    "a@b c.com",
    "a\u200bb@c.com",
    "a\u2028b@c.com",
    "a@b\u2028.com",
    "a\n@b.com",
    "a@b.com\n",
    "a@b＠c.com",
]


def taken(db: Db, function: str, values: list[str]) -> list[str]:
    """Those that a function of the database returns true for."""
    rows = db.execute(
        "select u from unnest(%s::text[]) with ordinality v (u, n) where "
        + {"line": "tocsin.is_line(u)", "web": "tocsin.is_web_address(u)"}[function]
        + " order by n",
        ([value for value in values if "\0" not in value],),
    )
    return [value for (value,) in rows]


def refusal(db: Db, statement: str, *arguments: Any) -> tuple[str, str] | None:
    """The code and the argument that a statement is refused with."""
    try:
        with db.transaction():
            db.execute(statement, arguments)
    except psycopg.Error as error:
        cure = error.diag.message_hint
        return str(error.sqlstate), str(error.diag.column_name) if cure else "without a cure"
    return None


def test_a_line_has_no_break_and_a_character_that_can_be_seen(db: Db) -> None:
    assert taken(db, "line", INVISIBLE + TWO_LINES + ONE_LINE) == ONE_LINE


@MANY
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_line_that_is_accepted_is_one_for_python_too(db: Db, text: str) -> None:
    if taken(db, "line", [text]):
        assert len(text.splitlines()) == 1
        assert not all(
            unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") for char in text
        )


async def test_sql_and_http_refuse_the_same_lines(
    db: Db, people: None, machine: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    for text in (*INVISIBLE, *TWO_LINES[:-1]):
        await refuse_line(db, machine, alice, text)
    assert db.execute("select count(*) from tocsin.event").fetchone() == (0,)
    assert db.execute("select count(*) from tocsin.device").fetchone() == (0,)


async def refuse_line(
    db: Db, machine: httpx.AsyncClient, alice: httpx.AsyncClient, text: str
) -> None:
    event = {"event_type": "forum.new_reply", "recipients": ["alice"], "title": "t"}
    statement = "select tocsin.notify('forum.new_reply', array['alice'], %s, initiator => %s, idempotency_key => %s)"
    assert refusal(db, statement, text, None, None) == ("TC004", "title")
    assert refusal(db, statement, "t", text, None) == ("TC004", "initiator")
    assert refusal(db, statement, "t", None, text) == ("TC004", "idempotency_key")
    assert refusal(db, "select tocsin.upsert_recipient(%s)", text) == ("TC004", "id")
    for field in ("title", "initiator"):
        response = await machine.post("/api/events/", json=event | {field: text})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
    device = {"token": "ab" * 32, "platform": "ios", "label": text}
    response = await alice.post("/api/push-tokens/", json=device)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "label")
    if text in TWO_LINES:
        response = await machine.put("/api/recipients/alice/", json={"name": text})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "name")


def test_web_addresses_are_the_same_for_sql_and_python(db: Db) -> None:
    both = WEB_ADDRESSES + NO_WEB_ADDRESSES
    assert taken(db, "web", both) == WEB_ADDRESSES
    assert [each for each in both if is_web_address(each)] == WEB_ADDRESSES


PARTS = ["https://", "http://", "/", "//", "\\", "@", ":", "[", "]", "?", "#", ".", "%", "a", "1"]
PARTS += ["::1", "256", "443", "65536", "example.com", "127.0.0.1", "ü", "／", "．", "\u200b", " "]


@MANY
@given(
    st.one_of(
        st.text(max_size=20),
        st.lists(st.sampled_from(PARTS), max_size=8).map("".join),
        st.lists(st.sampled_from(PARTS), max_size=8).map(lambda parts: "https://" + "".join(parts)),
        st.characters(exclude_categories=["Cs"]).map(
            lambda char: f"https://a{char}b.example/{char}"
        ),
    ).filter(lambda text: "\0" not in text)
)
def test_a_web_address_is_read_alike_by_sql_python_and_the_standard_library(
    db: Db, address: str
) -> None:
    from urllib.parse import urlsplit

    address = address.encode("utf-8", "replace").decode()
    fine = is_web_address(address)
    assert bool(taken(db, "web", [address])) is fine
    if fine:
        parts = urlsplit(address)  # raises ValueError for what it can't read
        assert parts.username is None
        assert parts.port is None or 1 <= parts.port <= 65535
        assert bool(parts.hostname) is not address.startswith("/")


async def test_an_action_url_that_is_none_is_refused_by_sql_and_http(
    db: Db, people: None, machine: httpx.AsyncClient
) -> None:
    statement = "select tocsin.notify('forum.new_reply', array['alice'], 't', '', %s)"
    assert [refusal(db, statement, each) for each in NO_WEB_ADDRESSES] == [
        ("TC004", "action_url")
    ] * len(NO_WEB_ADDRESSES)
    assert {refusal(db, statement, each) for each in WEB_ADDRESSES} == {None}
    for each in ("https://[::1", "https://example.com:abc", "//example.com"):
        event = {"event_type": "forum.new_reply", "recipients": ["alice"], "title": "t"}
        response = await machine.post("/api/events/", json=event | {"action_url": each})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "action_url")


def test_links_in_html_are_held_to_the_rule_of_action_urls() -> None:
    links = Links("https://notify.test/prefix", b"k" * 32)

    def href(target: str, base_url: str | None = None) -> str | None:
        escaped = target.replace("&", "&amp;").replace('"', "&quot;")
        found = re.search(
            r'href="([^"]*)"', sanitise(f'<a href="{escaped}">a</a>', base_url=base_url)
        )
        return found and found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")

    for each in WEB_ADDRESSES:
        assert href(each) == each
        assert href(each, links.public_url) == links.absolute(each)
    for each in NO_WEB_ADDRESSES:
        if each != each.strip():
            continue  # browsers drop what is around a link
        assert href(each) is None, each
        assert href(each, links.public_url) is None, each
    assert href(" https://example.com\n") == "https://example.com"
    assert href("mailto:a@b.example") == "mailto:a@b.example"
    assert href("mailto:a\u202e@b.example") is None
    assert sanitise('<p>a <a href="https://[::1">b</a></p>').startswith("<p>a <a")


async def test_an_address_that_no_server_takes_is_refused_at_each_door(
    db: Db, people: None, machine: httpx.AsyncClient
) -> None:
    doors = [
        "select tocsin.upsert_recipient('zoe', %s)",
        "select tocsin.notify_email(%s, 'event.invited', 't')",
        "select tocsin.claim_email(%s, 'alice')",
        "select tocsin.create_missing_recipients(%s)",
    ]
    for door in doors:
        as_json = door.endswith("recipients(%s)")
        for each in NO_ADDRESSES:
            argument = json.dumps([{"id": "new", "email": each}]) if as_json else each
            found = refusal(db, door, argument)
            assert found is not None, (door, each)
            assert found[0] == "TC004", (door, each)
            assert found[1].endswith("email"), (door, each)
        for each in ADDRESSES:
            argument = json.dumps([{"id": each[:9], "email": each}]) if as_json else each
            assert refusal(db, door, argument) is None, (door, each)
    for each in ("a@b..c", "a@-b.com", f"{'a' * 65}@b.com", "a@b.com."):
        response = await machine.put("/api/recipients/zoe/", json={"email": each})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "email")
        event = {"event_type": "event.invited", "email": each, "title": "t"}
        response = await machine.post("/api/events/", json=event)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "email")


def test_a_sender_is_held_to_the_same_rule(db: Db) -> None:
    for each in ADDRESSES + NO_ADDRESSES:
        if each.rpartition("@")[0].isascii() and each.isprintable():
            row = db.execute("select tocsin.address_fault(%s) is null", (each,)).fetchone()
            assert row == (address_fault(each) is None,), each


@MANY
@given(
    st.one_of(
        st.emails(),
        st.tuples(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20)).map("@".join),
        st.lists(st.sampled_from([*"ab1@.-_ü☃ß＠。\u200b\u00ad", "xn--"]), max_size=12).map(
            "".join
        ),
        st.characters(exclude_categories=["Cs"]).map(lambda char: f"a@b{char}.example"),
        st.characters(exclude_categories=["Cs"]).map(lambda char: f"a{char}@b.example"),
    )
)
def test_each_address_that_is_accepted_can_be_written_into_a_mail(db: Db, address: str) -> None:
    address = address.replace("\0", "").encode("utf-8", "replace").decode()
    row = db.execute("select tocsin.address_fault(%s) is null", (address,)).fetchone()
    if row == (True,):
        mailbox = to_address(address).address
        assert mailbox.rpartition("@")[2].isascii()
        assert len(mailbox.encode()) <= 254


@pytest.mark.parametrize(
    ("body", "field", "values"),
    [
        ({"platform": "linux"}, "platform", "android, ios, web"),
        ({"platform": "ios", "provider": "sms"}, "provider", "apns, fcm, web_push"),
        ({"platform": "ios", "environment": ""}, "environment", "production, sandbox"),
    ],
)
async def test_a_value_outside_of_a_closed_set_is_refused_with_those_in_it(
    alice: httpx.AsyncClient, body: dict[str, str], field: str, values: str
) -> None:
    response = await alice.post("/api/push-tokens/", json=body | {"token": "ab" * 32})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": field, "message": f"Invalid enum value '{body[field]}'. Give one of: {values}."}
    ]


async def test_an_unknown_meaning_of_unknown_is_refused_with_those_there_are(
    machine: httpx.AsyncClient,
) -> None:
    event = {"event_type": "forum.new_reply", "recipients": ["alice"], "title": "Hello"}
    response = await machine.post("/api/events/", json=event | {"unknown": "ignore"})
    assert response.json()["errors"] == [
        {
            "field": "unknown",
            "message": "Invalid enum value 'ignore'. Give one of: create, error, skip.",
        }
    ]


@pytest.mark.parametrize("recipient", ["", "a\nb", "a" * 201])
async def test_an_id_that_can_not_be_created_names_the_field_that_has_it(
    machine: httpx.AsyncClient, recipient: str
) -> None:
    event = {"event_type": "forum.new_reply", "title": "Hello", "unknown": "create"}
    response = await machine.post("/api/events/", json=event | {"recipients": [recipient]})
    assert response.status_code == 422
    assert [each["field"] for each in response.json()["errors"]] == ["recipients"]


_EVENT = {"event_type": "forum.new_reply", "recipients": ["alice"], "title": "Hello"}
_TIME = "Give a time such as 2026-11-21T09:30:00Z."
_HOUR = "Give a value such as 22:30."


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "message"),
    [
        ("PATCH", "/api/digest-preferences/", {"send_at": "7:00"}, "send_at", _HOUR),
        ("PUT", "/api/quiet-hours/", {"starts": "25:00", "ends": "07:00"}, "starts", _HOUR),
        ("GET", "/api/event-types/?locale=d%20e", None, "locale", "Give a value such as de-AT."),
        (
            "PATCH",
            "/api/notification-preferences/",
            {"overrides": {"*": {"push": True}, "forum.*": {"push": True, "email": "no"}}},
            "overrides.forum.*.email",
            "Expected bool | null, got str.",
        ),
        (
            "PATCH",
            "/api/notification-preferences/",
            {"overrides": {"*": {"push": True}, "forum.*": False}},
            "overrides.forum.*",
            "Expected object, got bool.",
        ),
    ],
)
async def test_a_person_reads_which_value_is_wrong_and_what_would_be_right(
    alice: httpx.AsyncClient, method: str, path: str, body: Any, field: str, message: str
) -> None:
    response = await alice.request(method, path, json=body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "message": message}]


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "message"),
    [
        ("POST", "/api/events/", _EVENT | {"send_at": "tomorrow"}, "send_at", _TIME),
        ("POST", "/api/events/", _EVENT | {"send_at": "2026-12-01T10:00:00"}, "send_at", _TIME),
        ("POST", "/api/events/", _EVENT | {"send_at": 5}, "send_at", _TIME),
        ("GET", "/api/events/?since=2026-12-01", None, "since", _TIME),
        (
            "GET",
            "/api/chat-targets/?topic=a%20b",
            None,
            "topic",
            "Give a value such as forum.thread:42.",
        ),
        (
            "PUT",
            "/api/chat-targets/sales%20team/",
            {"kind": "slack", "url": "https://hooks.slack.com/services/x"},
            "name",
            "Give a value such as sales-team.",
        ),
    ],
)
async def test_an_app_reads_which_value_is_wrong_and_what_would_be_right(
    machine: httpx.AsyncClient, method: str, path: str, body: Any, field: str, message: str
) -> None:
    response = await machine.request(method, path, json=body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "message": message}]
