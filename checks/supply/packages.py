"""The packages in the lock files: those that ship, and those for builds and checks only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "requirements.lock"
DEVELOPMENT = ROOT / "requirements-dev.lock"
NPM = (ROOT / "web" / "package-lock.json", ROOT / "checks" / "mails" / "package-lock.json")

_PIN = re.compile(
    r"^([a-z0-9._-]+)==(\S+)(?: ; ([^\\]+?))? \\\n((?: +--hash=\S+(?: \\)?\n?)+)", re.MULTILINE
)


class Package(Struct, frozen=True):
    """One locked package; `ships` is false if it is only for builds or checks."""

    ecosystem: str  # as OSV names it: PyPI or npm
    name: str
    version: str
    licence: str | None
    hashes: tuple[str, ...]  # "sha256:" or "sha512:", then hexadecimal
    ships: bool


def locked_packages() -> Iterator[Package]:
    """All packages of the four lock files, each once."""
    runtime = set()
    for package in _python(RUNTIME, ships=True):
        runtime.add(package.name)
        yield package
    for package in _python(DEVELOPMENT, ships=False):
        if package.name not in runtime:
            yield package
    seen = set()
    for lock in NPM:
        for package in _npm(lock):
            if (package.name, package.version) not in seen:
                seen.add((package.name, package.version))
                yield package


def _python(lock: Path, *, ships: bool) -> Iterator[Package]:
    for name, version, _, hashes in _PIN.findall(lock.read_text("utf-8")):
        found = tuple(re.findall(r"--hash=(\S+)", hashes))
        yield Package("PyPI", name, version, licence_of(name), found, ships)


def _npm(lock: Path) -> Iterator[Package]:
    for path, entry in json.loads(lock.read_text("utf-8"))["packages"].items():
        if path:
            name = path.rpartition("node_modules/")[2]
            yield Package("npm", name, entry["version"], entry.get("license"), (), ships=False)


def licence_of(name: str) -> str | None:
    """The licence in the metadata of an installed package; None if it is not installed on this platform."""
    try:
        return _named(metadata(name))
    except PackageNotFoundError:
        return None


def _named(found: PackageMetadata) -> str | None:
    for expression in found.get_all("License-Expression") or []:
        return str(expression)
    text = "".join(found.get_all("License") or []).strip()
    if text and len(text) < 40 and "\n" not in text:
        return text
    for classifier in found.get_all("Classifier") or []:
        if classifier.startswith("License :: OSI Approved :: "):
            return str(classifier.rpartition(" :: ")[2])
    return text.splitlines()[0] if text else None
