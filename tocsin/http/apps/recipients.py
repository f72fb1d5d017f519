"""People, as apps make, read, export and erase them; and whose an address is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from tocsin.engine.model import Invalid
from tocsin.engine.store import recipient as store
from tocsin.engine.store.credential import ERASE, RECIPIENTS
from tocsin.engine.store.database import Database
from tocsin.engine.store.recipient import Export, Recipient
from tocsin.http.auth import SCOPE, apps_router
from tocsin.http.fields import Address, AvatarUrl, Locale, Name, Topic, ZoneName
from tocsin.http.offload import Offload
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.people.devices import PushToken, check, register
from tocsin.http.requests import Services, decoded

PATH = "/api/recipients/{recipient_id:str}/"


class PutRecipient(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a person; null or absent leaves it as it is."""

    email: Address | None = None
    name: Name | None = None
    locale: Locale | None = None
    timezone: ZoneName | None = None
    avatar_url: AvatarUrl | None = None
    push_tokens: Annotated[list[PushToken], Meta(max_length=50)] | None = None


@put(PATH, responses={201: OtherResponse("Created.", Recipient)}, opt=noted(fails=(409,)))
async def put_recipient(
    services: NamedDependency[Services],
    recipient_id: FromPath[str],
    data: JSONBody[PutRecipient | None] = None,
) -> Response[Recipient]:
    """Create or change a person.

    What is null or absent stays as it is; `push_tokens` are added to the person's devices.
    """
    posted = data or PutRecipient()
    id_ = decoded(recipient_id)
    allow_loopback = services.settings.allow_private_endpoints
    for at, push_token in enumerate(posted.push_tokens or ()):
        with _numbered(at):
            await check(push_token, allow_loopback=allow_loopback)
    async with services.database.transaction() as session:
        created = await store.upsert_recipient(
            session,
            id_,
            email=posted.email,
            name=posted.name,
            locale=posted.locale,
            timezone=posted.timezone,
            avatar_url=posted.avatar_url,
        )
        for at, push_token in enumerate(posted.push_tokens or ()):
            with _numbered(at):
                await register(session, id_, push_token)
    return Response(
        await store.get_recipient(services.database, id_), status_code=201 if created else 200
    )


@contextmanager
def _numbered(at: int) -> Iterator[None]:
    """Names the fields of an error by the place of the device in the list."""
    try:
        yield
    except Invalid as error:
        fields = [(f"push_tokens[{at}].{name}", text) for name, text in error.fields]
        raise Invalid(str(error), *fields) from error


@get(PATH)
async def get_recipient(
    services: NamedDependency[Services], recipient_id: FromPath[str]
) -> Recipient:
    """Read a person."""
    return await store.get_recipient(services.database, decoded(recipient_id))


@delete(PATH, status_code=204, opt={SCOPE: ERASE, **noted(fails=(409,))})
async def erase_recipient(services: NamedDependency[Services], recipient_id: FromPath[str]) -> None:
    """Erase a person.

    All data about the person is removed, and their open streams end. Events of which others were notified stay,
    without the person.
    """
    await store.erase_recipient(services.database, decoded(recipient_id))


class Erasure(Struct, frozen=True, forbid_unknown_fields=True):
    """An address without an account."""

    email: str


@post("/api/erasures/", status_code=204, opt={SCOPE: ERASE, **noted(fails=(404, 409))})
async def erase_address(services: NamedDependency[Services], data: JSONBody[Erasure]) -> None:
    """Erase an address.

    For the address of somebody who never had an account: its invitations are removed too. A suppression stays in
    force, as a keyed hash of the address. An address of a recipient is a 422: erase the recipient. A 404: nothing
    is stored about the address.
    """
    await store.erase_address(services.database, data.email)


@get(PATH + "export/")
async def export_recipient(
    offload: NamedDependency[Offload], recipient_id: FromPath[str]
) -> Response[Export]:
    """Export a person.

    The response has all data about the person.
    """
    return await offload.respond("export_recipient", {"recipient_id": decoded(recipient_id)})


async def export(
    database: Database, arguments: Mapping[str, Any], _body: bytes
) -> Response[Export]:
    """Exports a person as `export_recipient` does, in the subprocess."""
    return Response(
        await store.export_recipient(database, arguments["recipient_id"]),
        headers={"Content-Disposition": 'attachment; filename="recipient.json"'},
    )


class ReadSubject(Struct, frozen=True, forbid_unknown_fields=True):
    """What the app shows to the person."""

    subject: Topic


class MarkedRead(Struct, frozen=True):
    """How many notifications were unread."""

    marked: int


@post(
    PATH + "read/",
    status_code=200,
)
async def mark_subject_read(
    services: NamedDependency[Services],
    recipient_id: FromPath[str],
    data: JSONBody[ReadSubject],
) -> MarkedRead:
    """Mark a subject as read.

    For an app that shows the thing: the person's notifications about it are read.
    """
    return MarkedRead(
        await store.mark_subject_read(services.database, decoded(recipient_id), data.subject)
    )


class NewClaim(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that the app has seen to be this person's."""

    email: Address


class ClaimedEmail(Struct, frozen=True):
    """How many notifications came into the person's inbox."""

    claimed: int


@post(PATH + "claims/", status_code=200, opt=noted(fails=(409,)))
async def claim_email(
    services: NamedDependency[Services],
    recipient_id: FromPath[str],
    data: JSONBody[NewClaim],
) -> ClaimedEmail:
    """Claim an address.

    After sign-up: earlier and later notifications for the address are this person's. The app must have verified
    that the address is theirs.
    """
    id_ = decoded(recipient_id)
    return ClaimedEmail(await store.claim_email(services.database, id_, data.email))


ROUTERS = (
    apps_router(
        "Recipients",
        RECIPIENTS,
        put_recipient,
        get_recipient,
        erase_recipient,
        erase_address,
        export_recipient,
        claim_email,
        mark_subject_read,
    ),
)
