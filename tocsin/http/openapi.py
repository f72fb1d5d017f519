"""The API's description (OpenAPI 3.1): Litestar's own, of the handlers' annotations, completed; as JSON and as a page.

Litestar knows the paths, the parameters, the bodies and what is returned. It does not know what is raised, so that is
added here by the kind of caller, and so are the examples, and what msgspec refuses but Litestar does not state (see
docs/adr/0060-litestar.md).
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from threading import Lock
from typing import Annotated, Any

import msgspec
from litestar import HttpMethod, Litestar, Router, route
from litestar._openapi.schema_generation.plugins.struct import StructSchemaPlugin
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    License,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Server,
    Tag,
)
from litestar.openapi.spec.base import BaseSchemaObject
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import Body
from litestar.routes import BaseRoute, HTTPRoute
from msgspec import Struct

from tocsin.http.auth import ACCESS, RATE, SCOPE
from tocsin.http.errors import PROBLEM

_TEXTS: dict[str, dict[str, Any]] = tomllib.loads(
    (files("tocsin.http") / "openapi.toml").read_text("utf-8")
)
_SCHEMES: dict[str, SecurityScheme | Reference] = {
    name: SecurityScheme(**row) for name, row in _TEXTS["schemes"].items()
}
FAILURES: dict[int, str] = {int(status): text for status, text in _TEXTS["failures"].items()}
_NOTES = "notes"  # in a handler's opt
_DESCRIPTION = "description"  # in the app's state
_describing = Lock()

Json = dict[str, Any]

get = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
"""As Litestar's, but with HEAD: uvicorn sends its response without the body. Such a handler must not change state."""


