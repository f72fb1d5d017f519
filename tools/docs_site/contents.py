"""What the site contains: the sections of README's "Read on", and the pages that are made from code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from docs_site import command_reference, python_reference, rest_reference

ROOT = Path(__file__).parent.parent.parent
MADE = {
    "reference/python.md": python_reference.client_page,
    "reference/testing.md": python_reference.testing_page,
    "reference/frameworks.md": python_reference.frameworks_page,
    "reference/http-calls.md": rest_reference.calls_page,
    "reference/http-types.md": rest_reference.types_page,
    "reference/commands.md": command_reference.commands_page,
}
"""The pages that are made from code, by their path in the site."""
RENAMED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting-vulnerabilities.md",
    "docs/adr/": "adr/index.md",
}
NO_PAGES = "docs/performance/"
"""Parts of docs/performance.md, not pages."""

_SECTION = re.compile(r"^### (.+)\n((?:(?!#).*\n)*)", re.MULTILINE)
_ROW = re.compile(r"^\| \[(.+?)\]\((.+?)\) \| (.+) \|$", re.MULTILINE)


class Entry(NamedTuple):
    """A page in a section."""

    title: str
    path: str  # in the site
    sentence: str


class Section(NamedTuple):
    """Pages under one title, in the order in which they are read."""

    title: str
    entries: tuple[Entry, ...]


def sections(root: Path) -> list[Section]:
    """Returns the sections of README's "Read on", and after its guides the reference that is made from code."""
    readme = (root / "README.md").read_text("utf-8")
    listed = readme.partition("## Read on")[2]
    read = [
        Section(title, tuple(_entry(*row) for row in _ROW.findall(table)))
        for title, table in _SECTION.findall(listed)
    ]
    return [read[0], Section("Reference from the code", MADE_ENTRIES), *read[1:]]


def _entry(title: str, path: str, sentence: str) -> Entry:
    return Entry(title, site_path(path), sentence)


def site_path(path: str) -> str:
    """Returns the place in the site of a page of the repository."""
    return RENAMED.get(path, path.removeprefix("docs/"))


def repository_pages(root: Path) -> list[str]:
    """Every Markdown file that is a page, by its path in the repository."""
    docs = (each.relative_to(root).as_posix() for each in sorted((root / "docs").rglob("*.md")))
    top = [each for each in RENAMED if (root / each).is_file()]
    return [*top, *(each for each in docs if not each.startswith(NO_PAGES))]


MADE_ENTRIES = (
    Entry("Python", "reference/python.md", "every function and type of `tocsin`, for your app"),
    Entry("Tests", "reference/testing.md", "`tocsin.testing`: the outbox and the pytest fixtures"),
    Entry(
        "Frameworks",
        "reference/frameworks.md",
        "`tocsin.contrib`: FastAPI, SQLAlchemy, Django and the bell's token",
    ),
    Entry("HTTP calls", "reference/http-calls.md", "each route with its parameters and results"),
    Entry("HTTP types", "reference/http-types.md", "the fields of each body"),
    Entry("Commands", "reference/commands.md", "each command of `tocsin` with its options"),
)
