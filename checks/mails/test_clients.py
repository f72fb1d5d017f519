"""Features of our mails that mail programs do not support (caniemail.com's tables): only dispensable ones.

Checked are the most common programs. Partially supported features are not reported.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import msgspec
import pytest
from arrived import *  # noqa: F403 - a fixture
from arrived import HERE, MAILS, output_lines
from msgspec import Struct

CLIENTS = (
    "gmail.*",
    "outlook.windows",  # the one that renders with Word
    "outlook.macos",
    "outlook.ios",
    "outlook.android",
    "apple-mail.*",
    "yahoo.*",
)

ONLY_REFINES = (
    "the sheet only adds dark colours, narrow screens and body_html's margins; the rest is inlined"
)
PREHEADER = "hides the preheader, which has other guards; at worst its line is seen"

DONE_WITHOUT = {
    ("<style> element", "gmail.mobile-webmail"): ONLY_REFINES,
    ("Class selector", "gmail.mobile-webmail"): ONLY_REFINES,
    ("Descendant combinator", "gmail.mobile-webmail"): ONLY_REFINES,
    ("Type selector", "gmail.mobile-webmail"): ONLY_REFINES,
    ("@media", "gmail.mobile-webmail"): ONLY_REFINES,
    (":last-child", "*"): "a gap more under a body's last paragraph",
    ("@media", "outlook.windows"): ONLY_REFINES,
    ("<body> element", "outlook.macos"): "a table has the same background",
    ("<body> element", "yahoo.*"): "a table has the same background",
    ("display:none", "gmail.mobile-webmail"): PREHEADER,
    ("opacity", "gmail.mobile-webmail"): PREHEADER,
    ("opacity", "outlook.windows"): PREHEADER,
    ("overflow", "outlook.windows"): PREHEADER,
    ("border-radius", "outlook.windows"): "square corners",
    (
        "white-space",
        "outlook.windows",
    ): "a long line of code in body_html, or of short buttons, widens the mail",
    ("word-break", "yahoo.*"): "a long word widens the mail",
    ("height property", "yahoo.*"): "taken for line-height and max-height, which work",
}
"""A feature, the programs without it, and why that is acceptable."""


class Lack(Struct, frozen=True):
    """The linter's report."""

    file: str
    client: str
    feature: str
    notes: list[str]


def lint(files: dict[str, Path]) -> list[Lack]:
    [line] = output_lines(["node", HERE / "lint.mjs", ",".join(CLIENTS), *files.values()])
    return msgspec.json.decode(line, type=list[Lack])


@pytest.fixture(scope="module")
def lacks(tmp_path_factory: pytest.TempPathFactory) -> list[Lack]:
    folder = tmp_path_factory.mktemp("html")
    files = {kind: folder / f"{number}.html" for number, kind in enumerate(MAILS)}
    for kind, file in files.items():
        file.write_text(MAILS[kind].html, "utf-8")
    return lint(files)


def exemptions(lack: Lack) -> list[tuple[str, str]]:
    return [
        (feature, client)
        for feature, client in DONE_WITHOUT
        if feature == lack.feature and fnmatch(lack.client, client)
    ]


def test_mails_use_nothing_that_matters_and_is_lacking(lacks: list[Lack]) -> None:
    assert {(lack.feature, lack.client) for lack in lacks if not exemptions(lack)} == set()


def test_every_excuse_is_needed(lacks: list[Lack]) -> None:
    needed = {exemption for lack in lacks for exemption in exemptions(lack)}
    assert set(DONE_WITHOUT) - needed == set()


def test_the_linter_knows_what_is_lacking(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<video src="x"></video><p style="display: grid; position: absolute">x</p>')
    assert {"outlook.windows", "gmail.ios"} <= {lack.client for lack in lint({"bad": bad})}
