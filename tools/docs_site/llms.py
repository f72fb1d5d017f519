"""llms.txt and llms-full.txt of the site, and the Markdown of each page beside it (llmstxt.org)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from docs_site.contents import Section

OPTIONAL = "The project"
"""The section of pages that a reader with little room leaves out."""


def write(source: Path, site: Path, found: list[Section]) -> None:
    """Writes both files and the Markdown pages to `site`."""
    for page in source.rglob("*.md"):
        target = site / page.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)
    index = (source / "index.md").read_text("utf-8")
    (site / "llms.txt").write_text(listing(index, found), "utf-8")
    (site / "llms-full.txt").write_text(_whole(source, found), "utf-8")


def listing(index: str, found: list[Section], *, folder: str = "") -> str:
    """llms.txt: the first paragraph of README, and a line for each page below `folder`."""
    title, summary = re.match(r"# (.+)\n\n((?:.+\n)+)", index).groups()  # type: ignore[union-attr]
    parts = [f"# {title}\n", f"> {' '.join(summary.split())}\n"]
    parts.append(f"All pages in one file: [llms-full.txt]({folder}llms-full.txt)\n")
    for section in found:
        name = "Optional" if section.title == OPTIONAL else section.title
        lines = (
            f"- [{page.title}]({folder}{page.path}): {page.sentence}" for page in section.entries
        )
        parts += [f"## {name}\n", *lines, ""]
    return "\n".join(parts)


def _whole(source: Path, found: list[Section]) -> str:
    pages = ["index.md", *(p.path for s in found if s.title != OPTIONAL for p in s.entries)]
    texts = (f"<!-- {page} -->\n\n{(source / page).read_text('utf-8')}" for page in pages)
    return "\n\n".join(texts)
