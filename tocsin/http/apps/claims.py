"""Claims: what waits for an address becomes a person's, by the word of an app."""

from __future__ import annotations

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.store import recipient as store
from tocsin.http.apps import recipients
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import Address
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.paths import decoded
from tocsin.http.requests import read_body, reply
from tocsin.http.services import Services


class NewClaim(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that the app has seen to be this person's."""

    email: Address


class Claimed(Struct, frozen=True):
    """How many notifications came into the person's inbox."""

    claimed: int


@post(
    recipients.PATH + "claims/",
    opt=documented(
        Operation(
            summary="Claim an address",
            description=(
                "After sign-up: what was told to the address before is this person's, and what is told to it later. "
                "The app vouches that the address is theirs."
            ),
            tag=recipients.TAG,
            body=NewClaim,
            body_example={"email": "bob@example.com"},
            answers={200: Answer("Claimed.", Claimed, {"claimed": 1})},
            fails=(409,),
        )
    ),
    status_code=200,
)
async def claim_email(
    request: AnyRequest, services: NamedDependency[Services], recipient_id: FromPath[str]
) -> Response[bytes]:
    """Claims an address for a person."""
    posted = await read_body(request, NewClaim)
    id_ = decoded(recipient_id)
    return reply(Claimed(await store.claim_email(services.database, id_, posted.email)))