class OtherResponse(ResponseSpec):
    """A response besides a handler's usual one; without a `kind` it has no body, unless it has a media type."""

    def __init__(
        self,
        description: str,
        kind: Any = None,
        *,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if kind is None and media_type != "application/json":
            kind = str
        super().__init__(
            kind, generate_examples=False, description=description, media_type=media_type
        )
        self.headers = headers or {}


class Notes(Struct, frozen=True, kw_only=True):
    """What no annotation of a handler states."""

    media_types: tuple[str, ...] = ()  # of what is returned, besides the usual one
    body_media_types: tuple[str, ...] = ("application/json",)
    fails: tuple[int, ...] = ()  # besides those of each call with such credentials
    any_body: bool = False  # whatever it is, it is neither unreadable nor wrong


def noted(**notes: Any) -> dict[str, Any]:
    """Returns entries for a handler's `opt`; the names are those of `Notes`."""
    return {_NOTES: Notes(**notes)}


@cache
def examples() -> Mapping[str, Any]:
    """Returns the examples by the name of a struct; of a call that returns none, by the name of its handler."""
    found: Json = msgspec.json.decode((files("tocsin.http") / "examples.json").read_bytes())
    return found


def body_read_by_handler(kind: Any) -> dict[str, Provide]:
    """Returns a dependency that describes the body of a handler that reads it itself; it is never called."""

    async def body(data: Any) -> None:
        """Never called: Litestar describes the `data` of dependencies too."""

    body.__annotations__["data"] = Annotated[kind, Body()]
    return {"read_by_handler": Provide(body)}


class StructSchemas(StructSchemaPlugin):
    """Litestar's schemas of structs, with their docstrings, and that unknown fields are refused."""

    def to_openapi_schema(self, field_definition: Any, schema_creator: Any) -> Schema:
        """Implements the interface of Litestar."""
        schema = super().to_openapi_schema(field_definition, schema_creator)
        kind = field_definition.type_
        schema.description = inspect.getdoc(kind)
        if kind.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        return schema


class _NoRoutes(Router):
    """Litestar's routes for the document are left out: ours take HEAD, and fail as all others do."""

    def register(self, value: Any) -> list[BaseRoute]:  # noqa: ARG002
        """Registers nothing."""
        return []


@dataclass
class _Verbatim(BaseSchemaObject):
    """An example, of which Litestar would leave out what is null."""

    value: Any

    def to_schema(self) -> Any:
        """Implements the interface of Litestar."""
        return self.value


def openapi_config(public_url: str | None) -> OpenAPIConfig:
    """Returns the configuration for Litestar."""
    return OpenAPIConfig(
        title="Tocsin",
        version=version("tocsin"),
        summary="The notification engine.",
        description="Times are RFC 3339 in UTC, ids integers. Every path works with and without its last slash.",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        servers=[Server(url=public_url or "/")],
        components=Components(security_schemes=_SCHEMES),
        operation_id_creator=_operation_id,
        render_plugins=[JsonRenderPlugin()],
        openapi_router=_NoRoutes("/", route_handlers=[]),
    )


def describe(app: Litestar) -> Json:
    """Returns the document, made with the first call, which takes a quarter of a second: call it in a thread."""
    with _describing:
        found: Json | None = app.state.get(_DESCRIPTION)
        if found is None:
            found = app.state[_DESCRIPTION] = _completed(app, app.openapi_schema)
    return found


def _completed(app: Litestar, doc: OpenAPI) -> Json:
    paths = doc.paths or {}
    schemas = doc.components.schemas
    tags: dict[str, None] = {}
    for each in app.routes:
        if not isinstance(each, HTTPRoute) or each.path_format not in paths:
            continue
        item = paths[each.path_format]
        item.head = None
        for handler in each.route_handlers:
            for method in sorted(map(str, handler.http_methods - {"HEAD", "OPTIONS"})):
                operation: Operation | None = getattr(item, method.lower())
                if operation is not None:
                    _complete(operation, handler, schemas)
                    tags |= dict.fromkeys(operation.tags or ())
    doc.paths = {f"{path.rstrip('/')}/": item for path, item in paths.items()}
    doc.tags = [Tag(name=tag) for tag in tags]
    return doc.to_schema()


def _operation_id(handler: HTTPRouteHandler, method: Any, _path: Any) -> str:
    return handler.handler_name + ("_head" if method == HttpMethod.HEAD else "")


def _complete(
    operation: Operation, handler: HTTPRouteHandler, schemas: Mapping[str, Schema]
) -> None:
    notes: Notes = handler.opt.get(_NOTES) or Notes()
    access: str = handler.opt.get(ACCESS, "everyone")
    scope: str | None = handler.opt.get(SCOPE)
    summary, _, description = (inspect.getdoc(handler.fn) or "").partition("\n\n")
    operation.summary = summary.removesuffix(".")
    operation.description = operation.description or " ".join(description.split()) or None
    for parameter in operation.parameters or ():
        if isinstance(parameter, Parameter):
            parameter.description = parameter.description or _description(parameter.schema)
    _complete_body(operation, notes)
    operation.responses = _responses(
        operation, handler, schemas, _failures(operation, notes, access, handler.opt.get(RATE, ""))
    )
    operation.security = [
        {name: [scope] if scope and name.endswith("_key") else []}
        for name in _TEXTS["security"][access]
    ]


def _description(schema: Schema | Reference | None) -> str | None:
    """Returns the description of a parameter; that of its type where it may be left out."""
    if not isinstance(schema, Schema):
        return None
    inner = (each.description for each in schema.one_of or () if isinstance(each, Schema))
    return schema.description or next(filter(None, inner), None)


def _complete_body(operation: Operation, notes: Notes) -> None:
    if not isinstance(operation.request_body, RequestBody):
        return
    schema = next(iter(operation.request_body.content.values())).schema
    if isinstance(schema, Schema) and schema.one_of:  # or null, which stands for no body
        schema, operation.request_body.required = schema.one_of[0], False
    content = OpenAPIMediaType(schema=schema, example=_example(schema))
    operation.request_body.content = dict.fromkeys(notes.body_media_types, content)


def _example(schema: Schema | Reference | None, name: str = "") -> Any:
    """Returns the example of a struct, else that of this name."""
    name = _name(schema) or name
    return _Verbatim(examples()[name]) if name in examples() else None


def _name(schema: Schema | Reference | None) -> str:
    return schema.ref.rpartition("/")[2] if isinstance(schema, Reference) else ""


def _responses(
    operation: Operation,
    handler: HTTPRouteHandler,
    schemas: Mapping[str, Schema],
    failures: Iterable[int],
) -> dict[str, OpenAPIResponse | Reference]:
    found: dict[str, OpenAPIResponse | Reference] = {}
    for status, response in (operation.responses or {}).items():
        other = (handler.responses or {}).get(int(status))
        # others are Litestar's own way to fail, which is not ours
        if isinstance(response, OpenAPIResponse) and (other or int(status) == handler.status_code):
            found[status] = response
            for each in (response.content or {}).values():
                each.example = _example(each.schema, handler.handler_name)
                if isinstance(each.schema, Schema):  # an empty list is valid under several structs
                    each.schema.any_of, each.schema.one_of = each.schema.one_of, None
            if isinstance(other, OtherResponse):
                response.headers = {
                    name: OpenAPIHeader(description=text, schema=Schema(type=OpenAPIType.STRING))
                    for name, text in other.headers.items()
                }
            else:
                _complete_usual(response, handler, schemas)
    for code in sorted(failures):
        known = found.get(str(code))
        content = known.content if isinstance(known, OpenAPIResponse) and known.content else {}
        description = known.description if isinstance(known, OpenAPIResponse) else FAILURES[code]
        found[str(code)] = OpenAPIResponse(description, content=content | _problem(code))
    return found


def _failures(operation: Operation, notes: Notes, access: str, rate: str | None) -> set[int]:
    fails = set(notes.fails)
    if rate is not None:
        fails |= {429}
    places = {each.param_in for each in operation.parameters or () if isinstance(each, Parameter)}
    if access not in ("everyone", "metrics"):
        fails |= {401, 403, 503}
        fails |= {404} if "path" in places else set()
        reads = operation.request_body is not None and not notes.any_body
        fails |= {422} if "query" in places or reads else set()
        fails |= {400} if reads else set()
        fails |= {413} if operation.request_body else set()
    return fails


def _problem(code: int) -> dict[str, OpenAPIMediaType]:
    example = {
        "title": HTTPStatus(code).phrase,
        "status": code,
        "detail": FAILURES[code],
        "type": "about:blank",
    }
    return {
        PROBLEM: OpenAPIMediaType(
            schema=Reference(ref="#/components/schemas/ProblemDetails"), example=example
        )
    }


def _complete_usual(
    response: OpenAPIResponse, handler: HTTPRouteHandler, schemas: Mapping[str, Schema]
) -> None:
    for header in (response.headers or {}).values():
        if isinstance(header, OpenAPIHeader):
            header.schema = header.schema or Schema(type=OpenAPIType.STRING)
    schema = next((each.schema for each in (response.content or {}).values()), None)
    if isinstance(schema, Schema) and schema.type == "null":
        response.content = None
    if struct := schemas.get(_name(schema)):
        response.description = struct.description or response.description
    notes: Notes = handler.opt.get(_NOTES) or Notes()
    for media_type in notes.media_types:
        assert response.content is not None
        usual = next(iter(response.content.values()))
        json = OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))
        response.content[media_type] = json if media_type == "application/json" else usual
