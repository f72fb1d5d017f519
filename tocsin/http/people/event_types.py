"""The catalogue."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Annotated

from litestar import Response
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from tocsin.engine.store.event import list_event_types
from tocsin.http import examples
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.pages.reader import reader
from tocsin.http.paging import Listing
from tocsin.http.requests import read_query, reply
from tocsin.http.services import Services


class CatalogueType(Struct, frozen=True):
    """One event type."""

    event_type: str
    label: str
    default_channels: list[str]
    mandatory_channels: list[str]
    priority: str
    digest: bool  # digests may hold it


class CatalogueCategory(Struct, frozen=True):
    """A category with its event types."""

    category: str
    label: str
    event_types: list[CatalogueType]


class CatalogueQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """In which language."""

    locale: Annotated[
        str,
        Meta(
            max_length=35,
            pattern="^[A-Za-z0-9_-]*$(?!\n)",
            description="Labels in this language, where there are words of them; else as the catalogue has them.",
        ),
    ] = ""


@get(
    "/api/event-types/",
    opt=documented(
        Operation(
            summary="List the event types",
            description="By category, in the catalogue's order.",
            tag="Preferences",
            query=CatalogueQuery,
            answers={200: Answer("All of them.", Listing[CatalogueCategory], examples.EVENT_TYPES)},
        )
    ),
)
async def event_types(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """All event types by category."""
    query = read_query(request, CatalogueQuery)
    label: Callable[[str], str] = str
    if query.locale:  # by the same words as in the mails
        label = reader(services, request, query.locale).language.label
    rows = await list_event_types(services.database)
    categories = [
        CatalogueCategory(
            category,
            label(category_label),
            [
                CatalogueType(
                    row.event_type,
                    label(row.label),
                    row.default_channels,
                    row.mandatory_channels,
                    row.priority,
                    row.digest,
                )
                for row in group
            ],
        )
        for (category, category_label), group in groupby(
            rows, lambda row: (row.category, row.category_label)
        )
    ]
    return reply({"results": categories})
