"""Names that a template asks for and its mails don't have, in any branch; found without rendering it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from jinja2 import meta, nodes

from tocsin.engine.mail_templates import Templates

Unknown = tuple[str, int, str]
"""A template, its line, and what is wrong there."""


def unknown_names(
    templates: Templates, contexts: Mapping[str, Mapping[str, Any]]
) -> Iterator[Unknown]:
    """Of the templates that mails begin with, each with its context, and of all that they refer to."""
    for root, context in contexts.items():
        known = dict(templates.environment.globals) | dict(context)
        yield from _unknown_in(templates, root, known, frozenset())


def references(templates: Templates, name: str) -> Iterator[str]:
    """The templates that one names."""
    if tree := _parsed(templates, name):
        yield from (each for each in meta.find_referenced_templates(tree) if each)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known one, in brackets."""
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _unknown_in(
    templates: Templates, name: str, known: Mapping[str, Any], above: frozenset[str]
) -> Iterator[Unknown]:
    if name in above or (tree := _parsed(templates, name)) is None:
        return
    # what it sets is known to those that it includes or extends; whether it is set everywhere, rendering shows
    stored = {node.name: None for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    for each in sorted(meta.find_undeclared_variables(tree) - known.keys() - stored.keys()):
        found = next(node for node in tree.find_all(nodes.Name) if node.name == each)
        yield name, found.lineno, f"unknown variable {each!r}{did_you_mean(each, known)}"
    yield from ((name, line, why) for line, why in _unknown_attributes(tree, known))
    for reference in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        sees_all = getattr(reference, "with_context", True)
        within = stored | dict(known) if sees_all else dict(templates.environment.globals)
        for other in _named(reference):
            yield from _unknown_in(templates, other, within, above | {name})


def _unknown_attributes(
    tree: nodes.Template, known: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    for each in tree.find_all(nodes.Getattr):
        keys = _keys(each.node.name, known) if isinstance(each.node, nodes.Name) else None
        if keys and each.attr not in keys and isinstance(each.node, nodes.Name):
            near = did_you_mean(each.attr, keys)
            yield each.lineno, f"unknown attribute {each.attr!r} of {each.node.name}{near}"


def _keys(owner: str, known: Mapping[str, Any]) -> set[str] | None:
    """The attributes of what is always alike; of what apps say, nobody knows."""
    value = known.get(owner)
    return set(value.__struct_fields__) if owner == "brand" and value is not None else None


def _named(reference: nodes.Node) -> Iterator[str]:
    """The templates that a tag names in plain words."""
    wanted = getattr(reference, "template", None)
    if isinstance(wanted, nodes.Const) and isinstance(wanted.value, str):
        yield wanted.value
    elif isinstance(wanted, nodes.List | nodes.Tuple):
        yield from (each.value for each in wanted.items if isinstance(each, nodes.Const))


def _parsed(templates: Templates, name: str) -> nodes.Template | None:
    file = templates.file(name)
    return templates.environment.parse(file.read_text("utf-8"), name) if file else None
