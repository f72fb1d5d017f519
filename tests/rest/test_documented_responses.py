"""The API description: each call returns for each kind of mistake what its description lists, and nothing else."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import (
    LINKS,
    METRICS_TOKEN,
    SECRET,
    URL,
    NewNotification,
    bearer,
    token,
)
from tocsin.engine.store.credential import SCOPES, create_api_key
from tocsin.engine.store.database import Database
from tocsin.http.openapi import describe
from tocsin.settings import Settings

Json = dict[str, Any]

STREAM = "/api/notifications/stream/"  # its response has no end
NOWHERE = {
    "event_id": "999",
    "notification_id": "999",
    "device_id": "999",
    "suppression_id": "999",
    "group_key": "1c345OTk",  # of a group of one
}
PROBLEM = "application/problem+json"
# what needs more than one request to come about: each has a test of its own
CIRCUMSTANCES = {"409", "429", "503"}
LARGEST_BODY = {  # bytes, of calls that take more than the others
    "/api/events/": 16_000_000,
    **{
        f"/api/mail-events/{name}/": 1_000_000
        for name in ("generic", "dsn", "ses", "postmark", "mailgun", "sendgrid")
    },
}
PROVIDERS = ("/ses/", "/postmark/", "/mailgun/", "/sendgrid/")
WRONG_VALUES: dict[str, tuple[str, ...]] = {
    "query": ("0.5", "-1", "\x00", "nonsense!", "x" * 9000),
    "path": ("0", "99999999999999999999", "%00", "x" * 201, "%FF", "a%2Fb"),
    "header": (),
}
WRONG_BODIES = (b"", b"{", b"[]", b"null", b'{"no_such": 1}', b"\xff", b'{"a": "\\u0000"}')


@pytest.fixture  # type: ignore[no-redef]
def settings() -> Settings:  # in place of the imported one
    """Each provider may report mails, with a proof that no visitor has."""
    return Settings(
        jwt_secret=SECRET,
        jwt_algorithms=("HS256",),
        public_url=URL,
        metrics_token=METRICS_TOKEN,
        ses_topics=("arn:aws:sns:eu-west-1:123456789012:others",),
        postmark_secret="a secret of sixteen and more",
        mailgun_signing_key="a secret of sixteen and more",
        sendgrid_public_key="none that verifies",
    )


def calls(doc: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in doc["paths"].items():
        for method, call in methods.items():
            yield method.upper(), path, call


def address(path: str, **known: str) -> str:
    values = defaultdict(lambda: "nobody", NOWHERE | known)
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)


def body_of(call: Json) -> Json:
    content: Json = call.get("requestBody", {}).get("content", {})
    return content


class Visitor:
    """Makes requests and compares each response with the description."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.wrong: list[str] = []
        self.seen: dict[tuple[str, str], set[str]] = defaultdict(set)

    async def ask(
        self, method: str, path: str, call: Json, *, at: str = "", **named: Any
    ) -> httpx.Response:
        response = await self._client.request(method, at or address(path), **named)
        status = str(response.status_code)
        self.seen[method, path].add(status)
        shown = f"{method} {at or path} {named}"[:200]
        documented = call["responses"].get(status)
        kind = response.headers.get("content-type", "").split(";")[0]
        if documented is None:
            self.wrong.append(f"{shown}: {status} is not documented: {response.text[:100]}")
        elif "content" in documented and kind not in documented["content"]:
            self.wrong.append(f"{shown}: {status} is {kind}, not {list(documented['content'])}")
        elif "content" not in documented and response.content:
            self.wrong.append(f"{shown}: {status} has content")
        return response


@pytest_asyncio.fixture
async def credentials(database: Database) -> dict[str, dict[str, str]]:
    """By security scheme, of one who may make every call of it."""
    _, app = await create_api_key(database, "app", scopes=SCOPES[:-1])
    _, ops = await create_api_key(database, "ops", scopes=["ops"])
    return {
        "token": bearer(token("alice")),
        "api_key": bearer(app),
        "ops_key": bearer(ops),
        "metrics_token": bearer(METRICS_TOKEN),
    }


@pytest_asyncio.fixture
async def visitor(app: Litestar) -> AsyncIterator[Visitor]:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1), raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        yield Visitor(client)


@pytest.fixture
def doc(app: Litestar) -> Json:
    found: Json = describe(app)
    return found


def good(call: Json, credentials: dict[str, dict[str, str]]) -> dict[str, str]:
    schemes = [name for each in call["security"] for name in each]
    return next((credentials[name] for name in schemes if name in credentials), {})


