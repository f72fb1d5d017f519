"""For operators and load balancers."""

from __future__ import annotations

from hmac import compare_digest

from litestar import HttpMethod, Response, route
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.model import NotFound, Unavailable
from tocsin.engine.store.health import standing
from tocsin.http import openapi
from tocsin.http.errors import AnyRequest, Unauthorized, problem
from tocsin.http.metrics import Metrics
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.requests import Services, reply

TAG = "Operation"
_GET = [HttpMethod.GET, HttpMethod.HEAD]


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
            description="Whether the database responds and has the schema, and some process leads.",
            tag=TAG,
            answers={200: Answer("It can.", Status, {"status": "ok"})},
            fails=(503,),
        )
    ),
)
async def readyz(services: NamedDependency[Services]) -> Response[bytes]:
    """Ready when the database responds within a second and some process leads."""
    if reason := await services.readiness.why_not():
        return problem(503, reason)
    return reply(Status())


@route(
    "/metrics/",
    http_method=_GET,
    opt={
        openapi.ACCESS: "metrics",
        **documented(
            Operation(
                summary="Metrics of this process",
                description=(
                    "Prometheus' text, for the bearer of TOCSIN_METRICS_TOKEN; where that is not set, a 404 here. "
                    "TOCSIN_METRICS_PORT has them on a listener of its own."
                ),
                tag=TAG,
                answers={200: Answer("The metrics.", str, media_type="text/plain")},
                fails=(401, 404),
            )
        ),
    },
)
async def metrics(
    request: AnyRequest, services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """This process's numbers, for who has the token."""
    token = services.settings.metrics_token
    if token is None:
        raise NotFound(
            "Metrics are not served here: set TOCSIN_METRICS_TOKEN, or TOCSIN_METRICS_PORT for a listener of their own."
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not given.strip():
        raise Unauthorized("Send TOCSIN_METRICS_TOKEN as Authorization: Bearer <token>.")
    if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), token.encode()):
        raise Unauthorized("That is not TOCSIN_METRICS_TOKEN.", error="invalid_token")
    return await _rendered(services, metrics)


@route("/metrics/", http_method=_GET)
async def metrics_without_token(
    services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """This process's numbers, on a listener that only this machine reaches."""
    return await _rendered(services, metrics)


async def _rendered(services: Services, metrics: Metrics) -> Response[bytes]:
    try:
        ledger = await standing(services.database)
    except Unavailable:
        ledger = []  # its absence is a signal too, and the rest is worth having
    text, kind = metrics.render(open_streams=services.hub.open_streams, standing=ledger)
    return Response(text, media_type=kind, headers={"Cache-Control": "no-store"})
