"""The packages in all lock files: those that ship, and those for builds, checks and benchmarks only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "requirements.lock"
FOLDERS = ("web", "checks/*", "checks/*/*", "benchmarks/*", "benchmarks/*/*", "tools/*")
"""Where the lock files of builds, checks and benchmarks are."""

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
    locks: tuple[str, ...] = ()  # the files that name it


def locks() -> list[Path]:
    """Every lock file, that of what ships first."""
    others = (
        path
        for folder in FOLDERS
        for name in ("requirements*.lock", "package-lock.json")
        for path in sorted(ROOT.glob(f"{folder}/{name}"))
    )
    return [RUNTIME, ROOT / "requirements-dev.lock", *others]


def locked_packages() -> list[Package]:
    """Returns each version of each package once, with all lock files that name it; it ships if the first one does."""
    found: dict[tuple[str, str, str], Package] = {}
    for lock in locks():
        read = _npm if lock.suffix == ".json" else _python
        for package in read(lock):
            key = (package.ecosystem, package.name, package.version)
            first = found.setdefault(key, package)
            name = lock.relative_to(ROOT).as_posix()
            if name not in first.locks:
                found[key] = replace(first, locks=(*first.locks, name))
    return list(found.values())


def _python(lock: Path) -> Iterator[Package]:
    ships = lock == RUNTIME
    for name, version, _, hashes in _PIN.findall(lock.read_text("utf-8")):
        found = tuple(re.findall(r"--hash=(\S+)", hashes))
        yield Package("PyPI", name, version, licence_of(name), found, ships)


def _npm(lock: Path) -> Iterator[Package]:
    for path, entry in json.loads(lock.read_text("utf-8"))["packages"].items():
        if path:
            name = path.rpartition("node_modules/")[2]
            yield Package("npm", name, entry["version"], entry.get("license"), (), ships=False)


def licence_of(name: str) -> str | None:
    """Returns the licence in the metadata of an installed package; None if it is not installed on this platform."""
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