def bad(call: Json, credentials: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """None, forged ones, and good ones of others."""
    schemes = {name for each in call["security"] for name in each}
    others = [value for name, value in credentials.items() if name not in schemes]
    return [{}, bearer("tocsin_forged"), bearer(token(key="k" * 32)), *others] if schemes else [{}]


async def visit(visitor: Visitor, method: str, path: str, call: Json, own: dict[str, str]) -> None:
    """One call with good credentials, and each kind of mistake in its query, path and body."""
    content = body_of(call)
    example = content.get("application/json", {}).get("example")
    named: Json = {"headers": own} if example is None else {"headers": own, "json": example}
    await visitor.ask(method, path, call, **named)
    await visitor.ask(method, path, call, at=address(path).rstrip("/"), **named)
    foreign = own | {"Sec-Fetch-Site": "cross-site"}
    await visitor.ask(method, path, call, **(named | {"headers": foreign}))
    await visitor.ask(method, path, call, params={"no_such": "1"}, **named)
    for each in call.get("parameters", ()):
        for value in WRONG_VALUES[each["in"]]:
            asked: Json = {"params": {each["name"]: value}} if each["in"] == "query" else {}
            at = address(path, **{each["name"]: value}) if each["in"] == "path" else ""
            await visitor.ask(method, path, call, at=at, **asked, **named)
    for kind in content:
        headers = own | {"Content-Type": kind}
        size = LARGEST_BODY.get(path, 64_000)
        for body in (*WRONG_BODIES, b"x" * (size + 1)):
            response = await visitor.ask(method, path, call, headers=headers, content=body)
            if not body and kind == "application/json":
                needed = call["requestBody"]["required"]
                assert (response.status_code == 400) == needed, (method, path)


async def test_every_mistake_gets_a_documented_response_and_each_documented_one_occurs(
    visitor: Visitor,
    doc: Json,
    credentials: dict[str, dict[str, str]],
    new_notification: NewNotification,
) -> None:
    for method, path, call in calls(doc):
        for headers in bad(call, credentials):
            await visitor.ask(method, path, call, headers=headers)
        if path == STREAM:  # a good one has no end
            own = good(call, credentials)
            for params in ({"ticket": "none"}, {"ticket": "x" * 201}, {"no_such": "1"}):
                await visitor.ask(method, path, call, params=params, headers=own)
        else:
            await visit(visitor, method, path, call, good(call, credentials))
    await follow_links(visitor, doc, new_notification)
    await load_modules(visitor, doc)
    assert not visitor.wrong, "\n".join(visitor.wrong)
    missing = [
        f"{method} {path}: {status}"
        for method, path, call in calls(doc)
        for status, response in call["responses"].items()
        if PROBLEM in response.get("content", {})
        and status not in visitor.seen[method, path] | CIRCUMSTANCES
    ]
    # where no token is set, and no proof of a provider
    assert [each for each in missing if "/mail-events/" not in each] == ["GET /metrics/: 404"]
    assert {each for each in missing if "/mail-events/" in each} == {
        *(f"POST {each}: 404" for each in LARGEST_BODY if each.endswith(PROVIDERS)),
        "POST /api/mail-events/ses/: 403",  # a message of another topic
    }


async def follow_links(visitor: Visitor, doc: Json, new_notification: NewNotification) -> None:
    """Of mails, whose tokens name somebody."""
    now = datetime.now(UTC)
    links = {
        "/c/{token}/": LINKS.open(new_notification(action_url="/x"), "alice", now),
        "/unsubscribe/{token}/": LINKS.unsubscribe("alice", "forum.new_reply", now),
        "/a/{token}/": LINKS.choose(
            new_notification(actions=[{"key": "yes", "label": "Yes"}]), "alice", now
        ),
    }
    for path, link in links.items():
        for method, call in doc["paths"][path].items():
            named: Json = {"at": link.removeprefix(URL)}
            response = await visitor.ask(method.upper(), path, call, data={"key": "yes"}, **named)
            assert response.status_code in (200, 303)
            if method == "post":
                wrong = {"scope": "none", "key": "no"}
                for fields in (wrong, {"undo": "2"}, {"scope": "x" * 64_001}):
                    await visitor.ask("POST", path, call, data=fields, **named)


async def load_modules(visitor: Visitor, doc: Json) -> None:
    """Each of /assets/, by both of its addresses, and again once it is known."""
    call = doc["paths"]["/assets/"]["get"]
    for name, each in (await visitor.ask("GET", "/assets/", call)).json().items():
        for path in ("/assets/{name}/", "/assets/{version}/{name}/"):
            at = f"/assets/{name}/" if "version" not in path else each["url"].removeprefix(URL)
            call = doc["paths"][path]["get"]
            response = await visitor.ask("GET", path, call, at=at)
            assert response.status_code == 200
            known = {"If-None-Match": response.headers["etag"]}
            again = await visitor.ask("GET", path, call, at=at, headers=known)
            assert again.status_code == 304


async def test_every_example_of_a_body_is_taken(
    visitor: Visitor, doc: Json, credentials: dict[str, dict[str, str]], people: None
) -> None:
    for method, path, call in calls(doc):
        for kind, content in body_of(call).items():
            if kind == "application/json":
                example = content["example"]
                response = await visitor.ask(
                    method, path, call, headers=good(call, credentials), json=example
                )
                assert response.status_code != 400, (method, path)
                assert "There is no such field" not in response.text
    assert not visitor.wrong, "\n".join(visitor.wrong)


async def test_a_path_names_all_its_methods_to_anybody_and_where_one_is_none_of_them(
    visitor: Visitor, doc: Json, anyone: httpx.AsyncClient, credentials: dict[str, dict[str, str]]
) -> None:
    for path, methods in doc["paths"].items():
        known = {method.upper() for method in methods}
        options = await anyone.options(address(path))
        assert (options.status_code, options.content) == (204, b""), path
        named = set(options.headers["allow"].split(", "))
        assert named - {"HEAD"} == known | {"OPTIONS"}, path
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - known:
            headers = good(next(iter(methods.values())), credentials)
            response = await anyone.request(method, address(path), headers=headers)
            assert response.status_code == 405, (method, path, response.text)
            assert response.headers["content-type"] == PROBLEM
            allowed = set(re.split(r",\s*", response.headers["allow"])) - {"OPTIONS", "HEAD"}
            assert allowed == known, (method, path)


def long_texts(doc: Json) -> Iterator[tuple[str, str, Json, str, int]]:
    """(method, path, call, property, its longest text) of each body in JSON that takes one so long."""
    schemas = doc["components"]["schemas"]
    for method, path, call in calls(doc):
        schema = body_of(call).get("application/json", {}).get("schema", {})
        found = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        for name, each in found.get("properties", {}).items():
            for kind in (each, *each.get("oneOf", ())):
                longest = kind.get("maxLength", 10**9)
                if longest < (LARGEST_BODY["/api/events/"] if path == "/api/events/" else 60_000):
                    yield method, path, call, name, longest


async def test_a_text_longer_than_its_description_allows_is_refused_and_one_as_long_is_not(
    visitor: Visitor, doc: Json, credentials: dict[str, dict[str, str]], people: None
) -> None:
    tried = list(long_texts(doc))
    assert len(tried) > 10
    for method, path, call, name, longest in tried:
        base = body_of(call)["application/json"]["example"]
        base = {k: v for k, v in base.items() if name != "email" or k != "recipients"}
        for length in (longest, longest + 1):
            text = "/" * length if name == "action_url" else "a" * length
            headers = good(call, credentials)
            body = base | {name: text}
            response = await visitor.ask(method, path, call, headers=headers, json=body)
            errors = response.json().get("errors", ()) if response.content else ()
            messages = [each["message"] for each in errors if each["field"] == name]
            if length > longest:
                assert (response.status_code, len(messages)) == (422, 1), (path, name)
            else:
                assert not re.search(r"at most|long|characters|length", str(messages)), (
                    path,
                    messages,
                )
    assert not visitor.wrong, "\n".join(visitor.wrong)


@pytest.mark.parametrize("number", ["0.5", "0", "1e3", "1795248930", "-1"])
async def test_a_number_is_no_time(
    anyone: httpx.AsyncClient, doc: Json, credentials: dict[str, dict[str, str]], number: str
) -> None:
    tried = 0
    for method, path, call in calls(doc):
        for each in call.get("parameters", ()):
            kinds = (each["schema"], *each["schema"].get("oneOf", ()))
            if any(kind.get("format") == "date-time" for kind in kinds):
                response = await anyone.request(
                    method,
                    address(path),
                    headers=good(call, credentials),
                    params={each["name"]: number},
                )
                assert response.status_code == 422, path
                assert response.json()["errors"][0]["field"] == each["name"]
                tried += 1
    assert tried > 1
