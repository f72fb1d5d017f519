"""Texts with limits, for the API's description; the database checks them, since its refusals name the cure."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def _limits(low: int, high: int) -> Meta:
    return Meta(extra_json_schema={"minLength": low, "maxLength": high})


Id = Annotated[str, _limits(1, 200)]
Address = Annotated[
    str, Meta(extra_json_schema={"maxLength": 254, "pattern": r"^[^@\s]+@[^@\s]+$"})
]
Name = Annotated[str, _limits(0, 200)]
Title = Annotated[str, _limits(1, 500)]
Body = Annotated[str, _limits(0, 100_000)]
BodyHtml = Annotated[str, _limits(0, 200_000)]
Locale = Annotated[
    str,
    Meta(
        description="A BCP 47 tag, such as `pt-BR`.",
        extra_json_schema={"pattern": "^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$"},
    ),
]
Zone = Annotated[
    str,
    Meta(description="An IANA name, such as `Europe/Rome`.", extra_json_schema={"minLength": 1}),
]
EventTypeName = Annotated[
    str,
    Meta(
        description="An event type, such as `forum.new_reply`.",
        extra_json_schema={"pattern": r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$"},
    ),
]
CategoryName = Annotated[
    str,
    Meta(
        description="A category, such as `forum`.",
        extra_json_schema={"pattern": "^[a-z][a-z0-9_]*$"},
    ),
]
ActionUrl = Annotated[str, _limits(1, 2000)]
Topic = Annotated[
    str,
    Meta(
        description="1 to 200 characters of `A-Z a-z 0-9 . _ : / -`.",
        examples=["forum.thread:42"],
        extra_json_schema={"pattern": "^[A-Za-z0-9._:/-]{1,200}$"},
    ),
]
