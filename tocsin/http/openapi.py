"""The API's description (OpenAPI 3.1), made of what stands beside each handler, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar, Response
from litestar.datastructures import State
from litestar.routes import ASGIRoute, HTTPRoute

from tocsin.http.auth import SCOPE_OF
from tocsin.http.errors import PROBLEM, Problem
from tocsin.http.operation import KEY, Answer, Operation, documented, get
from tocsin.http.pages.html import html
from tocsin.http.requests import reply

ACCESS = "access"  # in a router's opt: who may call
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "person": [{"token": []}, {"cookie": []}],
    "reader": [{"token": []}, {"cookie": []}, {"ticket": []}],
    "app": [{"api_key": []}],
    "known": [{"token": []}, {"cookie": []}, {"api_key": []}],
    "operator": [{"ops_key": []}, {"ops_cookie": []}],
    "metrics": [{"metrics_token": []}],
    "everyone": [],
}
_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The host app's JWT; `sub` is the recipient's id, `exp` is required.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "tocsin_token",
        "description": "The same JWT. Calls that change something must come from the service's own origin.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From POST /api/stream-ticket/, for EventSource.",
    },
    "api_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "`tocsin_…`, made by `tocsin api-key create NAME`; each call names the key's scope.",
    },
    "ops_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "`tocsin_…`, made by `tocsin api-key create NAME --scope ops`.",
    },
    "metrics_token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The operator's TOCSIN_METRICS_TOKEN.",
    },
    "ops_cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "tocsin_ops",
        "description": "From POST /ops/session/. Calls that change something must come from the service's own origin.",
    },
}
_FAILURES = {
    400: "The body can't be read.",
    401: "There are no credentials, or bad ones.",
    403: "The credentials are for something else.",
    404: "It is not there, or not yours.",
    409: "It is in progress elsewhere; try again after Retry-After seconds.",
    413: "The body is too large.",
    422: "Something is well-formed but wrong; `errors` names the fields.",
    429: "Too many at once; try again after Retry-After seconds.",
    503: "Not just now; try again after Retry-After seconds.",
}
_REF = "#/components/schemas/{name}"
_SCHEMA = "Description"

Json = dict[str, Any]


@get(
    "/schema/",
    opt=documented(
        Operation(
            summary="This page",
            tag=_SCHEMA,
            answers={200: Answer("The API's description.", media_type="text/html")},
        )
    ),
)
async def schema_page(state: State) -> Response[str]:
    """The description as a page."""
    return html("schema.html", doc=state.openapi, calls=list(_calls(state.openapi)))


@get(
    "/schema/openapi.json/",
    opt=documented(
        Operation(
            summary="This description as OpenAPI 3.1",
            tag=_SCHEMA,
            answers={200: Answer("The document.", dict[str, Any])},
        )
    ),
)
async def schema_json(state: State) -> Response[bytes]:
    """The description as JSON."""
    return reply(state.openapi)


def describe(app: Litestar, public_url: str | None) -> Json:
    """The document: each route that says something of itself, under the names of its structs."""
    found = list(_operations(app))
    kinds = [kind for *_, operation in found for kind in _kinds(operation)]
    schemas, components = msgspec.json.schema_components([*kinds, Problem], ref_template=_REF)
    by_kind = {repr(kind): schema for kind, schema in zip([*kinds, Problem], schemas, strict=True)}
    paths: Json = {}
    for path, method, parameters, access, operation in found:
        call = _call(operation, by_kind, components, access, parameters)
        if scope := SCOPE_OF.get((method, path.rstrip("/"))):
            call["security"] = [
                {name: [scope] if name.endswith("_key") else [] for name in each}
                for each in call["security"]
            ]
        paths.setdefault(path, {})[method.lower()] = call
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin",
            "version": version("tocsin"),
            "summary": "The notification engine.",
            "description": "Times are RFC 3339 in UTC, ids integers. Every path works with and without its last slash.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each[-1].tag for each in found)],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


def _operations(app: Litestar) -> Iterator[tuple[str, str, Json, str, Operation]]:
    """(path, method, path parameters, who may call, what it says) of each documented route."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute | ASGIRoute):
            continue
        path = f"{route.path_format.rstrip('/')}/"
        parameters = {name: each.type for name, each in route.path_parameters.items()}
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]
        for handler in handlers:
            operation = handler.opt.get(KEY)
            if not isinstance(operation, Operation):
                continue
            access = handler.opt.get(ACCESS, "everyone")
            methods = getattr(handler, "http_methods", operation.methods)
            for method in sorted(map(str, methods)):
                if method not in ("HEAD", "OPTIONS"):
                    yield path, method, parameters, access, operation


