"""Copies the Markdown of the repository, with its links fitted to the site, to the folder that Sphinx reads."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs_site import table_diagram
from docs_site.contents import MADE, Section, repository_pages, sections, site_path

REPOSITORY = "https://github.com/tocsin/tocsin"
PICTURES = (".svg", ".webp")

_CODE = re.compile(r"^(```|~~~).*?^\1 *$|``.+?``|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_PICTURE = re.compile(
    r'<picture>.*?srcset="([^"]+)".*?<img alt="([^"]+)" src="([^"]+)".*?</picture>', re.DOTALL
)
_LEXERS = {"astro": "html", "svelte": "html", "vue": "html", "mermaid": "text"}


def stage(root: Path, folder: Path, *, revision: str) -> list[Section]:
    """Writes all pages to `folder`, and returns the sections; `revision` is where links to source files lead."""
    shutil.rmtree(folder, ignore_errors=True)
    found = sections(root)
    pages = repository_pages(root)
    for page in pages:
        text = (root / page).read_text("utf-8")
        fit = partial(_fit, root=root, page=page, pages=pages, revision=revision)
        text = _outside_code(text, fit)
        _write(folder / site_path(page), _lexers(_diagram(text, folder)))
    for path, make in MADE.items():
        _write(folder / path, make(root))
    _write(folder / "adr/index.md", _decisions(root))
    pictures = (each for each in (root / "docs").rglob("*") if each.suffix in PICTURES)
    for picture in pictures:
        target = folder / picture.relative_to(root / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
    with (folder / "index.md").open("a", encoding="utf-8") as index:
        index.write(_navigation(found))
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """Returns the text with what is not code changed."""
    parts, position = [], 0
    for code in _CODE.finditer(text):
        parts += [change(text[position : code.start()]), code[0]]
        position = code.end()
    return "".join([*parts, change(text[position:])])


def _fit(text: str, *, root: Path, page: str, pages: list[str], revision: str) -> str:
    text = _PICTURE.sub(
        lambda found: _pictures(dark=found[1], words=found[2], light=found[3]), text
    )
    return _LINK.sub(
        lambda found: found[1] + _target(found[2], root, page, pages, revision) + found[3], text
    )


def _target(link: str, root: Path, page: str, pages: list[str], revision: str) -> str:
    """Returns a link of a page of the repository, as it is in the site."""
    if link.startswith(("http://", "https://", "mailto:", "#")):
        return link
    name, mark, anchor = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), name))
    if path == "docs/adr":
        path = "docs/adr/"
    if path in pages or path == "docs/adr/" or path.endswith(PICTURES):
        here = posixpath.dirname(site_path(page))
        return posixpath.relpath(site_path(path), here or ".") + mark + anchor
    kind = "tree" if (root / path).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/{revision}/{path}{mark}{anchor}"


def _pictures(*, dark: str, words: str, light: str) -> str:
    """GitHub's <picture> as the theme has it: one image for each of the two looks."""
    return "\n".join(
        f"```{{image}} {site_path(path)}\n:class: only-{look}\n:alt: {words}\n```\n"
        for look, path in (("light", light), ("dark", dark))
    )


def _diagram(text: str, folder: Path) -> str:
    """Returns the page with the diagram of the tables as pictures; without Graphviz its source is shown."""
    found = table_diagram.SOURCE.search(text)
    if not found or not table_diagram.is_possible():
        return text
    table_diagram.draw(found[1], folder)
    light, dark = (table_diagram.NAME.format(look=look) for look in table_diagram.LOOKS)
    return text.replace(
        found[0], _pictures(light=light, dark=dark, words="The tables and their keys")
    )


def _lexers(text: str) -> str:
    """Returns the fenced blocks, with a language that Pygments knows."""
    return re.sub(
        rf"^```({'|'.join(_LEXERS)})$",
        lambda found: f"```{_LEXERS[found[1]]}",
        text,
        flags=re.MULTILINE,
    )


def _decisions(root: Path) -> str:
    """Returns the list of decisions, by their titles."""
    titles = {
        path.name: path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        for path in sorted((root / "docs" / "adr").glob("*.md"))
    }
    lines = [f"- [{title}]({name})" for name, title in titles.items()]
    tree = ["```{toctree}", ":hidden:", *titles, "```"]
    return "\n".join(["# Decisions", "", *lines, "", *tree, ""])


def _navigation(found: list[Section]) -> str:
    """Returns the tree of pages, by which the theme makes its menu."""
    trees = (
        "\n".join(
            ["", "```{toctree}", ":hidden:", f":caption: {section.title}", ""]
            + [f"{each.title} <{each.path}>" for each in section.entries]
            + ["```", ""]
        )
        for section in found
    )
    return "".join(trees)
