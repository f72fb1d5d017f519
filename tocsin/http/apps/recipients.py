"""People, as apps make, read, export and erase them; and whose an address is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

from tocsin.engine.model import Invalid
from tocsin.engine.store import recipient as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.recipient import Export, Recipient
from tocsin.http import examples
from tocsin.http.errors import AnyRequest
from tocsin.http.fields import Address, Locale, Name, Zone
from tocsin.http.offload import Offload
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.devices import PushToken, register
from tocsin.http.requests import Services, decoded, no_content, read_body, reply

PATH = "/api/recipients/{recipient_id:str}/"
TAG = "Recipients"


class PutRecipient(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a person; null or absent leaves it as it is."""

    email: Address | None = None
    name: Name | None = None
    locale: Locale | None = None
    timezone: Zone | None = None
    push_tokens: Annotated[list[PushToken], Meta(max_length=50)] | None = None


@put(
    PATH,
    opt=documented(
        Operation(
            summary="Create or change a person",
            description="What is null or absent stays as it is; `push_tokens` are added to the person's devices.",
            tag=TAG,
            body=PutRecipient,
            body_example={"email": "bob@example.com", "name": "Bob", "timezone": "Europe/Rome"},
            body_required=False,
            answers={
                200: Answer("As it is now.", Recipient, examples.RECIPIENT),
                201: Answer("Created.", Recipient, examples.RECIPIENT),
            },
            fails=(409,),
        )
    ),
)
async def put_recipient(
    request: AnyRequest, services: NamedDependency[Services], recipient_id: FromPath[str]
) -> Response[bytes]:
    """Creates or changes a person."""
    posted = await read_body(request, PutRecipient, optional=True)
    id_ = decoded(recipient_id)
    async with services.database.transaction() as session:
        created = await store.upsert_recipient(
            session,
            id_,
            email=posted.email,
            name=posted.name,
            locale=posted.locale,
            timezone=posted.timezone,
        )
        for at, push_token in enumerate(posted.push_tokens or ()):
            try:
                await register(session, id_, push_token)
            except Invalid as error:
                fields = [(f"push_tokens[{at}].{name}", text) for name, text in error.fields]
                raise Invalid(str(error), *fields) from error
    return reply(await store.get_recipient(services.database, id_), 201 if created else 200)


@get(
    PATH,
    opt=documented(
        Operation(
            summary="Read a person",
            tag=TAG,
            answers={200: Answer("The person.", Recipient, examples.RECIPIENT)},
        )
    ),
)
async def get_recipient(
    services: NamedDependency[Services], recipient_id: FromPath[str]
) -> Response[bytes]:
    """One person."""
    return reply(await store.get_recipient(services.database, decoded(recipient_id)))


@delete(
    PATH,
    opt=documented(
        Operation(
            summary="Erase a person",
            description=(
                "With all that is held of them; their open streams end. Events that others were told stay, without "
                "the person."
            ),
            tag=TAG,
            answers={204: Answer("Erased.")},
            fails=(409,),
        )
    ),
    status_code=204,
)
async def erase_recipient(
    services: NamedDependency[Services], recipient_id: FromPath[str]
) -> Response[None]:
    """Erases a person."""
    await store.erase_recipient(services.database, decoded(recipient_id))
    return no_content()


class Erasure(Struct, frozen=True, forbid_unknown_fields=True):
    """An address without an account."""

    email: str


@post(
    "/api/erasures/",
    opt=documented(
        Operation(
            summary="Erase an address",
            description=(
                "With its invitations, of somebody who never had an account. A suppression stays in force, as a keyed "
                "hash of the address. An address of a recipient is a 422: erase the recipient. A 404: nothing is held."
            ),
            tag=TAG,
            body=Erasure,
            body_example={"email": "zoe@example.com"},
            answers={204: Answer("Erased.")},
            fails=(404, 409),
        )
    ),
    status_code=204,
)
async def erase_address(request: AnyRequest, services: NamedDependency[Services]) -> Response[None]:
    """Erases an address without an account; it comes in the body, since paths are written to proxies' logs."""
    posted = await read_body(request, Erasure)
    await store.erase_address(services.database, posted.email)
    return no_content()


@get(
    PATH + "export/",
    opt=documented(
        Operation(
            summary="Export a person",
            description="All that is held of them.",
            tag=TAG,
            answers={
                200: Answer(
                    "Everything.",
                    Export,
                    {
                        "recipient": examples.RECIPIENT,
                        "preferences": [],
                        "digest": examples.DIGEST_PREFERENCES,
                        "quiet_hours": examples.QUIET_HOURS,
                        "notifications": [],
                        "invitations": [],
                        "scheduled_events": [],
                        "initiated_events": [],
                        "mentions": [],
                        "digests": [],
                        "devices": [examples.DEVICE],
                        "subscriptions": [],
                        "claims": [],
                        "suppression": None,
                        "suppressions": [],
                        "others": {
                            "waiting_for_digest": [],
                            "badge_pushes": [],
                            "inbox_changes": [],
                            "opt_outs": [],
                            "stream_tickets": [],
                            "unread": 0,
                        },
                    },
                )
            },
        )
    ),
)
async def export_recipient(
    offload: NamedDependency[Offload], recipient_id: FromPath[str]
) -> Response[bytes]:
    """All that is held of a person, from the subprocess, since it may be much."""
    return await offload.respond("export_recipient", {"recipient_id": decoded(recipient_id)})


async def export(database: Database, arguments: Mapping[str, Any], _body: bytes) -> Response[bytes]:
    """As `export_recipient`, in the subprocess."""
    exported = await store.export_recipient(database, arguments["recipient_id"])
    return reply(exported, headers={"Content-Disposition": 'attachment; filename="recipient.json"'})


class NewClaim(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that the app has seen to be this person's."""

    email: Address


class Claimed(Struct, frozen=True):
    """How many notifications came into the person's inbox."""

    claimed: int


@post(
    PATH + "claims/",
    opt=documented(
        Operation(
            summary="Claim an address",
            description=(
                "After sign-up: what was told to the address before is this person's, and what is told to it later. "
                "The app vouches that the address is theirs."
            ),
            tag=TAG,
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
