"""Requests made to hold the event loop of `tocsin serve`, by name; each is built only when it is used."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

PEOPLE = 100_000  # p1, p2, … in the attacked database


@dataclass(frozen=True)
class Attack:
    """Bytes that are sent repeatedly on each connection, before a response came unless `waits`."""

    sent: bytes
    waits: bool = True


Attacks = dict[str, Callable[[], Attack]]


def attacks(key: str, jwt: str) -> Attacks:
    """Returns all attacks, with the credentials of one app and one person."""
    app, person = f"Authorization: Bearer {key}", f"Authorization: Bearer {jwt}"
    return {
        "nothing": lambda: Attack(request("GET", "/healthz")),
        **_bodies(app),
        **_recipients(app),
        **_choices(person),
        **_heads(person),
        **_without_end(app),
        **_large_responses(app, person),
    }


def _bodies(app: str) -> Attacks:
    """Bodies with too many fields, keys, values or levels."""
    return {
        "58 kB of unknown fields, anonymous": lambda: _posted(
            "POST /ops/session/", {_name(i): 0 for i in range(560)}
        ),
        "16 MB of unknown fields, app": lambda: _posted(
            "POST /api/events/", {_name(i): 0 for i in range(150_000)}, app
        ),
        "3 MB with 200,000 keys of metadata, app": lambda: _posted(
            "POST /api/events/", _event(metadata={str(i): i for i in range(200_000)}), app
        ),
        "15 MB with 3,000,000 values of metadata, app": lambda: _posted(
            "POST /api/events/", _event(metadata={"a": [[0]] * 3_000_000}), app
        ),
        "NUL deep in 900 levels, app": lambda: Attack(
            _with_body(
                "POST /api/events/",
                b'{"event_type":"forum.mention","title":"x","recipients":["p1"],"metadata":{"a":'
                + b'{"a":' * 900
                + b'"\\u0000"'
                + b"}" * 902,
                app,
            )
        ),
    }


def _recipients(app: str) -> Attacks:
    """Events for very many recipients, or for those that cannot be."""
    everybody = [f"p{i}" for i in range(1, PEOPLE + 1)]
    return {
        "3 MB with 200,000 unknown ids, app": lambda: _posted(
            "POST /api/events/", _event(recipients=[f"unknown-{i}" for i in range(200_000)]), app
        ),
        "100,000 known ids, dry run, app": lambda: _posted(
            "POST /api/events/", _event(recipients=everybody, dry_run=True), app
        ),
        "20,000 followers of a topic, dry run, app": lambda: _posted(
            "POST /api/events/",
            _event(topic="forum.thread:1", dry_run=True, recipients=None),
            app,
        ),
        "4 MB with 60,000 objects, dry run, app": lambda: _posted(
            "POST /api/events/",
            _event(
                recipients=[{"id": f"n{i}", "email": f"n{i}@example.com"} for i in range(60_000)],
                dry_run=True,
            ),
            app,
        ),
        "60 kB of objects with bad addresses, app": lambda: _posted(
            "POST /api/events/",
            _event(recipients=[{"id": f"n{i}", "email": "@" * 9} for i in range(1_500)]),
            app,
        ),
    }


def _choices(person: str) -> Attacks:
    """Returns a person's choices with unknown names."""
    return {
        "60 kB of unknown preferences, person": lambda: _posted(
            "PATCH /api/notification-preferences/",
            {"overrides": {_name(i): {} for i in range(500)}},
            person,
        ),
        "60 kB of unknown categories, person": lambda: _posted(
            "PATCH /api/digest-preferences/",
            {"categories": [_name(i)[:50] for i in range(1000)]},
            person,
        ),
    }


def _heads(person: str) -> Attacks:
    """Heads with long or many parts."""
    return {
        "60 kB of query parameters, person": lambda: Attack(
            request("GET", "/api/notifications/?" + "a=&" * 20_000, person)
        ),
        "60 kB of quoted cookie, anonymous": lambda: Attack(_quoted_cookie(15_000)),
        "30 kB of quoted cookie, anonymous": lambda: Attack(_quoted_cookie(7_500)),
        "60 kB of a JWT, anonymous": lambda: Attack(
            request("GET", "/api/notifications/", "Authorization: Bearer " + "e" * 60_000)
        ),
        "20,000 headers, anonymous": lambda: Attack(
            request("GET", "/healthz", *[f"a{i}: b" for i in range(20_000)])
        ),
        "a path of 60,000 segments, anonymous": lambda: Attack(request("GET", "/a" * 60_000)),
    }


def _without_end(app: str) -> Attacks:
    """Bytes that are sent without a pause."""
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1_000_000
    return {
        "a header of 30 MB, anonymous": lambda: Attack(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\na: " + b"b" * 30_000_000, waits=False
        ),
        "a URL of 30 MB, anonymous": lambda: Attack(b"GET /" + b"b" * 30_000_000, waits=False),
        "pipelined requests, anonymous": lambda: Attack(
            b"GET / HTTP/1.1\r\n\r\n" * 60_000, waits=False
        ),
        "chunks of one byte, anonymous": lambda: Attack(
            b"POST /healthz HTTP/1.1\r\nHost: x\r\n" + chunks, waits=False
        ),
        "chunks of one byte, app": lambda: Attack(
            b"POST /api/events/ HTTP/1.1\r\nHost: x\r\n" + app.encode() + b"\r\n" + chunks,
            waits=False,
        ),
    }


def _large_responses(app: str, person: str) -> Attacks:
    """Requests for much data."""
    return {
        "pages of 4 MB, person": lambda: Attack(
            request("GET", "/api/notifications/?limit=100", person)
        ),
        "an export of 8 MB, app": lambda: Attack(request("GET", "/api/recipients/p1/export/", app)),
    }


def request(method: str, path: str, *headers: str) -> bytes:
    """Returns a request without a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _name(number: int) -> str:
    """Returns a hundred letters like those of our fields, which are the slowest to compare."""
    letters = random.Random(number)
    return (
        "".join(letters.choices("eventypidslactor_" + string.ascii_lowercase, k=95))
        + f"{number:05}"
    )


def _event(**fields: object) -> dict[str, object]:
    return {"event_type": "forum.mention", "title": "x", "recipients": ["p1"], **fields}


def _quoted_cookie(quotes: int) -> bytes:
    return request("GET", "/api/notifications/", 'Cookie: tocsin_token="' + '\\"' * quotes + '"')


def _posted(route: str, body: object, *headers: str) -> Attack:
    return Attack(_with_body(route, json.dumps(body, separators=(",", ":")).encode(), *headers))


def _with_body(route: str, body: bytes, *headers: str) -> bytes:
    method, _, path = route.partition(" ")
    sized = (*headers, "Content-Type: application/json", f"Content-Length: {len(body)}")
    return request(method, path, *sized) + body
