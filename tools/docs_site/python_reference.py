"""The pages of the Python packages, from the signatures and docstrings in their source; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Module(NamedTuple):
    """A module of a page, and the names of it that are documented; none: those of its `__all__`."""

    name: str
    names: tuple[str, ...] = ()


_CLIENT = (
    Module("tocsin.client"),
    Module(
        "tocsin.client.connections",
        ("Connection", "AsyncConnection", "AwaitedConnection", "AsyncpgConnection"),
    ),
    Module("tocsin.client.arguments", ("RecipientId", "Text", "Metadata")),
)
_TESTING = (
    Module("tocsin.testing"),
    Module("tocsin.testing.plugin", ("tocsin_connection", "tocsin_outbox")),
)
_FRAMEWORKS = (
    Module("tocsin.contrib.bell", ("person_token", "bell_html")),
    Module("tocsin.contrib.fastapi", ("token_router",)),
    Module("tocsin.contrib.sqlalchemy", ("keep_recipients", "include_name")),
    Module("tocsin.contrib.django.conf", ("Options",)),
    Module("tocsin.contrib.django.templatetags.tocsin", ("tocsin_bell", "tocsin_token")),
)


def client_page(root: Path) -> str:
    """`tocsin` and `tocsin.client`."""
    text = "`from tocsin import notify` and `from tocsin.client import notify` are the same.\n"
    return _page(root, "Python", text, _CLIENT)


def testing_page(root: Path) -> str:
    """`tocsin.testing` and the fixtures of its pytest plugin."""
    text = "[Testing](../guides/testing.md) has examples. The fixtures are there once `tocsin` is installed.\n"
    return _page(root, "Tests", text, _TESTING)


def frameworks_page(root: Path) -> str:
    """`tocsin.contrib`."""
    text = (
        "The guides show how each is used: [FastAPI](../guides/fastapi.md), [SQLAlchemy](../guides/sqlalchemy.md),"
        " [Django](../guides/django.md).\n"
    )
    return _page(root, "Frameworks", text, _FRAMEWORKS)


def _page(root: Path, title: str, text: str, modules: Iterable[Module]) -> str:
    parts = [f"# {title}\n", text]
    for module in modules:
        file = _file(root, module.name)
        tree = ast.parse(file.read_text("utf-8"))
        parts += [f"## `{module.name}`\n", ast.get_docstring(tree) or "", ""]
        for name in module.names or _all(tree):
            parts += _entry(*_find(root, module.name, name), qualified=f"{module.name}.{name}")
    return "\n".join(parts)


def _file(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _all(tree: ast.Module) -> list[str]:
    """Returns the names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(each) for each in ast.literal_eval(node.value)]
    raise ValueError("The module has no __all__.")


def _find(root: Path, module: str, name: str) -> tuple[ast.stmt, str]:
    """Returns the definition of a name, and the source that it is in; of overloads, the implementation."""
    source = _file(root, module).read_text("utf-8")
    found: ast.stmt | None = None
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}:
            assert node.module, f"{module} imports {name} by a relative path"
            return _find(root, node.module, name)
        if isinstance(node, Definition) and node.name == name:
            found = node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            found = node
    if found is None:
        raise ValueError(f"{module} has no {name}.")
    return found, source


def _entry(node: ast.stmt, source: str, *, qualified: str) -> Iterator[str]:
    yield f"### {qualified.rpartition('.')[2]}\n"
    if isinstance(node, ast.ClassDef):
        yield from _class(node, source, qualified)
    elif isinstance(node, Function):
        yield _directive("function", _signature(node, qualified), node)
    else:
        yield f"```python\n{ast.get_source_segment(source, node)}\n```\n"


def _class(node: ast.ClassDef, source: str, qualified: str) -> Iterator[str]:
    """Its docstring, its fields as they are in the source, and its methods."""
    methods = [each for each in node.body if isinstance(each, Function)]
    made = next((each for each in methods if each.name == "__init__"), None)
    head = _signature(made, qualified, bound=True) if made else qualified
    is_error = any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    yield _directive("exception" if is_error else "class", head.removesuffix(" -> None"), node)
    if fields := "".join(_fields(node, source)):
        yield f"```python\n{fields}```\n"
    for each in methods:
        if not each.name.startswith("_"):
            is_property = any(ast.unparse(mark) == "property" for mark in each.decorator_list)
            name = f"{qualified}.{each.name}"
            head = name if is_property else _signature(each, name, bound=True)
            yield _directive("property" if is_property else "method", head, each)


def _fields(node: ast.ClassDef, source: str) -> Iterator[str]:
    """Yields the lines of the annotated fields, with the comments or strings that describe them."""
    lines = source.splitlines()
    body = node.body
    for position, each in enumerate(body):
        if not isinstance(each, ast.AnnAssign):
            continue
        end = each.end_lineno or each.lineno
        following = body[position + 1] if position + 1 < len(body) else None
        if isinstance(following, ast.Expr):  # the string below a field
            end = following.end_lineno or end
        for line in lines[each.lineno - 1 : end]:
            yield f"{line.removeprefix('    ')}\n"


def _signature(node: Function, qualified: str, *, bound: bool = False) -> str:
    arguments = node.args
    if bound:
        arguments = ast.arguments(
            posonlyargs=arguments.posonlyargs, args=arguments.args[1:], vararg=arguments.vararg,
            kwonlyargs=arguments.kwonlyargs, kw_defaults=arguments.kw_defaults, kwarg=arguments.kwarg,
            defaults=arguments.defaults,
        )  # fmt: skip
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{qualified}({ast.unparse(arguments)}){returns}"


def _directive(kind: str, head: str, node: Definition) -> str:
    """Returns a MyST directive of Sphinx's Python domain, so that the search finds the name."""
    mark = ":async:\n\n" if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"```{{py:{kind}}} {head}\n{mark}{ast.get_docstring(node) or ''}\n```\n"
