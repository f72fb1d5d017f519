"""What a route says of itself for the API's description; it stands beside the handler, in its `opt`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from litestar import HttpMethod, route
from msgspec import Struct

KEY = "operation"

get = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
"""As Litestar's, but with HEAD: uvicorn sends its response without the body. Such a handler must not change state."""


class Answer(Struct, frozen=True):
    """One answer that is no problem+json, or not always; `kind` None: without a body, unless it has a media type."""

    description: str
    kind: Any = None
    example: Any = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = {}
    other_media_types: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """One call; failures are added by who may call and what it takes."""

    summary: str
    tag: str
    answers: Mapping[int, Answer]
    description: str = ""
    query: type[Struct] | None = None
    body: Any = None
    body_example: Any = None
    body_required: bool = True
    body_type: str = "application/json"
    other_body_types: tuple[str, ...] = ()
    headers: Mapping[str, str] = {}
    fails: tuple[int, ...] = ()
    methods: tuple[str, ...] = ("GET",)  # of raw ASGI routes, which say nothing themselves


def documented(operation: Operation) -> dict[str, Any]:
    """For a handler's `opt`."""
    return {KEY: operation}
