"""Addresses that must not be mailed, as apps list and lift them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from litestar import delete
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.explain.why import mask
from tocsin.engine.store import suppression as store
from tocsin.engine.store.credential import SUPPRESSIONS
from tocsin.engine.store.suppression import Suppression
from tocsin.http.auth import apps_router
from tocsin.http.fields import CursorText, Limit, page_links, read_cursor, without_nulls
from tocsin.http.openapi import get
from tocsin.http.requests import Services, decoded

PATH = "/api/suppressions/"

SuppressionReason = Annotated[
    str | None,
    QueryParameter(
        min_length=1, max_length=100, description="Only those with this reason, as it is listed."
    ),
]


class ListedSuppression(Struct, frozen=True):
    """A suppressed address, masked; null once its person was erased, of which a keyed hash is left."""

    id: int
    address: str | None
    reason: str
    meaning: str
    created_at: datetime


class SuppressionListing(Struct, frozen=True):
    """One page; `next` is older, `previous` newer."""

    results: list[ListedSuppression]
    next: str | None
    previous: str | None


@get(PATH)
async def list_suppressions(
    services: NamedDependency[Services],
    reason: SuppressionReason = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> SuppressionListing:
    """List suppressed addresses.

    Newest first: the addresses that must not be mailed, and why. They are masked.
    """
    page = await store.list_suppressions(
        services.database, reason, cursor=read_cursor(cursor), limit=limit
    )
    kept = without_nulls(limit=limit, reason=reason)
    older, newer = page_links(services, PATH, page, kept)
    return SuppressionListing([explained(each) for each in page.results], older, newer)


@delete(PATH + "{address:str}/", status_code=204)
async def lift_suppression(services: NamedDependency[Services], address: FromPath[str]) -> None:
    """Lift a suppression.

    The address may be mailed again, from the next notification on. A mailbox that still does not exist is suppressed
    again by its next mail. A 404: the address is not suppressed.
    """
    await store.lift(services.database, decoded(address))


def explained(found: Suppression) -> ListedSuppression:
    """Returns it with the address masked, and with the meaning of its reason."""
    meaning, _ = meaning_and_cure(found.reason)
    return ListedSuppression(
        found.id,
        None if found.address is None else mask(found.address),
        found.reason,
        meaning,
        found.created_at,
    )


ROUTERS = (apps_router("Suppressions", SUPPRESSIONS, list_suppressions, lift_suppression),)