def _kinds(operation: Operation) -> list[Any]:
    answers = [answer.kind for answer in operation.answers.values()]
    return [kind for kind in (operation.body, operation.query, *answers) if kind is not None]


def _call(
    operation: Operation, schemas: Json, components: Json, access: str, path: Mapping[str, type]
) -> Json:
    parameters = [
        _parameter(name, "path", True, {"type": "integer" if kind is int else "string"})
        for name, kind in path.items()
    ]
    if operation.query is not None:
        parameters += _query(components[operation.query.__name__])
    parameters += [
        _parameter(name, "header", False, {"type": "string"}) | {"description": text}
        for name, text in operation.headers.items()
    ]
    call: Json = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": _SECURITY[access],
        "responses": _responses(operation, schemas, access, bool(path)),
    }
    if operation.description:
        call["description"] = operation.description
    if parameters:
        call["parameters"] = parameters
    if operation.body is not None:
        content: Json = {"schema": schemas[repr(operation.body)]}
        if operation.body_example is not None:
            content["example"] = operation.body_example
        call["requestBody"] = {
            "required": operation.body_required,
            "content": dict.fromkeys((operation.body_type, *operation.other_body_types), content),
        }
    return call


def _query(schema: Json) -> list[Json]:
    required = schema.get("required", [])
    return [
        _parameter(name, "query", name in required, each)
        for name, each in schema["properties"].items()
    ]


def _parameter(name: str, place: str, required: bool, schema: Json) -> Json:
    text = schema.get("description") or next(
        (each["description"] for each in schema.get("anyOf", ()) if "description" in each), None
    )
    found = {"name": name, "in": place, "required": required, "schema": schema}
    return found | ({"description": text} if text else {})


def _responses(operation: Operation, schemas: Json, access: str, has_path: bool) -> Json:
    responses = {str(code): _answer(each, schemas) for code, each in operation.answers.items()}
    fails = set(operation.fails)
    if access not in ("everyone", "metrics"):
        fails |= {401, 403, 503}
        fails |= {404} if has_path else set()
        fails |= {422} if operation.query or operation.body else set()
        fails |= {400, 413} if operation.body else set()
    for code in sorted(fails):
        example = {
            "title": HTTPStatus(code).phrase,
            "status": code,
            "detail": _FAILURES[code],
            "type": "about:blank",
        }
        content = {PROBLEM: {"schema": schemas[repr(Problem)], "example": example}}
        known = responses.get(str(code), {"description": _FAILURES[code]})
        responses[str(code)] = known | {"content": known.get("content", {}) | content}
    return responses


def _answer(answer: Answer, schemas: Json) -> Json:
    found: Json = {"description": answer.description}
    if answer.kind is not None or answer.media_type != "application/json":
        content: Json = {
            "schema": schemas[repr(answer.kind)] if answer.kind else {"type": "string"}
        }
        if answer.example is not None:
            content["example"] = answer.example
        found["content"] = dict.fromkeys((answer.media_type, *answer.other_media_types), content)
    if answer.headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in answer.headers.items()
        }
    return found


def _calls(doc: Json) -> Iterator[Json]:
    """Each call for the page, with an anchor."""
    for path, methods in doc["paths"].items():
        for method, call in methods.items():
            anchor = (
                f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}"
            )
            yield {"path": path, "method": method.upper(), "anchor": anchor, **call}
