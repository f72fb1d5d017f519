"""For operators and load balancers."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

from litestar import HttpMethod, Request, Response, route
from litestar.datastructures import State
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.model import NotFound, Unavailable
from tocsin.engine.store.health import is_migrated, standing
from tocsin.http.errors import AnyRequest
from tocsin.http.metrics import Metrics
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.parse import reply
from tocsin.http.services import Services

TAG = "Operation"
_GET = [HttpMethod.GET, HttpMethod.HEAD]
_READY_WITHIN = 3.0  # seconds
_FORWARDED = ("forwarded", "x-forwarded-for", "via", "x-real-ip")


class Status(Struct, frozen=True):
    """All is well."""

    status: str = "ok"


@route(
    "/healthz/",
    http_method=_GET,
    opt=documented(
        Operation(
            summary="Is the process alive?",
            tag=TAG,
            answers={200: Answer("It is.", Status, {"status": "ok"})},
        )
    ),
)
async def healthz() -> Response[bytes]:
    """Alive; asks nobody else."""
    return reply(Status())


@route(
    "/readyz/",
    http_method=_GET,
    opt=documented(
        Operation(
            summary="Can it serve?",
            description="Whether the database answers.",
            tag=TAG,
            answers={200: Answer("It can.", Status, {"status": "ok"})},
            fails=(503,),
        )
    ),
)
async def readyz(services: NamedDependency[Services]) -> Response[bytes]:
    """Ready when the database answers soon."""
    try:
        async with asyncio.timeout(_READY_WITHIN):
            if not await is_migrated(services.database):
                raise Unavailable("the schema is not there")
    except TimeoutError:
        raise Unavailable("the database is slow") from None
    return reply(Status())


@route(
    "/metrics/",
    http_method=_GET,
    opt=documented(
        Operation(
            summary="Metrics of this process",
            description="Prometheus' text; from this machine only, unless TOCSIN_METRICS_PUBLIC is set.",
            tag=TAG,
            answers={200: Answer("The metrics.", str, media_type="text/plain")},
            fails=(404,),
        )
    ),
)
async def metrics(
    request: Request[Any, Any, State],
    services: NamedDependency[Services],
    metrics: NamedDependency[Metrics],
) -> Response[bytes]:
    """This process's numbers."""
    if not (services.settings.metrics_public or _is_local(request)):
        raise NotFound("There is nothing here.")
    try:
        ledger = await standing(services.database)
    except Unavailable:
        ledger = []  # its absence is a signal too, and the rest is worth having
    text, kind = metrics.render(open_streams=services.hub.open_streams, standing=ledger)
    return Response(text, media_type=kind, headers={"Cache-Control": "no-store"})


def _is_local(request: AnyRequest) -> bool:
    """By the peer's own address; what a proxy on this machine passes on is from elsewhere."""
    client = request.scope.get("client")
    if client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
