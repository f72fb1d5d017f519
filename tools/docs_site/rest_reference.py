"""The pages of the HTTP calls and their types, from the API's own description (OpenAPI)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]

_TYPES = "http-types.md"
_CALLS = """
# HTTP calls

Made from the description that a running service has at `/schema/openapi.json`. [HTTP](../http.md) explains tokens,
keys, scopes, limits and the stream.

## Errors

The body of an error is [ProblemDetails](http-types.md#problemdetails). Where a call lists a status without a sentence,
this is what it means:
"""
_LIMITS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches `{}`",
}


@cache
def description() -> Json:
    """Returns the description; the app is not started, and its database not opened."""
    from tocsin.engine.badge.hub import BadgeHub
    from tocsin.engine.store.database import Database
    from tocsin.http.app import create_app
    from tocsin.http.openapi import describe
    from tocsin.settings import Settings

    database = Database("")
    app = create_app(Settings(), database, BadgeHub(database), link_key=b"k" * 32)
    return describe(app)


def calls_page(root: Path) -> str:
    """Returns each route by its tag."""
    del root
    described = description()
    common = _common_errors(described)
    parts = [
        _CALLS.lstrip(),
        "| status | meaning |\n| --- | --- |",
        *(f"| {status} | {_cell(text)} |" for status, text in sorted(common.items())),
        "",
    ]
    for tag in described["tags"]:
        parts.append(f"## {tag['name']}\n")
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                if operation["tags"][0] == tag["name"]:
                    parts += _call(method.upper(), path, operation, common)
    return "\n".join(parts)


def types_page(root: Path) -> str:
    """Returns each type by its name."""
    del root
    parts = ["# HTTP types\n", "The bodies of [the calls](http-calls.md).\n"]
    for name, schema in sorted(description()["components"]["schemas"].items()):
        parts += [f"## {name}\n", f"{schema.get('description', '')}\n"]
        if values := schema.get("enum"):
            parts.append(f"One of {', '.join(f'`{each}`' for each in values)}.\n")
        if fields := schema.get("properties"):
            parts += _table("field", fields, set(schema.get("required", ())))
    return "\n".join(parts)


def _common_errors(described: Json) -> dict[str, str]:
    """Returns the sentence that most calls have for each status of an error."""
    seen: dict[str, Counter[str]] = {}
    for methods in described["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    seen.setdefault(status, Counter())[response["description"]] += 1
    return {status: sentences.most_common(1)[0][0] for status, sentences in seen.items()}


def _call(method: str, path: str, operation: Json, common: Mapping[str, str]) -> Iterator[str]:
    yield f"### {operation['summary']}\n"
    yield f"```text\n{method} {path}\n```\n"
    yield f"{operation.get('description', '')}\n"
    yield f"{_callers(operation)}\n"
    if parameters := operation.get("parameters"):
        fields = {each["name"]: {**each["schema"], **_described(each)} for each in parameters}
        yield from _table("parameter", fields, {p["name"] for p in parameters if p["required"]})
    if body := operation.get("requestBody"):
        yield from _body("Body", body)
    for status, response in operation["responses"].items():
        if status < "400":
            yield from _body(f"`{status}`", response)
    yield f"{_errors(operation['responses'], common)}\n"


def _callers(operation: Json) -> str:
    schemes = [name for each in operation.get("security", ()) for name in each]
    return f"Credentials: {', '.join(f'`{name}`' for name in schemes) or 'none'}."


def _described(parameter: Json) -> Json:
    return {"description": parameter["description"]} if "description" in parameter else {}


def _body(title: str, response: Json) -> Iterator[str]:
    sentence = f" {response['description']}" if response.get("description") else ""
    contents = response.get("content", {})
    kinds = (
        f"{type_of(content.get('schema', {}))}{'' if kind == 'application/json' else f' (`{kind}`)'}"
        for kind, content in contents.items()
    )
    yield f"**{title}**: {' or '.join(kinds) or 'nothing'}.{sentence}\n"
    for content in contents.values():
        if "example" in content:
            text = content["example"]
            shown = (
                text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)
            )
            yield f"```{'text' if isinstance(text, str) else 'json'}\n{shown}\n```\n"


def _errors(responses: Json, common: Mapping[str, str]) -> str:
    errors = [
        f"{status}" + ("" if common[status] == each["description"] else f" ({each['description']})")
        for status, each in responses.items()
        if status >= "400"
    ]
    return f"Errors: {', '.join(errors)}." if errors else ""


def _table(kind: str, fields: Mapping[str, Json], required: set[str]) -> Iterator[str]:
    yield f"| {kind} | type | |\n| --- | --- | --- |"
    for name, schema in fields.items():
        notes = [schema.get("description", ""), *_limits(schema)]
        if "default" in schema:
            notes.append(f"Default: `{json.dumps(schema['default'])}`.")
        mark = "" if name in required else " (optional)"
        text = " ".join(each for each in notes if each)
        yield f"| `{name}`{mark} | {_cell(type_of(schema))} | {_cell(text)} |"
    yield ""


def _limits(schema: Json) -> Iterator[str]:
    for part in (schema, *schema.get("oneOf", ())):
        limits = [text.format(_number(part[key])) for key, text in _LIMITS.items() if key in part]
        if limits:
            yield f"{', '.join(limits)}."[0].upper() + f"{', '.join(limits)}."[1:]


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def type_of(schema: Json) -> str:
    """Returns a type as words, with links to named types."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({_TYPES}#{name.lower()})"
    if "oneOf" in schema:
        return " or ".join(dict.fromkeys(type_of(each) for each in schema["oneOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and schema.get("additionalProperties"):
        return f"object of {type_of(schema['additionalProperties'])}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
