"""The catalogue."""

from __future__ import annotations

from itertools import groupby

from litestar import Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.store.event_type import list_event_types
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.paging import Listing
from tocsin.http.parse import reply
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


@get(
    "/api/event-types/",
    opt=documented(
        Operation(
            summary="List the event types",
            description="By category, in the catalogue's order.",
            tag="Preferences",
            answers={200: Answer("All of them.", Listing[CatalogueCategory], examples.EVENT_TYPES)},
        )
    ),
)
async def event_types(services: NamedDependency[Services]) -> Response[bytes]:
    """All event types by category."""
    rows = await list_event_types(services.database)
    categories = [
        CatalogueCategory(
            category,
            label,
            [
                CatalogueType(
                    row.event_type,
                    row.label,
                    row.default_channels,
                    row.mandatory_channels,
                    row.priority,
                    row.digest,
                )
                for row in group
            ],
        )
        for (category, label), group in groupby(
            rows, lambda row: (row.category, row.category_label)
        )
    ]
    return reply({"results": categories})
