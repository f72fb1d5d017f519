"""A person's devices: the tokens by which APNs and FCM reach them, and the subscriptions of browsers."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct, structs

from tocsin.engine.actors.machinery.endpoints import URL_CURES, resolved_url_fault
from tocsin.engine.model import Invalid, NotFound
from tocsin.engine.store import recipient as store
from tocsin.engine.store.database import Queries
from tocsin.engine.store.recipient import Device, Registered
from tocsin.http.auth import PersonRequest, people_router
from tocsin.http.fields import RowId
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.requests import Services

PATH = "/api/push-tokens/"

Platform = Literal["ios", "android", "web"]
PushProvider = Literal["apns", "fcm", "web_push"]
PushEnvironment = Literal["production", "sandbox"]
DeviceToken = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        description=(
            "Of APNs 64 to 200 hexadecimal digits, case, blanks and angle brackets ignored; of FCM printable ASCII."
        ),
    ),
]

DeviceLabel = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="What its person calls it, in one line, such as `Alice's iPhone`.",
    ),
]


class SubscriptionKeys(Struct, frozen=True):
    """The keys with which pushes to a browser are encrypted, in base64url."""

    p256dh: Annotated[str, Meta(max_length=100)]
    auth: Annotated[str, Meta(max_length=100)]


class PushSubscription(Struct, frozen=True):
    """What `PushSubscription.toJSON()` of a browser has; its other members are ignored."""

    endpoint: Annotated[str, Meta(min_length=1, max_length=2000)]
    keys: SubscriptionKeys


class PushToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to register, or the subscription of a browser (`web`).

    The provider is the platform's own where it is not given.
    """

    platform: Platform
    token: DeviceToken | None = None
    subscription: PushSubscription | None = None
    provider: PushProvider | None = None
    environment: PushEnvironment = "production"
    label: DeviceLabel | None = None


class UnregisterToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to forget."""

    token: DeviceToken


class Devices(Struct, frozen=True):
    """All devices of a person."""

    results: list[Device]


class WebPushKey(Struct, frozen=True):
    """The public half of TOCSIN_VAPID_KEY, which a browser takes as `applicationServerKey`."""

    key: str


@get("/api/web-push-key/", opt=noted(fails=(404,)))
async def web_push_key(services: NamedDependency[Services]) -> WebPushKey:
    """Read the key of Web Push.

    A browser subscribes to pushes of this service by this key. A 404: Web Push is not set up.
    """
    vapid = services.settings.vapid
    if vapid is None:
        raise NotFound("Web Push is not set up: the operator sets TOCSIN_VAPID_KEY.")
    return WebPushKey(vapid.public)


@get(PATH)
async def list_push_tokens(request: PersonRequest, services: NamedDependency[Services]) -> Devices:
    """List the devices.

    The response has only the last six characters of each token.
    """
    return Devices(await store.list_devices(services.database, request.auth.recipient_id))


@post(
    PATH,
    responses={200: OtherResponse("It was known.", Device)},
    status_code=201,
    opt=noted(fails=(409,)),
)
async def register_push_token(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[PushToken]
) -> Response[Device]:
    """Register a device.

    A token or subscription moves to whoever registered it last. Registering it again enables it again.
    """
    await check(data, allow_loopback=services.settings.allow_private_endpoints)
    device = await register(services.database, request.auth.recipient_id, data)
    return Response(_public(device), status_code=200 if device.known else 201)


@delete(PATH + "{device_id:int}/", status_code=204)
async def remove_push_token(
    request: PersonRequest, services: NamedDependency[Services], device_id: RowId
) -> None:
    """Forget a device."""
    await store.remove_device(services.database, request.auth.recipient_id, device_id)


@post(PATH + "unregister/", status_code=204, opt=noted(fails=(404,)))
async def unregister_push_token(
    request: PersonRequest, services: NamedDependency[Services], data: JSONBody[UnregisterToken]
) -> None:
    """Forget a device by its token.

    For a client that signs out and knows only its token. The token of a browser is the endpoint of its
    subscription.
    """
    await store.unregister_device(services.database, request.auth.recipient_id, data.token)


async def check(push_token: PushToken, *, allow_loopback: bool) -> None:
    """Raises Invalid where token and platform do not go together, or the endpoint does not lead to a public address.

    An endpoint whose name can't be resolved at this moment is accepted: it is checked again before each push.
    """
    needed, other = (
        ("subscription", "token") if push_token.platform == "web" else ("token", "subscription")
    )
    if getattr(push_token, needed) is None:
        raise Invalid(
            "The device is incomplete.",
            (needed, f"is needed for the platform {push_token.platform}"),
        )
    if getattr(push_token, other) is not None:
        raise Invalid(
            "The device is ambiguous.",
            (other, f"does not go with the platform {push_token.platform}"),
        )
    if push_token.subscription is None:
        return
    from tocsin.engine.actors.web_push import read_receiver_keys  # a fifth of a second to import

    keys = push_token.subscription.keys
    try:
        read_receiver_keys(keys.p256dh, keys.auth)
    except ValueError:
        raise Invalid("The subscription is incomplete.", ("subscription.keys", _KEYS)) from None
    endpoint = push_token.subscription.endpoint
    fault = await resolved_url_fault(endpoint, allow_loopback=allow_loopback)
    if fault not in (None, "host_unknown"):  # serve itself may have no DNS
        raise Invalid("The endpoint is refused.", ("subscription.endpoint", URL_CURES[fault]))


_KEYS = "are not those of a subscription: send what PushSubscription.toJSON() of the browser has"


async def register(database: Queries, recipient_id: str, push_token: PushToken) -> Registered:
    """Registers a device that was checked; without a provider, its platform's own."""
    subscription = push_token.subscription
    return await store.register_device(
        database,
        recipient_id,
        token=subscription.endpoint if subscription else push_token.token or "",
        platform=push_token.platform,
        provider=push_token.provider,
        environment=push_token.environment,
        label=push_token.label,
        keys=structs.asdict(subscription.keys) if subscription else None,
    )


def _public(device: Registered) -> Device:
    fields = structs.asdict(device)
    del fields["known"]
    return Device(**fields)


ROUTERS = (
    people_router(
        "Devices",
        list_push_tokens,
        register_push_token,
        remove_push_token,
        unregister_push_token,
        web_push_key,
    ),
)
