"""The operations page and its calls: /ops/, for a key of the scope `ops`."""

from __future__ import annotations

from litestar import Router
from litestar.di import Provide

from tocsin.engine.ops.overview import Overviews
from tocsin.engine.store.database import Database
from tocsin.http.auth import ACCESS
from tocsin.http.ops import dead_letters, ops_page, search
from tocsin.http.ops.access import operators_only


def ops_routers(database: Database) -> list[Router]:
    """The page for everybody, since it asks for the key; the rest for operators."""
    overviews = Overviews(database)

    async def provide() -> Overviews:
        return overviews

    return [
        Router(
            "/",
            route_handlers=[
                ops_page.ops_page,
                ops_page.ops_style,
                ops_page.sign_in,
                ops_page.sign_out,
            ],
            opt={ACCESS: "everyone"},
        ),
        Router(
            "/",
            guards=[operators_only],
            route_handlers=[
                ops_page.overview,
                dead_letters.list_dead_letters,
                dead_letters.count_dead_letters,
                dead_letters.replay_dead_letters,
                search.search,
                search.why_notification,
            ],
            dependencies={"overviews": Provide(provide)},
            opt={ACCESS: "operator"},
        ),
    ]
