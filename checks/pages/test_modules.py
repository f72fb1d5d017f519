"""The committed modules match their sources, are well typed, and small."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BUILT = ROOT / "tocsin" / "http" / "web"
LIMITS = {
    "tocsin-bell.js": 18_000,
    "tocsin-client.js": 7_250,
    "tocsin-preferences.js": 20_000,
    "tocsin-sw.js": 1_000,
    "tocsin-web-push.js": 4_000,
}  # bytes, gzipped


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", *command], cwd=ROOT / "web", capture_output=True, text=True, timeout=600
    )


def files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}


def test_the_committed_modules_are_what_the_sources_give(tmp_path: Path) -> None:
    built = run("build.mjs", str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert files(tmp_path) == files(BUILT), "make web, and commit tocsin/http/web"


def test_the_sources_are_well_typed() -> None:
    checked = run("node_modules/typescript/bin/tsc", "--project", ".")
    assert checked.returncode == 0, checked.stdout


def test_the_modules_are_small() -> None:
    sizes = {name: len(gzip.compress((BUILT / name).read_bytes(), 9)) for name in LIMITS}
    print(sizes)
    assert {name: size for name, size in sizes.items() if size > LIMITS[name]} == {}


IMPORT = re.compile(r"""(?<![\w$.])(?:import|export)\s*(?:[({*"']|[\w$*{},\s]+?from\s*["'])""")
EXPORT = re.compile(r"(?<![\w$.])export\s*\{[^}]*\}(?!\s*from)")


def imports(module: str) -> list[str]:
    """Returns the starts of all imports, static and dynamic, also inside a line of other code."""
    return IMPORT.findall(EXPORT.sub("", module))


@pytest.mark.parametrize(
    "module",
    [
        'import "./a.js";',
        'var a=1;import{b}from"./b.js";',
        "import * as c from './c.js'",
        "import d from './d.js'",
        'const e=await import("./e.js")',
        'export*from"./f.js"',
        'export{g}from"./g.js"',
    ],
)
def test_an_import_is_found_in_each_form(module: str) -> None:
    assert len(imports(module)) == 1


def test_what_only_looks_like_an_import_is_none() -> None:
    assert imports("var important=1;a.import(1);export{a as b};export class C{}") == []


def test_the_modules_need_nothing_else() -> None:
    modules = {module.name: module.read_text("utf-8") for module in BUILT.glob("*.js")}
    assert modules.keys() == {*LIMITS, "tocsin-ops.js"}
    found = {name: found for name, text in modules.items() if (found := imports(text))}
    assert found == {"tocsin-bell.js": ["import("]}  # tocsin-web-push.js, where a page asks for it


def test_each_language_has_all_texts_of_the_bell() -> None:
    source = (ROOT / "web" / "src" / "bell" / "words.ts").read_text("utf-8")
    english = set(
        re.findall(r"^  (\w+): ", source[: source.index("export type Words")], re.MULTILINE)
    )
    found = {file.name: json.loads(file.read_text("utf-8")) for file in BUILT.glob("*.json")}
    assert found.keys() == {"tocsin-bell.ar.json", "tocsin-bell.de.json"}
    assert {name: words.keys() ^ english for name, words in found.items()} == {
        name: set() for name in found
    }


def test_the_docs_name_every_part_and_property_of_the_bell_and_no_other() -> None:
    docs = (ROOT / "docs" / "bell.md").read_text("utf-8")
    sources = [file.read_text("utf-8") for file in (ROOT / "web" / "src" / "bell").iterdir()]
    named = re.findall(r"\bpart: '([\w-]+)'|\bbutton\([^,()]+, '([\w-]+)'", "".join(sources))
    parts = {*(one or other for one, other in named), "item", "item-unread"}
    listed = docs[docs.index("Parts: ") : docs.index("In a window up to")]
    assert set(re.findall(r"`([\w-]+)`", listed)) == parts
    properties = set(re.findall(r"--tocsin-[\w-]+", "".join(sources)))
    assert properties == set(re.findall(r"--tocsin-[\w-]+", docs))


HOST = """
import { TocsinBell, type Notification } from './tocsin-bell.js';
const bell: TocsinBell = document.createElement('tocsin-bell');
bell.getToken = async () => 'a token';
bell.theme = 'dark';
bell.addEventListener('tocsin:open', (event) => {
  const opened: Notification = event.detail;
  if (opened.action_url !== null) event.preventDefault();
});
const count: number | null = bell.count;
"""
WRONG = """
const bell = document.createElement('tocsin-bell');
bell.count = 3;
bell.theme = 'blue';
bell.addEventListener('tocsin:count', (event) => event.detail.number);
"""


def test_a_hosts_own_code_is_checked_by_the_types(tmp_path: Path) -> None:
    for name in ("tocsin-bell.js", "tocsin-bell.d.ts", "tocsin-client.d.ts"):
        (tmp_path / name).write_bytes((BUILT / name).read_bytes())
    (tmp_path / "host.ts").write_text(HOST)
    compiler = ("node_modules/typescript/bin/tsc", "--ignoreConfig", "--noEmit", "--strict")
    options = ("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler")
    checked = run(*compiler, *options, str(tmp_path / "host.ts"))
    assert checked.returncode == 0, checked.stdout
    (tmp_path / "host.ts").write_text("import './tocsin-bell.js';" + WRONG)
    refused = run(*compiler, *options, str(tmp_path / "host.ts"))
    assert refused.stdout.count("error TS") == 3, refused.stdout
