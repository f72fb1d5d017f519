"""Stream tickets: for EventSource, which can't send headers."""

from __future__ import annotations

from datetime import UTC, datetime

from litestar import Response, post
from litestar.di import NamedDependency

from tocsin.engine.store.credential import Ticket, make_ticket
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import reply
from tocsin.http.services import Services


@post(
    "/api/stream-ticket/",
    opt=documented(
        Operation(
            summary="Get a ticket for the stream",
            description=(
                "Opens one stream at a time, within 60 s of its making or of that stream's end, until the token's own "
                "end (`expires_at`)."
            ),
            tag="Stream",
            answers={201: Answer("The ticket.", Ticket, examples.TICKET)},
        )
    ),
    status_code=201,
)
async def stream_ticket(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Makes a ticket."""
    person = request.auth
    expires_at = datetime.fromtimestamp(person.expires_at, UTC)
    return reply(await make_ticket(services.database, person.recipient_id, expires_at), 201)
