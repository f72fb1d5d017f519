"""Pages of long lists, with absolute links to the ones beside."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from tocsin.engine.store.pagination import Cursor, Page, parse_cursor
from tocsin.http.services import Services

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
