"""Types of fields with their limits, for the API's description; and pages of long lists.

The database checks those of bodies, since its refusals name the cure; those of parameters are checked as they are read.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar.datastructures import ResponseHeader
from litestar.openapi.spec import Example
from litestar.params import KwargDefinition, PathParameter, QueryParameter

from tocsin.engine.store.group import GroupedInbox
from tocsin.engine.store.pagination import Cursor, Page, parse_cursor
from tocsin.http.requests import Services

UNDO = "Tocsin-Undo"
UNDO_HEADER = ResponseHeader(
    name=UNDO, description="What takes it back, by `POST …/undo/`.", documentation_only=True
)


class Described(KwargDefinition):
    """What the description states of a type; hashable whatever it holds, as each part of a union has to be."""

    __hash__ = object.__hash__


def _described(description: str | None = None, **schema: Any) -> Described:
    """Returns the description of a field; the names are those of `litestar.openapi.spec.Schema`."""
    return Described(description=description, schema_extra=schema)


def undo_header(token: str | None) -> dict[str, str]:
    """Returns the header with what takes a change back; none where nothing was changed."""
    return {} if token is None else {UNDO: token}


Id = Annotated[str, _described(minLength=1, maxLength=200)]
Address = Annotated[str, _described(maxLength=254, pattern=r"^[^@\s]+@[^@\s]+$")]
Name = Annotated[str, _described(maxLength=200)]
Title = Annotated[str, _described(minLength=1, maxLength=500)]
Body = Annotated[str, _described(maxLength=100_000)]
BodyHtml = Annotated[str, _described(maxLength=200_000)]
ActionUrl = Annotated[str, _described(minLength=1, maxLength=2000)]
AvatarUrl = Annotated[
    str, _described("The address of a picture; empty removes it.", maxLength=2000)
]
Locale = Annotated[
    str,
    _described("A BCP 47 tag, such as `pt-BR`.", pattern="^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$"),
]
ZoneName = Annotated[str, _described("An IANA name, such as `Europe/Rome`.", minLength=1)]
EventTypeName = Annotated[
    str,
    _described(
        "An event type, such as `forum.new_reply`.",
        pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$",
    ),
]
CategoryName = Annotated[
    str, _described("A category, such as `forum`.", pattern="^[a-z][a-z0-9_]*$")
]
Topic = Annotated[
    str,
    Described(
        description="1 to 200 characters of `A-Z a-z 0-9 . _ : / -`.",
        examples=[Example(value="forum.thread:42")],
        schema_extra={"pattern": "^[A-Za-z0-9._:/-]{1,200}$"},
    ),
]

# Parameters

# What no row can have is not found.
RowId = Annotated[
    int, PathParameter(ge=1, le=2**63 - 1, schema_extra={"format": "int64", "maximum": None})
]
Limit = Annotated[
    int,
    QueryParameter(
        ge=1, le=100, description="How many a page, 1 to 100.", examples=[Example(value=20)]
    ),
]
CursorText = Annotated[
    str,
    _described("A place in the list: from `next` or `previous`.", pattern="^[A-Za-z0-9_-]+$"),
]


def read_cursor(text: str | None) -> Cursor | None:
    """Returns the place in the list; raises Invalid."""
    return None if text is None else parse_cursor(text)


def page_links(
    services: Services, path: str, page: Page[Any] | GroupedInbox, query: dict[str, str]
) -> tuple[str | None, str | None]:
    """Returns the addresses of the next and the previous page, with the same filters."""

    def link(cursor: object | None) -> str | None:
        return None if cursor is None else services.url(path, query | {"cursor": str(cursor)})

    return link(page.next), link(page.previous)


def without_nulls(**values: object) -> dict[str, str]:
    """Returns query values as text, without those that were not given."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }
