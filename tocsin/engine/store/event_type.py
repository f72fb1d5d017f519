"""The catalogue of event types, as readers need it."""

from __future__ import annotations

from msgspec import Struct

from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store.database import Database
from tocsin.sql import load

_SQL = load("event_type")


class EventType(Struct, frozen=True):
    """One event type with its category's label."""

    category: str
    category_label: str
    event_type: str
    label: str
    default_channels: list[str]
    mandatory_channels: list[str]
    priority: str
    digest: bool


async def list_event_types(database: Database) -> list[EventType]:
    """All that are not retired, in the catalogue's order."""
    return await database.rows(EventType, _SQL["list_event_types"])


async def get_event_type(database: Database, event_type: str) -> EventType:
    """One, retired or not; raises NotFound."""
    found = await database.row(EventType, _SQL["get_event_type"], event_type=event_type)
    if found is None:
        raise NotFound("There is no such event type.")
    return found


async def check_filter(database: Database, event_type: str | None, category: str | None) -> None:
    """Raises Invalid for names that the catalogue never had: an empty list would hide the mistake."""
    wrong: list[tuple[str, str]] = []
    if event_type is not None:
        near = await database.value(_SQL["nearest_event_types"], event_type=event_type)
        if near is not None:
            wrong.append(("event_type", f"No such event type. The nearest known ones: {near}."))
    if category is not None:
        known = await database.value(_SQL["categories_without"], category=category)
        if known is not None:
            wrong.append(("category", f"No such category. There are: {known}."))
    if wrong:
        raise Invalid("the filter names what is not in the catalogue", *wrong)
