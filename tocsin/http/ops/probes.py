"""For operators and load balancers."""

from __future__ import annotations

from hmac import compare_digest

from litestar import Response
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.model import NotFound, Unavailable
from tocsin.engine.store.health import standing
from tocsin.http.auth import ACCESS
from tocsin.http.errors import PROBLEM, AnyRequest, NotServing, ProblemDetails, Unauthorized
from tocsin.http.metrics import Metrics
from tocsin.http.openapi import FAILURES, OtherResponse, get, noted
from tocsin.http.requests import Services

TAG = "Operation"


class Status(Struct, frozen=True):
    """The state of the service."""

    status: str = "ok"


@get(
    "/healthz/",
    summary="Is the process alive?",
    tags=[TAG],
    response_description="It is.",
    opt=noted(example={"status": "ok"}),
)
async def healthz() -> Status:
    """Responds without any other service."""
    return Status()


@get(
    "/readyz/",
    summary="Can it serve?",
    description="Whether the database responds and has the schema, and some process leads.",
    tags=[TAG],
    response_description="It can.",
    responses={503: OtherResponse(FAILURES[503], ProblemDetails, media_type=PROBLEM)},
    opt=noted(example={"status": "ok"}, fails=(503,)),
)
async def readyz(services: NamedDependency[Services]) -> Status:
    """Ready when the database responds within a second and some process leads."""
    if reason := await services.readiness.why_not():
        raise NotServing(reason)
    return Status()


@get(
    "/metrics/",
    summary="Metrics of this process",
    description="Prometheus' text, for the bearer of TOCSIN_METRICS_TOKEN; where that is not set, a 404 here. "
    "TOCSIN_METRICS_PORT has them on a listener of its own.",
    tags=[TAG],
    response_description="The metrics.",
    media_type="text/plain",
    opt={ACCESS: "metrics", **noted(fails=(401, 404))},
)
async def metrics(
    request: AnyRequest, services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """This process's metrics, for the bearer of the token."""
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


@get("/metrics/", include_in_schema=False, media_type="text/plain")
async def metrics_without_token(
    services: NamedDependency[Services], metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """This process's metrics, on a listener that only this machine reaches."""
    return await _rendered(services, metrics)


async def _rendered(services: Services, metrics: Metrics) -> Response[bytes]:
    try:
        ledger = await standing(services.database)
    except Unavailable:
        ledger = []  # its absence is a signal too, and the rest is worth having
    text, kind = metrics.render(open_streams=services.hub.open_streams, standing=ledger)
    return Response(text, media_type=kind, headers={"Cache-Control": "no-store"})
