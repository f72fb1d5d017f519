"""The documentation site as it is built: strict, complete, without broken links, and usable offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from docs_site import build
from docs_site.contents import ROOT, repository_pages, sections, site_path

import tocsin
import tocsin.testing
from tocsin.cli import main


class Page(HTMLParser):
    """What a page refers to, what can be referred to in it, and what a policy would refuse."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.ids.add(named.get("id", ""))
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        if tag in {"script", "img", "source", "iframe", "object"}:
            self.loaded += [named[name] for name in ("src", "srcset", "data") if name in named]
        if tag == "link":
            self.loaded.append(named["href"])
        if tag == "style" or "style" in named or (tag == "script" and "src" not in named):
            self.inline.append(self.get_starttag_text() or tag)
        self.inline += [name for name in named if name.startswith("on")]


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def target(page: Path, link: str) -> tuple[Path, str]:
    parts = urlsplit(link)
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page, parts.fragment


def test_each_link_leads_to_a_page_and_its_anchor(pages: dict[Path, Page]) -> None:
    broken = []
    for page, content in pages.items():
        for link in (*content.links, *content.loaded):
            if link.startswith(("https://", "http://", "mailto:")):
                continue
            path, anchor = target(page, link)
            there = path.is_file() and (
                not anchor or path.suffix != ".html" or anchor in pages[path].ids
            )
            if not there and link != "#":
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_links_to_other_sites_are_addresses(pages: dict[Path, Page]) -> None:
    links = {link for content in pages.values() for link in content.links if "://" in link}
    assert len(links) > 30
    assert [link for link in links if not re.fullmatch(r"https?://[\w.:-]+(/\S*)?", link)] == []


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(pages: dict[Path, Page]) -> None:
    for page, content in pages.items():
        assert [each for each in content.loaded if "//" in each] == [], page
        assert content.inline == [], page


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    sheets = {path: path.read_text("utf-8") for path in site.rglob("*.css")}
    assert sheets
    loaded = {
        url for text in sheets.values() for url in re.findall(r"url\(([^)]+)\)|@import", text)
    }
    assert {url for url in loaded if not url.strip("\"'").startswith("data:")} == set()


def test_each_page_of_the_repository_is_in_the_site_and_in_its_menu(site: Path) -> None:
    menu = {page.path for section in sections(ROOT) for page in section.entries}
    for page in repository_pages(ROOT):
        path = site_path(page)
        assert (site / path).with_suffix(".html").exists(), page
        assert path in menu or path == "index.md" or path.startswith("adr/"), f"README lacks {page}"


def test_the_picture_of_the_demo_has_two_looks_and_loads_fast(
    pages: dict[Path, Page], site: Path
) -> None:
    shown = {
        Path(name).name: site / name for name in pages[site / "index.html"].loaded if "demo" in name
    }
    assert {name: "_images" in path.parts for name, path in shown.items()} == {
        "demo-light.webp": True,
        "demo-dark.webp": True,
    }
    assert max(path.stat().st_size for path in shown.values()) < 150_000


def test_the_diagram_of_the_tables_shows_each_table(pages: dict[Path, Page], site: Path) -> None:
    tables = re.findall(
        r"^    (\w+) \{$", (ROOT / "docs/schema.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(tables) > 30
    for look in ("light", "dark"):
        name = f"_images/tables-{look}.svg"
        assert name in pages[site / "schema.html"].loaded
        picture = (site / name).read_text("utf-8")
        assert [each for each in tables if f">{each}</text>" not in picture] == []


def commands(group: click.Group, prefix: str = "tocsin") -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{prefix} {name}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def test_the_reference_has_each_command_route_and_name(site: Path) -> None:
    text = (site / "reference/commands.md").read_text("utf-8")
    assert [each for each in commands(main) if f"## {each}\n" not in text] == []

    text = (site / "reference/http-calls.md").read_text("utf-8")
    routes = re.findall(
        r"^\| `([A-Z]+ /\S+)`", (ROOT / "docs/http.md").read_text("utf-8"), re.MULTILINE
    )
    shown = re.sub(r"\{(notification|event|recipient|suppression)_id\}", "{id}", text)
    assert len(routes) > 40
    assert [each for each in routes if f"\n{each}\n" not in shown] == []

    text = (site / "reference/python.html").read_text("utf-8")
    assert [
        each for each in tocsin.client.__all__ if f'id="tocsin.client.{each}"' not in text
    ] == []
    text = (site / "reference/testing.html").read_text("utf-8")
    assert [
        each for each in tocsin.testing.__all__ if f'id="tocsin.testing.{each}"' not in text
    ] == []


def test_llms_txt_lists_the_pages_of_the_menu_as_markdown(site: Path) -> None:
    text = (site / "llms.txt").read_text("utf-8")
    listed = re.findall(r"^- \[.+?\]\((\S+?)\): \S", text, re.MULTILINE)
    assert text.startswith("# Tocsin\n\n> Tocsin is ")
    assert listed == [page.path for section in sections(ROOT) for page in section.entries]
    assert [each for each in listed if "\n# " not in f"\n{(site / each).read_text('utf-8')}"] == []

    shared = (site.parent / "llms.txt").read_text("utf-8")
    assert re.findall(r"^- \[.+?\]\((\S+?)\): ", shared, re.MULTILINE) == [
        f"dev/{each}" for each in listed
    ]


def test_llms_full_txt_has_each_page_but_the_optional_ones(site: Path) -> None:
    text = (site / "llms-full.txt").read_text("utf-8")
    for section in sections(ROOT):
        for page in section.entries:
            whole = (site / page.path).read_text("utf-8")
            assert (whole in text) == (section.title != "The project"), page.path


def test_versions_are_built_by_their_own_generator_and_the_newest_comes_first(
    tmp_path: Path,
) -> None:
    """A tag's tree has a generator that is called as this one is; a tag without one is left out."""
    repository, folder = tmp_path / "repository", tmp_path / "site"
    generator = repository / "tools" / "docs_site"
    generator.mkdir(parents=True)

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=repository, check=True, capture_output=True
        )

    git("init")
    git("commit", "--allow-empty", "--message", "Start")
    git("tag", "v0.0.9")
    (generator / "__init__.py").touch()
    shutil.copy(Path(__file__).parent / "small_generator.py", generator / "build.py")
    git("add", ".")
    git("commit", "--message", "Add the site")
    for tag in ("v0.9.0", "v0.10.0", "v0.11.0-rc1"):
        git("tag", tag)

    assert build.tags(repository) == ["v0.0.9", "v0.9.0", "v0.10.0"]
    for tag in build.tags(repository):
        build.build_tag(repository, tag, folder, Path(sys.executable))
    build.write_index(folder)

    names = re.findall(r'"name": "(.+?)"', (folder / "versions.js").read_text("utf-8"))
    assert names == ["0.10.0", "0.9.0"]
    assert "url=0.10.0/index.html" in (folder / "index.html").read_text("utf-8")
    assert "](0.10.0/start.md)" in (folder / "llms.txt").read_text("utf-8")
