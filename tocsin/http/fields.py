"""Types of fields with their limits, for the API's description; and pages of long lists.

The database checks most of the limits, since its refusals name the cure."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from tocsin.engine.store.pagination import Cursor, Page, parse_cursor
from tocsin.http.requests import Services


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


T = TypeVar("T")

Limit = Annotated[int, Meta(ge=1, le=100, description="How many a page, 1 to 100.", examples=[20])]
CursorText = Annotated[
    str,
    Meta(
        description="A place in the list: from `next` or `previous`.",
        extra_json_schema={"pattern": "^[A-Za-z0-9_-]+$"},
    ),
]
RecipientId = Annotated[str, Meta(min_length=1, max_length=200)]


class Listing(Struct, Generic[T], frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[T]
    next: str | None = None
    previous: str | None = None


def read_cursor(text: str | None) -> Cursor | None:
    """The place in the list; raises Invalid."""
    return None if text is None else parse_cursor(text)


def beside(
    services: Services, path: str, page: Page[T], query: dict[str, str]
) -> tuple[str | None, str | None]:
    """The addresses of the next and the previous page, with the same filters."""

    def link(cursor: Cursor | None) -> str | None:
        return None if cursor is None else services.url(path, query | {"cursor": str(cursor)})

    return link(page.next), link(page.previous)


def plain(**values: object) -> dict[str, str]:
    """Query values as text, without those that were not given."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }
