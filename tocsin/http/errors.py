"""Every failure as RFC 9457 problem+json; the only file that knows which failure has which status."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from msgspec import Struct, inspect

from tocsin.engine.badge.hub import TooManyStreams
from tocsin.engine.model import Acted, Conflict, Invalid, NotFound, Refused, Unavailable
from tocsin.settings import RateLimit

PROBLEM = "application/problem+json"
_RETRY_AFTER = {409: "1", 429: "5", 503: "5"}  # seconds
_CURES = {
    400: "The request can't be read: check that its body is JSON in UTF-8.",
    404: "There is nothing here. /schema lists what there is.",
    405: "This path does not take that method; the header Allow names those that it takes.",
    500: "Something went wrong here; the service's log has it.",
}
TIME_CURE = "Give a time such as 2026-11-21T09:30:00Z."
_WENT_AWAY = "client disconnected prematurely"  # Litestar's words for it
_CLOSED_REQUEST = 499  # nginx' number for it

log = structlog.get_logger("tocsin.http")

AnyRequest = Request[Any, Any, Any]


class FieldError(Struct, frozen=True):
    """One field at fault, and what to do about it."""

    field: str
    message: str


class ProblemDetails(Struct, frozen=True, omit_defaults=True):
    """RFC 9457; `errors` only where fields are at fault, `reason` only where a program needs to know it.

    `acted` is what was chosen before another action.
    """

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: list[FieldError] = []
    reason: str | None = None
    acted: Acted | None = None


class Unreadable(Exception):
    """The body is not JSON in UTF-8."""


class Unauthorized(Exception):
    """No or bad credentials; the message states which, and how to send good ones."""

    def __init__(self, detail: str, *, error: str | None = None) -> None:
        super().__init__(detail)
        self.error = error  # RFC 6750, section 3.1; None where there were no credentials at all


class NotServing(Exception):
    """The service can't serve; the message states why."""


class TooManyRequests(Exception):
    """A limit is reached; `retry_after` is in seconds."""

    def __init__(self, limit: RateLimit, retry_after: float) -> None:
        self.limit = limit
        self.retry_after = max(math.ceil(retry_after), 1)
        requests = f"{limit.requests:,} requests in {limit.seconds} seconds"
        super().__init__(
            f"There were more than {requests} (the limit {limit.name}). Try again in {self.retry_after} seconds."
        )

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-11 has them."""
        return {
            "Retry-After": str(self.retry_after),
            "RateLimit-Policy": f'"{self.limit.name}";q={self.limit.requests};w={self.limit.seconds}',
            "RateLimit": f'"{self.limit.name}";r=0;t={self.retry_after}',
        }


class Forbidden(Exception):
    """Good credentials for something else."""


def problem(
    status: int,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    reason: str | None = None,
    acted: Acted | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """Returns a problem+json response."""
    phrase = HTTPStatus(status).phrase
    body = ProblemDetails(phrase, status, detail, errors=errors or [], reason=reason, acted=acted)
    own = {"Retry-After": _RETRY_AFTER[status]} if status in _RETRY_AFTER else {}
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=PROBLEM,
        headers={"Cache-Control": "no-store", **own, **(headers or {})},
    )


Handler = Callable[[Any, Any], Response[bytes]]


def _with_detail(status: int, cure: str = "") -> Handler:
    """Makes the problem of an error from its message, or else from its docstring."""

    def handle(_request: Any, error: Exception) -> Response[bytes]:
        return problem(status, _sentence(str(error) or type(error).__doc__ or "") + cure)

    return handle


def _validation(request: AnyRequest, error: ValidationException) -> Response[bytes]:
    """Returns the response to Litestar's own error for a parameter of the wrong type or beyond its limits."""
    faults: list[dict[str, str]] = error.extra if isinstance(error.extra, list) else []
    # what no name can be is not found; a PUT would make it, and names what is wrong
    would_create = request.method == "PUT" and "\0" not in request.scope["path"]
    if any(each.get("source") == "path" for each in faults) and not would_create:
        return _not_found(request, NotFound())
    if any(each.get("key") == "data" for each in faults):
        return _unreadable(request, Unreadable("The body is not JSON in UTF-8."))
    types = request.route_handler.parsed_fn_signature.parameters
    errors = []
    for fault in faults:
        name = fault.get("key", "query")
        kind = inspect.type_info(types[name].annotation if name in types else Any)
        described = getattr(types[name].kwarg_definition, "examples", None) if name in types else ()
        example = next((each.value for each in described or ()), None)
        errors.append(FieldError(name, value_fault(fault["message"], kind, example)))
    names = ", ".join(each.field for each in errors[:5])
    return problem(422, f"{names} can't be taken as it is.", errors=errors)


def value_fault(message: str, kind: inspect.Type, example: object = None) -> str:
    """Returns msgspec's message about a value, with the possible values where they are a closed set.

    In place of a regular expression it has an example, also that of the type.
    """
    message = message.replace("`", "")
    if message.startswith(("Expected datetime", "Invalid RFC3339")):
        return TIME_CURE
    example = example or _example(kind)
    if "matching regex" in message and example is not None:
        return f"Give a value such as {example}."
    cure = ""
    if message.startswith("Invalid enum value"):
        cure = f" Give one of: {', '.join(_values(kind))}."
    return f"{message}.{cure}"


def _example(kind: inspect.Type) -> object:
    schema = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    return next(iter((schema or {}).get("examples", ())), None)


def _values(kind: inspect.Type) -> list[str]:
    """Returns the values of a closed set."""
    match kind:
        case inspect.UnionType(types=types):
            return [value for each in types for value in _values(each)]
        case inspect.Metadata(type=described):
            return _values(described)
        case inspect.LiteralType(values=values):
            return [str(value) for value in values]
        case inspect.EnumType(cls=members):
            return [str(each.value) for each in members]
        case _:
            return []


def _invalid(_request: AnyRequest, error: Invalid) -> Response[bytes]:
    errors = [FieldError(field or "body", message) for field, message in error.fields]
    text = str(error)
    # the name of a field stays as it is spelled
    named = re.match(r"\w+", text)
    spelled = named is not None and any(
        named[0] in re.split(r"\W", field) for field, _ in error.fields
    )
    return problem(422, _ended(text) if spelled else _sentence(text), errors=errors)


def _refused(_request: AnyRequest, error: Refused) -> Response[bytes]:
    refused = problem(409, str(error), reason=error.reason, acted=error.acted)
    del refused.headers["Retry-After"]
    return refused


def _unavailable(_request: AnyRequest, _error: Unavailable) -> Response[bytes]:
    return problem(503, "The service can't do this just now. Try again in a few seconds.")


def _too_many_requests(_request: AnyRequest, error: TooManyRequests) -> Response[bytes]:
    return problem(429, str(error), headers=error.headers)


def _unauthorized(request: AnyRequest, error: Unauthorized) -> Response[bytes]:
    try:
        request.app.state.rate_limiting.count_address(request.scope)
    except TooManyRequests as limit:
        return _too_many_requests(request, limit)
    challenge = 'Bearer realm="tocsin"' + (f', error="{error.error}"' if error.error else "")
    return problem(401, str(error), headers={"WWW-Authenticate": challenge})


def _http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Returns the response to Litestar's own error, without its detail, which may quote the request."""
    status = 404 if error.status_code < 400 else error.status_code
    if status == 413:
        most = request.route_handler.resolve_request_max_body_size()
        return problem(413, f"The body is larger than the {most:,} bytes that this call takes.")
    if isinstance(error, InternalServerException) and error.detail == _WENT_AWAY:
        # the client has disconnected; the access log and the metrics show the status
        return Response(b"", status_code=_CLOSED_REQUEST, media_type="text/plain")
    if status >= 500:
        return _unexpected(request, error)
    allow = {k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"}
    return problem(status, _CURES.get(status, HTTPStatus(status).description), headers=allow)


def response_to(error: Exception, operation: str) -> Response[bytes]:
    """Returns the response to a failure of an operation, outside of a request."""
    handler = _OF_OPERATIONS.get(type(error))
    return _logged(error, operation) if handler is None else handler(None, error)


def _unexpected(request: AnyRequest, error: Exception) -> Response[bytes]:
    return _logged(error, request.scope.get("path_template", ""))


def _logged(error: Exception, route: str) -> Response[bytes]:
    # Neither the message nor the values: they may hold what people wrote.
    log.error(
        "unexpected failure",
        route=route,
        error=type(error).__qualname__,
        sqlstate=getattr(error, "sqlstate", None),
        traceback="".join(traceback.format_tb(error.__traceback__)),
    )
    return problem(500, _CURES[500])


def _sentence(text: str) -> str:
    return _ended(text[:1].upper() + text[1:])


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


_not_found, _unreadable = _with_detail(404), _with_detail(400)
_OF_OPERATIONS: dict[int | type[Exception], Handler] = {
    NotFound: _not_found,
    Conflict: _with_detail(409, " Try again in a moment."),
    Refused: _refused,
    Invalid: _invalid,
    Unavailable: _unavailable,
    Unreadable: _unreadable,
    Forbidden: _with_detail(403),
}
HANDLERS: dict[int | type[Exception], Callable[[AnyRequest, Any], Response[Any]]] = {
    **_OF_OPERATIONS,
    NotServing: _with_detail(503),
    Unauthorized: _unauthorized,
    TooManyRequests: _too_many_requests,
    TooManyStreams: _with_detail(429),
    ValidationException: _validation,
    HTTPException: _http,
    Exception: _unexpected,
}
