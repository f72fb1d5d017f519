"""The docs list what exists: settings, commands, routes, functions, links; and their snippets run."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db
from tests.support.schema_diagram import FILE as SCHEMA_PAGE
from tests.support.schema_diagram import schema_page
from tests.support.settings_page import FILE as SETTINGS_PAGE
from tests.support.settings_page import settings_page
from tocsin.cli import main
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.model import DeliveryState
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.http.openapi import describe
from tocsin.settings import DECLARED, INTERNAL, PREFIX, Settings, SettingsError, read_settings

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]
SETTINGS = {PREFIX + setting.name for setting in DECLARED}

COMMAND = re.compile(r"(?:^|(?<!from)[\s(]|bin/)tocsin ([a-z][a-z-]*)(?: ([a-z-]+))?", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code(page: Path) -> Iterator[str]:
    """All that a page sets as code."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def anchors(page: Path) -> set[str]:
    """The headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def rows(page: Path) -> Iterator[list[str]]:
    """The cells of each table's row."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def commands(group: click.Group = main, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def test_every_setting_is_in_the_docs() -> None:
    documented = {cells[0].strip("`") for cells in rows(DOCS / "settings.md")}
    assert documented - {"setting", "---"} == SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_that_is_not_there(page: Path) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    assert named <= SETTINGS | INTERNAL


def test_the_page_of_settings_is_as_they_are_declared() -> None:
    text = SETTINGS_PAGE.read_text(encoding="utf-8")
    assert text == settings_page(text), "make settings-page writes it"


def test_the_message_of_a_wrong_setting_is_the_one_in_the_docs() -> None:
    pairs = [
        pair
        for block in blocks(DOCS / "settings.md", "text")
        for pair in re.findall(r"^(\w+)=(.*)\n    (.*)$", block, re.MULTILINE)
    ]
    assert len(pairs) > 10
    for name, value, message in pairs:
        with pytest.raises(SettingsError) as refused:
            read_settings({name: value})
        assert str(refused.value) == message


def test_every_command_is_in_the_docs() -> None:
    named = " ".join(code(DOCS / "operations.md"))
    assert [each for each in commands() if f"tocsin {each}" not in named] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_command_that_is_not_there(page: Path) -> None:
    known = set(commands())
    groups = {each.split()[0] for each in known if " " in each}
    for text in code(page):
        own = re.sub(r"manage\.py .*", "", text)  # Django's commands
        for word, following in COMMAND.findall(own):
            name = f"{word} {following}" if word in groups else word
            assert name in known, f"tocsin {name}"


async def test_every_route_is_in_the_docs_and_no_other(dsn: str) -> None:
    database = Database(dsn)  # not opened: nothing is asked
    app = create_app(Settings(), database, BadgeHub(database), link_key=b"k" * 32)
    paths = describe(app)["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    there = {
        re.sub(r"\{(notification|event|recipient|suppression)_id\}", "{id}", each) for each in there
    }
    documented = {
        match[1]
        for cells in rows(DOCS / "http.md")
        if (match := re.match(r"`([A-Z]+ /\S+)`", cells[0]))
    }
    assert documented == there


def test_every_sql_function_of_apps_is_in_the_docs_and_no_other(db: Db) -> None:
    found = db.execute(
        """
        select p.proname || ' ' || lower(split_part(pg_get_function_result(p.oid), '(', 1)), p.proargnames[1:p.pronargs]
        from pg_proc p
        where p.pronamespace = 'tocsin'::regnamespace
            and has_function_privilege('tocsin_app', p.oid, 'execute')
        """
    ).fetchall()
    there = {(result.replace("integer", "int"), tuple(names)) for result, names in found}
    documented = set()
    for block in blocks(DOCS / "sql.md", "text"):
        for name, arguments, result in re.findall(
            r"tocsin\.(\w+)\((.*?)\)\s+returns (\w+)", block, re.DOTALL
        ):
            names = tuple(part.split()[0] for part in arguments.split(","))
            documented.add((f"{name} {result}", names))
    assert documented == there


