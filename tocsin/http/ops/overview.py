"""The state of the installation."""

from __future__ import annotations

from typing import Literal

from litestar import Response
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.ops.overview import Overview, Overviews
from tocsin.http.access_log import QUIET
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.requests import read_query, reply

TAG = "Operations"


class OverviewQuery(Struct, frozen=True):
    """How far back the charts go."""

    window: Literal["hour", "day"] = "hour"


@get(
    "/ops/api/overview/",
    opt={
        QUIET: True,
        **documented(
            Operation(
                summary="How is it?",
                description=(
                    "What is wrong; channels, and what waits or ended otherwise than sent; processes with their "
                    "actors; series by the minute or by ten. Read at most once a second, whoever asks."
                ),
                tag=TAG,
                query=OverviewQuery,
                answers={200: Answer("The state.", Overview)},
            )
        ),
    },
)
async def overview(request: AnyRequest, overviews: NamedDependency[Overviews]) -> Response[bytes]:
    """All that the page draws."""
    return reply(await overviews.get(read_query(request, OverviewQuery).window))
