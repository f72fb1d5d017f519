"""The errors of FCM's HTTP v1 API as it sends them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tocsin.testing.faults import Reply

_RPC = "type.googleapis.com/google.rpc."
_FCM = "type.googleapis.com/google.firebase.fcm.v1."


def error(
    status: int,
    name: str,
    message: str,
    *,
    code: str | None = None,
    details: Sequence[dict[str, Any]] = (),
    retry_after: str | None = None,
) -> Reply:
    """One error: Google's canonical `name`, FCM's own `code`, further details, and a Retry-After."""
    own = [{"@type": f"{_FCM}FcmError", "errorCode": code}] if code else []
    told = {"code": status, "message": message, "status": name, "details": [*own, *details]}
    headers = [("Content-Type", "application/json; charset=UTF-8")]
    if retry_after is not None:
        headers.append(("Retry-After", retry_after))
    return Reply(status, json.dumps({"error": told}), tuple(headers))


def invalid_argument(*fields: str, message: str = "Request contains an invalid argument.") -> Reply:
    """A 400 that names the fields at fault."""
    violations = [{"field": field, "description": "Invalid value"} for field in fields]
    detail = [{"@type": f"{_RPC}BadRequest", "fieldViolations": violations}] if fields else []
    return error(400, "INVALID_ARGUMENT", message, code="INVALID_ARGUMENT", details=detail)


def quota_exceeded(retry_after: str | None = None) -> Reply:
    """A 429 of the whole project."""
    detail = {"@type": f"{_RPC}ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}
    message = "Quota exceeded for quota metric 'Send requests'"
    return error(
        429,
        "RESOURCE_EXHAUSTED",
        message,
        code="QUOTA_EXCEEDED",
        details=[detail],
        retry_after=retry_after,
    )


def unavailable(retry_after: str | None = None) -> Reply:
    """A 503."""
    message = "The service is currently unavailable."
    return error(503, "UNAVAILABLE", message, code="UNAVAILABLE", retry_after=retry_after)


def apns_error(status: int, reason: str, *, code: str, name: str) -> Reply:
    """What Apple said, passed on."""
    detail = {"@type": f"{_FCM}ApnsError", "statusCode": status, "reason": reason}
    return error(status, name, "APNs refused it.", code=code, details=[detail])


INVALID_TOKEN = invalid_argument(
    message="The registration token is not a valid FCM registration token"
)
INVALID_TOKEN_FIELD = invalid_argument("message.token")
INVALID_PAYLOAD = invalid_argument("message.android.ttl")
TOO_BIG = invalid_argument(message="Message too big")
UNAUTHENTICATED = error(
    401,
    "UNAUTHENTICATED",
    "Request had invalid authentication credentials.",
    details=[{"@type": f"{_RPC}ErrorInfo", "reason": "ACCESS_TOKEN_EXPIRED"}],
)
THIRD_PARTY_AUTH_ERROR = error(
    401,
    "UNAUTHENTICATED",
    "Auth error from APNS or Web Push Service",
    code="THIRD_PARTY_AUTH_ERROR",
)
PERMISSION_DENIED = error(403, "PERMISSION_DENIED", "Permission denied on the project.")
SENDER_ID_MISMATCH = error(403, "PERMISSION_DENIED", "SenderId mismatch", code="SENDER_ID_MISMATCH")
UNREGISTERED = error(404, "NOT_FOUND", "Requested entity was not found.", code="UNREGISTERED")
DEVICE_QUOTA_EXCEEDED = error(
    429,
    "RESOURCE_EXHAUSTED",
    "Device message rate exceeded.",
    code="QUOTA_EXCEEDED",
    details=[
        {
            "@type": f"{_RPC}QuotaFailure",
            "violations": [{"subject": "device", "description": "Device message rate exceeded"}],
        }
    ],
)
INTERNAL = error(500, "INTERNAL", "Internal error encountered.", code="INTERNAL")
