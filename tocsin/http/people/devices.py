"""A person's devices: the tokens by which APNs and FCM reach them."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct, structs

from tocsin.engine.store import recipient as store
from tocsin.engine.store.database import Database, Session
from tocsin.engine.store.recipient import Device, Registered
from tocsin.http import examples
from tocsin.http.operation import Answer, Operation, documented, get
from tocsin.http.people.inbox import PersonRequest
from tocsin.http.requests import Services, no_content, read_body, reply, row_id

PATH = "/api/push-tokens/"
TAG = "Devices"
_TOKEN = "a1b2c3d4e5f6a7b8" * 4

Platform = Literal["ios", "android"]
Provider = Literal["apns", "fcm"]
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
    provider: Provider | None = None
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
    opt=documented(
        Operation(
            summary="List the devices",
            description="Of each token only the last six characters.",
            tag=TAG,
            answers={200: Answer("Yours.", Devices, {"results": [examples.DEVICE]})},
        )
    ),
)
async def list_push_tokens(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """A person's devices."""
    return reply(Devices(await store.list_devices(services.database, request.auth.recipient_id)))


@post(
    PATH,
    opt=documented(
        Operation(
            summary="Register a device",
            description="A token moves to whoever registered it last. Registering it again enables it again.",
            tag=TAG,
            body=PushToken,
            body_example={"token": _TOKEN, "platform": "ios"},
            answers={
                200: Answer("It was known.", Device, examples.DEVICE),
                201: Answer("Registered.", Device, examples.DEVICE),
            },
            fails=(409,),
        )
    ),
    status_code=201,
)
async def register_push_token(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Registers a device."""
    posted = await read_body(request, PushToken)
    device = await register(services.database, request.auth.recipient_id, posted)
    return reply(_public(device), 200 if device.known else 201)


@delete(
    PATH + "{device_id:int}/",
    opt=documented(
        Operation(summary="Forget a device", tag=TAG, answers={204: Answer("Forgotten.")})
    ),
    status_code=204,
)
async def remove_push_token(
    request: PersonRequest, services: NamedDependency[Services], device_id: FromPath[int]
) -> Response[None]:
    """Forgets a device."""
    await store.remove_device(services.database, request.auth.recipient_id, row_id(device_id))
    return no_content()


@post(
    PATH + "unregister/",
    opt=documented(
        Operation(
            summary="Forget a device by its token",
            description="For a client that kept only that, as it signs out.",
            tag=TAG,
            body=UnregisterToken,
            body_example={"token": _TOKEN},
            answers={204: Answer("Forgotten.")},
            fails=(404,),
        )
    ),
    status_code=204,
)
async def unregister_push_token(
    request: PersonRequest, services: NamedDependency[Services]
) -> Response[None]:
    """Forgets a device by its token."""
    posted = await read_body(request, UnregisterToken)
    await store.unregister_device(services.database, request.auth.recipient_id, posted.token)
    return no_content()


async def register(
    database: Database | Session, recipient_id: str, push_token: PushToken
) -> Registered:
    """Registers a device; without a provider, its platform's own."""
    own = "apns" if push_token.platform == "ios" else "fcm"
    return await store.register_device(
        database,
        recipient_id,
        token=push_token.token,
        platform=push_token.platform,
        provider=push_token.provider or own,
        environment=push_token.environment,
        label=push_token.label,
    )


def _public(device: Registered) -> Device:
    fields = structs.asdict(device)
    del fields["known"]
    return Device(**fields)
