"""A person's devices: the tokens by which APNs and FCM reach them."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct, structs

from tocsin.engine.store import recipient as store
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.recipient import Device, Registered
from tocsin.http import examples
from tocsin.http.fields import RowId
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services

PATH = "/api/push-tokens/"
TAG = "Devices"
_TOKEN = "a1b2c3d4e5f6a7b8" * 4

Platform = Literal["ios", "android"]
PushProvider = Literal["apns", "fcm"]
Environment = Literal["production", "sandbox"]
Token = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        description=(
            "Of APNs 64 to 200 hexadecimal digits, case, blanks and angle brackets ignored; of FCM printable ASCII."
        ),
    ),
]

Label = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="What its person calls it, in one line, such as `Alice's iPhone`.",
    ),
]


class PushToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to register; the provider is the platform's own where it is not given."""

    token: Token
    platform: Platform
    provider: PushProvider | None = None
    environment: Environment = "production"
    label: Label | None = None


class UnregisterToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to forget."""

    token: Token


class Devices(Struct, frozen=True):
    """All of a person's."""

    results: list[Device]


@get(
    PATH,
    summary="List the devices",
    description="Of each token only the last six characters.",
    tags=[TAG],
    response_description="The person's devices.",
    opt=noted(example={"results": [examples.DEVICE]}),
)
async def list_push_tokens(request: PersonRequest, services: NamedDependency[Services]) -> Devices:
    """A person's devices."""
    return Devices(await store.list_devices(services.database, request.auth.recipient_id))


@post(
    PATH,
    summary="Register a device",
    description="A token moves to whoever registered it last. Registering it again enables it again.",
    tags=[TAG],
    response_description="Registered.",
    responses={200: OtherResponse("It was known.", Device, examples.DEVICE)},
    status_code=201,
    opt=noted(example=examples.DEVICE, body={"token": _TOKEN, "platform": "ios"}, fails=(409,)),
)
async def register_push_token(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[PushToken]
) -> Response[Device]:
    """Registers a device."""
    device = await register(services.database, request.auth.recipient_id, data)
    return Response(_public(device), status_code=200 if device.known else 201)


@delete(
    PATH + "{device_id:int}/",
    summary="Forget a device",
    tags=[TAG],
    response_description="Forgotten.",
    status_code=204,
)
async def remove_push_token(
    request: PersonRequest, services: NamedDependency[Services], device_id: RowId
) -> None:
    """Forgets a device."""
    await store.remove_device(services.database, request.auth.recipient_id, device_id)


@post(
    PATH + "unregister/",
    summary="Forget a device by its token",
    description="For a client that kept only that, as it signs out.",
    tags=[TAG],
    response_description="Forgotten.",
    status_code=204,
    opt=noted(body={"token": _TOKEN}, fails=(404,)),
)
async def unregister_push_token(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[UnregisterToken]
) -> None:
    """Forgets a device by its token."""
    await store.unregister_device(services.database, request.auth.recipient_id, data.token)


async def register(
    database: Database | Session, recipient_id: str, push_token: PushToken
) -> Registered:
    """Registers a device; without a provider, its platform's own."""
    return await store.register_device(
        database,
        recipient_id,
        token=push_token.token,
        platform=push_token.platform,
        provider=push_token.provider,
        environment=push_token.environment,
        label=push_token.label,
    )


def _public(device: Registered) -> Device:
    fields = structs.asdict(device)
    del fields["known"]
    return Device(**fields)