def test_every_state_of_a_delivery_is_in_the_docs() -> None:
    named = {cells[0].strip("`") for cells in rows(DOCS / "delivery.md")}
    assert {state.value for state in DeliveryState} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_each_page_is_in_the_menu_that_readme_has_for_the_site() -> None:
    listed = re.findall(
        r"^\| \[.+?\]\((\S+?)\) \| .+ \|$",
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## Read on")[2],
        re.MULTILINE,
    )
    pages = {each.relative_to(ROOT).as_posix() for each in DOCS.rglob("*.md")}
    parts = {each for each in pages if each.startswith(("docs/adr/", "docs/performance/"))}
    top = {"docs/adr/", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    assert set(listed) == pages - parts | top


FILE = re.compile(
    r"(?:[\w.-]+/)+(?:[\w-]+(?:\.\w+)?)?|[\w-]+\.(?:py|sql|toml|ts|css|html|po|sh|md)"
)
NOT_OURS = {
    "application/",
    "brand.toml",
    "database/sql",
    "far-ends/",
    "forum/new_reply.html",
    "http/protobuf",
    "ios/App/App/AppDelegate.swift",
    "multipart/related",
    "npm/all.zip",
    "PyPI/all.zip",
    "android/app",
    "tests/http/__init__.py",
    "tocsin.django",
    "tocsin.view_decision",
    "tocsin/preferences",
    "tocsin/react",
    "tocsin/svelte",
    "tocsin/vue",
    "words/en.po",
}
"""Files of a host app, of another project, or that must not be there; names in Django, Go and npm; media types."""


def test_files_and_modules_that_the_docs_name_are_there() -> None:
    """A path may begin at any folder: `engine/store/`, `fan_out.sql`."""
    sources = list(repository())
    ends = {f"/{each.relative_to(ROOT)}" for each in sources}
    sql = {word for each in sources if each.suffix == ".sql" for word in words(each)}
    missing = []
    for page in (each for each in PAGES if each.name != "CHANGELOG.md"):
        for text in code(page):
            if text in NOT_OURS or text.startswith("build/"):
                continue
            if FILE.fullmatch(text):
                there = any(each.endswith(f"/{text.rstrip('/')}") for each in ends)
            elif re.fullmatch(r"tocsin(\.\w+)+", text):
                there = set(text.split(".")[1:]) <= sql or is_in_package(text)
            else:
                continue
            if not there:
                missing.append(f"{page.name}: {text}")
    assert missing == []


def repository() -> Iterator[Path]:
    """Its files and folders, but for what is installed or made."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = set(folders) - {".git", ".venv", "build", "node_modules", "__pycache__"}
        for name in (*folders, *files):
            yield Path(folder, name)


def words(file: Path) -> set[str]:
    return set(re.findall(r"\w+", file.read_text(encoding="utf-8")))


def is_in_package(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    modules = path.parent.with_suffix(".py"), path.parent / "__init__.py"
    return any(each.exists() and path.name in words(each) for each in modules)


def test_each_test_that_the_page_of_attacks_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)`", (DOCS / "security.md").read_text(encoding="utf-8"))
    sources = (
        file.read_text(encoding="utf-8")
        for folder in ("tests", "checks")
        for file in (ROOT / folder).rglob("test_*.py")
        if "node_modules" not in file.parts
    )
    there = {
        name
        for text in sources
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)
    }
    assert len(set(named)) > 80
    assert set(named) - there == set()


def test_each_attack_has_a_test() -> None:
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| attack \|.*\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    attacks = [line for table in tables for line in table.splitlines()]
    assert len(attacks) > 40
    assert [line for line in attacks if "`test_" not in line] == []


def test_files_that_code_points_to_are_there() -> None:
    named = {
        (name, source.name)
        for source in (ROOT / "tocsin").rglob("*.*")
        if source.suffix in {".py", ".sql", ".toml"}
        for name in re.findall(r"docs/[\w/-]+\.md", source.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert {each for each in named if not (ROOT / each[0]).exists()} == set()


def test_the_first_sql_of_the_readme_notifies_alice(db: Db, people: None) -> None:
    first = blocks(ROOT / "README.md", "sql")[0]
    db.execute(first.encode())
    assert db.execute("select tocsin.unread_count('alice')").fetchone() == (1,)


@pytest.mark.parametrize(
    "page", [each for each in PAGES if blocks(each, "sql")], ids=lambda page: page.name
)
def test_sql_snippets_run(db: Db, people: None, page: Path) -> None:
    for block in blocks(page, "sql"):
        db.execute(block.encode())


@pytest.mark.parametrize(
    "page",
    # those of the guides are parts of projects: `make test-frameworks`
    [each for each in PAGES if blocks(each, "python") and each.parent.name != "guides"],
    ids=lambda page: page.name,
)
def test_python_snippets_run(dsn: str, people: None, page: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {"dsn": dsn})  # our own docs


async def test_the_event_of_the_readme_is_taken(machine: httpx.AsyncClient, people: None) -> None:
    body = re.findall(r"-d '(\{.*\})'", (ROOT / "README.md").read_text(encoding="utf-8"))[0]
    response = await machine.post("/api/events/", content=body)
    assert response.status_code == 202, response.text


def test_the_page_of_the_tables_is_that_of_the_database(db: Db) -> None:
    text = SCHEMA_PAGE.read_text(encoding="utf-8")
    assert text == schema_page(db), "docs/schema.md is stale: make schema"


def test_the_page_of_benchmarks_is_what_their_results_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
    for path, text in page["files"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: make performance"
    assert page["stale_plots"]() == set()
