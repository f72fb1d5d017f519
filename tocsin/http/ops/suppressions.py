"""Suppressed addresses, as operators list and lift them."""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Request, delete
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Struct

from tocsin.engine.store.credential import Operator
from tocsin.engine.store.suppression import lift_by_id
from tocsin.engine.store.suppression import list_suppressions as find_suppressions
from tocsin.http.apps.suppressions import ListedSuppression, SuppressionReason, explained
from tocsin.http.fields import CursorText, Limit, RowId, read_cursor
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.ops.ops_page import ops_router
from tocsin.http.requests import Services

PATH = "/ops/api/suppressions/"

log = structlog.get_logger("tocsin.ops")


class SuppressionPage(Struct, frozen=True):
    """A page of suppressed addresses, newest first; `next` is the cursor of the following page."""

    results: list[ListedSuppression]
    next: str | None


@get(PATH, opt={QUIET: True})
async def list_suppressed_addresses(
    services: NamedDependency[Services],
    reason: SuppressionReason = None,
    limit: Limit = 20,
    cursor: FromQuery[CursorText | None] = None,
) -> SuppressionPage:
    """List suppressed addresses.

    Newest first, masked.
    """
    page = await find_suppressions(
        services.database, reason, cursor=read_cursor(cursor), limit=limit
    )
    following = None if page.next is None else str(page.next)
    return SuppressionPage([explained(each) for each in page.results], following)


@delete(PATH + "{suppression_id:int}/", status_code=204)
async def lift_suppressed_address(
    request: Request[Operator, Any, State],
    services: NamedDependency[Services],
    suppression_id: RowId,
) -> None:
    """Lift a suppression.

    The address may be mailed again, from the next notification on.
    """
    reason = await lift_by_id(services.database, suppression_id)
    log.info("suppression lifted", api_key_id=request.auth.api_key_id, reason=reason)


ROUTERS = (ops_router(list_suppressed_addresses, lift_suppressed_address),)
