"""A local far end of FCM's HTTP v1 API, with the OAuth token endpoint (RFC 7523) of its service account.

async with FcmServer() as fcm:
    fcm.script.then("a-device-token", [UNREGISTERED])
    ...  # TOCSIN_FCM_URL=fcm.url, TOCSIN_FCM_SERVICE_ACCOUNT=fcm.service_account_json
    fcm.received[-1].message["notification"]
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Unpack

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec import Struct

from tocsin.testing.far_end import FarEndOptions, HttpFarEnd, Reply, play

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE = "https://oauth2.googleapis.com/token"  # the audience of google-auth, whatever the account's token_uri

_LONGEST_ASSERTION = 3600  # seconds, as Google has it

_RPC = "type.googleapis.com/google.rpc."
_FCM = "type.googleapis.com/google.firebase.fcm.v1."
MOST_BYTES = 4096
_LONGEST_LIFE = 28 * 24 * 3600
_KNOWN = frozenset(
    {"token", "topic", "condition", "notification", "data", "android", "apns", "webpush"}
    | {"fcm_options"}
)
_DURATION = re.compile(r"(\d{1,12})(?:\.\d{1,9})?s", re.ASCII)
_ERRORS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("fcm_errors.json").read_text("utf-8")
)
_RESERVED = re.compile(r"from|message_type|(?:google|gcm)[._].*|google|gcm")


def error(
    status: int,
    name: str,
    message: str,
    *,
    code: str | None = None,
    details: Sequence[dict[str, Any]] = (),
    retry_after: str | None = None,
) -> Reply:
    """Returns one error: Google's canonical `name`, FCM's own `code`, further details, and a Retry-After."""
    own = [{"@type": f"{_FCM}FcmError", "errorCode": code}] if code else []
    content = {"code": status, "message": message, "status": name, "details": [*own, *details]}
    headers = [("Content-Type", "application/json; charset=UTF-8")]
    if retry_after is not None:
        headers.append(("Retry-After", retry_after))
    return Reply(status, json.dumps({"error": content}), tuple(headers))


def invalid_argument(*fields: str, message: str = "Request contains an invalid argument.") -> Reply:
    """Returns a 400 that names the fields at fault."""
    violations = [{"field": field, "description": "Invalid value"} for field in fields]
    detail = [{"@type": f"{_RPC}BadRequest", "fieldViolations": violations}] if fields else []
    return error(400, "INVALID_ARGUMENT", message, code="INVALID_ARGUMENT", details=detail)


def known_error(name: str, *, retry_after: str | None = None) -> Reply:
    """Returns the error of this name in fcm_errors.json."""
    return error(**_ERRORS[name], retry_after=retry_after)


def quota_exceeded(retry_after: str | None = None) -> Reply:
    """Returns a 429 of the whole project."""
    return known_error("QUOTA_EXCEEDED", retry_after=retry_after)


def unavailable(retry_after: str | None = None) -> Reply:
    """Returns a 503."""
    return known_error("UNAVAILABLE", retry_after=retry_after)


def apns_error(status: int, reason: str, *, code: str, name: str) -> Reply:
    """Returns an error of APNs that FCM passes on."""
    detail = {"@type": f"{_FCM}ApnsError", "statusCode": status, "reason": reason}
    return error(status, name, "APNs refused it.", code=code, details=[detail])


INVALID_TOKEN = invalid_argument(
    message="The registration token is not a valid FCM registration token"
)
INVALID_TOKEN_FIELD = invalid_argument("message.token")
INVALID_PAYLOAD = invalid_argument("message.android.ttl")
TOO_BIG = invalid_argument(message="Message too big")
UNAUTHENTICATED = known_error("UNAUTHENTICATED")
THIRD_PARTY_AUTH_ERROR = known_error("THIRD_PARTY_AUTH_ERROR")
PERMISSION_DENIED = known_error("PERMISSION_DENIED")
SENDER_ID_MISMATCH = known_error("SENDER_ID_MISMATCH")
UNREGISTERED = known_error("UNREGISTERED")
DEVICE_QUOTA_EXCEEDED = known_error("DEVICE_QUOTA_EXCEEDED")
INTERNAL = known_error("INTERNAL")


class ReceivedMessage(Struct, frozen=True):
    """One request, with its message and the response to it."""

    at: datetime
    token: str
    message: dict[str, Any]
    authorization: str
    result: int | str  # the status, or the name of the fault


class FcmServer(HttpFarEnd[ReceivedMessage]):
    """The far end: `received` has the messages, `script` the responses other than acceptance, `issuer` the OAuth side.

    `private_key` (PEM) is that of the service account, for a server that restarts; by default one is made.
    """

    def __init__(
        self,
        *,
        project_id: str = "tocsin-test",
        private_key: str | None = None,
        **options: Unpack[FarEndOptions],
    ) -> None:
        self.issuer = TokenIssuer(project_id, private_key)
        super().__init__(
            web.post("/token", self.issuer.handle_request),
            web.post("/v1/projects/{project}/messages:send", self._send),
            **options,
        )

    async def start(self) -> None:
        """Listens; from then on `url` and `service_account` are known."""
        await super().start()
        self.issuer.uri = f"{self.url}/token"

    @property
    def url(self) -> str:
        """The value of TOCSIN_FCM_URL."""
        return self.origin

    @property
    def service_account(self) -> dict[str, str]:
        """The service account that this server accepts."""
        return self.issuer.service_account

    @property
    def service_account_json(self) -> str:
        """The same as TOCSIN_FCM_SERVICE_ACCOUNT takes it."""
        return json.dumps(self.service_account)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        try:
            envelope = json.loads(await request.read())
        except ValueError:
            envelope = None
        message = envelope.get("message") if isinstance(envelope, dict) else None
        message = message if isinstance(message, dict) else {}
        token = str(message.get("token", ""))
        turn = self._refusal(request, message) or self.script.next(token)
        result = turn.status if isinstance(turn, Reply) else turn.value if turn else 200
        bearer = request.headers.get("Authorization", "")
        self.record(ReceivedMessage(datetime.now(UTC), token, message, bearer, result))
        if turn is not None:
            return await play(turn, request)
        name = f"projects/{self.issuer.project_id}/messages/0:{self.requests}%tocsin"
        return web.json_response({"name": name})

    def _refusal(self, request: web.Request, message: dict[str, Any]) -> Reply | None:
        """Returns the error that FCM itself would return."""
        if not self.issuer.knows(request.headers.get("Authorization", "")):
            return UNAUTHENTICATED
        if request.match_info["project"] != self.issuer.project_id:
            return PERMISSION_DENIED
        if request.content_type != "application/json":
            return error(400, "INVALID_ARGUMENT", "Content-Type must be application/json")
        return fault(message)


def fault(message: dict[str, Any]) -> Reply | None:
    """Returns the error that FCM returns for a message: for its target, data, ttl or size; None for a correct one."""
    if unknown := sorted(message.keys() - _KNOWN):
        return invalid_argument(f"message.{unknown[0]}", message="Invalid JSON payload received.")
    targets = [key for key in ("token", "topic", "condition") if message.get(key)]
    if len(targets) != 1:
        return invalid_argument("message", message="Recipient of the message is not set.")
    data = message.get("data", {})
    if not isinstance(data, dict) or not all(isinstance(each, str) for each in data.values()):
        return invalid_argument("message.data[0].value")
    if any(_RESERVED.fullmatch(key) for key in data):
        return invalid_argument("message.data[0].key", message="Invalid data payload key")
    android = message.get("android", {})
    if "ttl" in android:
        found = _DURATION.fullmatch(str(android["ttl"]))
        if not found or int(found[1]) > _LONGEST_LIFE:
            return invalid_argument("message.android.ttl")
    if android.get("priority", "NORMAL") not in {"NORMAL", "HIGH"}:
        return invalid_argument("message.android.priority")
    rest = {key: each for key, each in message.items() if key != targets[0]}
    size = len(json.dumps(rest, ensure_ascii=False, separators=(",", ":")).encode())
    return TOO_BIG if size > MOST_BYTES else None


class TokenIssuer:
    """Google's token endpoint for one service account, and the access tokens that were issued.

    `private_key` (PEM) is for a server that restarts; by default one is made. `lifetime` is that of the next token in
    seconds. With a `status` other than 200 it returns that and `body`. Raises ValueError for an invalid key.
    """

    def __init__(self, project_id: str, private_key: str | None = None) -> None:
        self.project_id = project_id
        self.email = f"tocsin@{project_id}.iam.gserviceaccount.com"
        self.uri = ""  # known once the server listens
        self.lifetime = 3600.0
        self.status = 200
        self.body: str | None = None
        self.issued: list[str] = []
        self.revoked = False  # the account's key: its assertions are refused
        self._key = _load_key(private_key) if private_key else _shared_key()
        self._ends_at: dict[str, float] = {}

    @property
    def service_account(self) -> dict[str, str]:
        """The JSON file that Google's console issues."""
        return {
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": "throw-away",
            "private_key": _pem(self._key),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": self.uri,
        }

    def revoke_tokens(self) -> None:
        """Ends all access tokens that were issued."""
        self._ends_at.clear()

    def knows(self, authorization: str) -> bool:
        """Returns whether an Authorization header has a token that is valid now."""
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and self._ends_at.get(token, 0.0) > time.monotonic()

    async def handle_request(self, request: web.Request) -> web.Response:
        """Handles POST on the token address."""
        form = await request.post()
        if self.status != 200 or self.body is not None:
            return web.Response(status=self.status, text=self.body or "")
        fault = self._fault(str(form.get("grant_type")), str(form.get("assertion")))
        if fault:
            error = {"error": "invalid_grant", "error_description": fault}
            return web.json_response(error, status=400)
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self.issued.append(token)
        self._ends_at[token] = time.monotonic() + self.lifetime
        return web.json_response(
            {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}
        )

    def _fault(self, grant: str, assertion: str) -> str | None:
        """Returns the error of an assertion, or None."""
        if grant != GRANT:
            return f"grant_type must be {GRANT}"
        if self.revoked:
            return "Invalid JWT Signature."
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=[GOOGLE, self.uri],
                issuer=self.email,
                options={"require": ["iss", "aud", "exp", "iat", "scope"]},
            )
        except jwt.PyJWTError as error:
            return f"Invalid JWT: {error}"
        if claims["exp"] - claims["iat"] > _LONGEST_ASSERTION:
            return "Invalid JWT: Token must be a short-lived token (60 minutes)."
        if SCOPE not in claims["scope"].split():
            return "Invalid scope."
        return None


def new_private_key() -> str:
    """Returns a service account's key as PEM, to be kept."""
    return _pem(_shared_key())


def _load_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("The key of a service account is an RSA key")
    return key


@cache
def _shared_key() -> RSAPrivateKey:
    """Returns one key for all servers of this process, since making one takes a tenth of a second."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def _pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
