"""Who is signed in: a page that has only the cookie can't read it."""

from __future__ import annotations

from datetime import UTC, datetime

from litestar import Response
from msgspec import Struct

from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import reply


class Me(Struct, frozen=True):
    """Whom the token names, and until when it is good."""

    recipient: str
    expires_at: datetime


@get(
    "/api/me/",
    opt=documented(
        Operation(
            summary="Who is signed in",
            description="So that a page notices when its cookie has become somebody else's.",
            tag="Inbox",
            answers={
                200: Answer(
                    "They are.", Me, {"recipient": "alice", "expires_at": "2026-11-22T08:00:00Z"}
                )
            },
        )
    ),
)
async def me(request: PersonRequest) -> Response[bytes]:
    """Whoever calls."""
    person = request.auth
    return reply(Me(person.recipient_id, datetime.fromtimestamp(int(person.expires_at), UTC)))
