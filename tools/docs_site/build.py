"""Builds the site: `python -m docs_site.build`, with --all for a folder of each released version too.

build/site has a folder for each version, versions.js with their names for the switcher, and an index.html that leads to
the newest one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

from docs_site import llms, staging
from docs_site.contents import ROOT

BUILD = ROOT / "build"
SITE = BUILD / "site"
SPHINX = BUILD / "docs" / "bin" / "python"
DEVELOPMENT = "dev"
"""The name of the version that is not released: the tree as it is."""

_TAG = re.compile(r"v\d+\.\d+\.\d+")
_INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Tocsin</title>
<link rel="icon" href="{newest}/_static/favicon.svg">
<meta http-equiv="refresh" content="0; url={newest}/index.html">
<p>The documentation of Tocsin:</p>
<ul>
{items}
</ul>
</html>
"""


def main() -> None:
    """Builds what the command line asks for."""
    parser = argparse.ArgumentParser(prog="docs_site.build", description="Build build/site.")
    parser.add_argument("--all", action="store_true", help="each tag vX.Y.Z too")
    parser.add_argument("--version", default=DEVELOPMENT, help="the name of this tree's version")
    parser.add_argument("--site", type=Path, default=SITE, help="the folder to write to")
    parser.add_argument("--sphinx", type=Path, default=SPHINX, help="a Python that has Sphinx")
    arguments = parser.parse_args()
    if arguments.all:
        for tag in tags(ROOT):
            build_tag(ROOT, tag, arguments.site, arguments.sphinx)
    build(arguments.version, arguments.site, arguments.sphinx)
    write_index(arguments.site)
    if arguments.version == DEVELOPMENT:
        print(f"{arguments.site.absolute()}/index.html")


def build(version: str, site: Path, sphinx: Path) -> None:
    """Builds this tree as one version; exits where Sphinx warns of anything."""
    source, output = BUILD / "docs-source", site / version
    revision = "main" if version == DEVELOPMENT else f"v{version}"
    found = staging.stage(ROOT, source, revision=revision)
    shutil.rmtree(output, ignore_errors=True)
    command = [
        str(sphinx), "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--jobs", "auto",
        "--conf-dir", str(Path(__file__).parent), "--doctree-dir", str(BUILD / "docs-trees" / version),
        "-D", f"version={version}", "-D", f"release={version}",
        str(source), str(output),
    ]  # fmt: skip
    if broken := subprocess.run(command).returncode:
        sys.exit(broken)
    llms.write(source, output, found)


def tags(root: Path) -> list[str]:
    """Returns the tags of released versions, the oldest first."""
    listed = _git(root, "tag", "--list", "v*").decode().split()
    return sorted(filter(_TAG.fullmatch, listed), key=lambda tag: Version(tag[1:]))


def build_tag(root: Path, tag: str, site: Path, sphinx: Path) -> None:
    """Builds a released version with the generator that it has itself."""
    tree = root / "build" / "docs-tags" / tag
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=_git(root, "archive", tag), check=True)
    if not (tree / "tools" / "docs_site" / "build.py").exists():
        print(f"{tag} has no documentation site and is left out.")
        return
    command = [
        sys.executable, "-m", "docs_site.build", "--version", tag[1:],
        "--site", str(site.absolute()), "--sphinx", str(sphinx.absolute()),
    ]  # fmt: skip
    environ = os.environ | {"PYTHONPATH": f"{tree}:{tree / 'tools'}"}
    subprocess.run(command, cwd=tree, env=environ, check=True)


def write_index(site: Path) -> None:
    """Writes what all versions share: index.html, versions.js and llms.txt of the newest one."""
    folders = {each.parent.name: each.parent for each in site.glob("*/index.html")}
    released = sorted(folders.keys() - {DEVELOPMENT}, key=Version, reverse=True)
    names = [*released, *(folders.keys() & {DEVELOPMENT})]
    versions = [{"name": name, "pages": _pages(folders[name])} for name in names]
    (site / "versions.js").write_text(
        f"window.TOCSIN_VERSIONS = {json.dumps(versions)};\n", "utf-8"
    )
    items = "\n".join(f'<li><a href="{name}/index.html">{name}</a></li>' for name in names)
    (site / "index.html").write_text(_INDEX.format(newest=names[0], items=items), "utf-8")
    text = (folders[names[0]] / "llms.txt").read_text("utf-8")
    (site / "llms.txt").write_text(re.sub(r"\]\((?!\w+:)", f"]({names[0]}/", text), "utf-8")


def _pages(folder: Path) -> list[str]:
    return sorted(
        each.relative_to(folder).with_suffix("").as_posix() for each in folder.rglob("*.html")
    )


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout


if __name__ == "__main__":
    main()
