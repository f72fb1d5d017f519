"""`make audit AUDIT_DB=path`: known vulnerabilities of the locked packages, from a copy of OSV's database.

The path is a file or a folder with advisories in OSV's format (https://ossf.github.io/osv-schema/): `.json` files, or
`.zip` archives of them such as OSV's exports PyPI/all.zip and npm/all.zip. No network is used. Without a path nothing
is audited, which the output states.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
from packages import Package, locked_packages
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ACCEPTED: dict[str, str] = {}
"""Accepted advisories by their id, with the reason."""

_SEMVER = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?")


class Named(msgspec.Struct):
    """A package as OSV names it."""

    ecosystem: str
    name: str


class Range(msgspec.Struct):
    """A range of versions by events, each with one key: introduced, fixed, last_affected or limit."""

    type: str
    events: list[dict[str, str]] = []


class Affected(msgspec.Struct):
    """One package of an advisory, with the versions that are affected: listed, or by ranges."""

    package: Named | None = None
    versions: list[str] = []
    ranges: list[Range] = []


class Advisory(msgspec.Struct):
    """The relevant part of an OSV document."""

    id: str
    summary: str = ""
    aliases: list[str] = []
    withdrawn: str | None = None
    affected: list[Affected] = []


class Finding(msgspec.Struct, frozen=True):
    """A locked package that an advisory names; `fixed` are the versions that fix it."""

    package: Package
    advisory: Advisory
    fixed: tuple[str, ...]


def read_advisories(database: Path) -> Iterator[Advisory]:
    """Yields all advisories below a path. Raises ValueError for a file that is none, and if there are none."""
    files = (
        sorted(each for each in database.rglob("*") if each.is_file())
        if database.is_dir()
        else [database]
    )
    decoder, found = msgspec.json.Decoder(Advisory), False
    for file in files:
        for name, content in _contents(file):
            try:
                yield decoder.decode(content)
            except msgspec.DecodeError as error:
                raise ValueError(f"{name} is not an advisory in OSV's format: {error}") from None
            found = True
    if not found:
        raise ValueError(
            f"{database} holds no advisory: name OSV's all.zip, or a folder of .zip or .json files."
        )


def _contents(file: Path) -> Iterator[tuple[str, bytes]]:
    if file.suffix == ".json":
        yield str(file), file.read_bytes()
    elif file.suffix == ".zip":
        with ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield f"{file}: {name}", archive.read(name)


def audit(packages: Iterable[Package], advisories: Iterable[Advisory]) -> list[Finding]:
    """Returns each package whose version an advisory names; withdrawn advisories are skipped."""
    locked: dict[tuple[str, str], list[Package]] = {}
    for package in packages:
        locked.setdefault(_key(package.ecosystem, package.name), []).append(package)
    return [
        Finding(package, advisory, _fixes(affected))
        for advisory in advisories
        if advisory.withdrawn is None
        for affected in advisory.affected
        if affected.package is not None
        for package in locked.get(_key(affected.package.ecosystem, affected.package.name), [])
        if is_affected(package, affected)
    ]


def _key(ecosystem: str, name: str) -> tuple[str, str]:
    return ecosystem, canonicalize_name(name) if ecosystem == "PyPI" else name


def is_affected(package: Package, affected: Affected) -> bool:
    """Returns whether a version is listed, or in one of the ranges (ranges of repository commits are ignored)."""
    if package.version in affected.versions:
        return True
    return any(
        _in_range(package, each.events)
        for each in affected.ranges
        if each.type in ("ECOSYSTEM", "SEMVER")
    )


def _in_range(package: Package, events: list[dict[str, str]]) -> bool:
    """OSV's algorithm: the last event at or before the version decides."""
    version, inside = _comparable(package.ecosystem, package.version), False
    ordered = sorted(
        ((kind, at) for event in events for kind, at in event.items()),
        # at one version, "introduced" comes before "fixed"
        key=lambda each: (_comparable(package.ecosystem, each[1]), each[0] != "introduced"),
    )
    for kind, at in ordered:
        here = _comparable(package.ecosystem, at)
        if kind == "introduced":
            inside = inside or version >= here
        elif version > here or (version >= here and kind != "last_affected"):
            inside = False
    return inside


def _comparable(ecosystem: str, version: str) -> Any:
    """Returns a version with the ordering of its ecosystem. Raises ValueError for an invalid one."""
    if ecosystem == "PyPI":
        try:
            return Version(version)
        except InvalidVersion:
            raise ValueError(f"{version} is not a version of Python's packages") from None
    return SemVer(version)


class SemVer:
    """A version of Semantic Versioning 2.0.0, ordered by its section 11; "0" is the lowest."""

    def __init__(self, text: str) -> None:
        matched = _SEMVER.fullmatch("0.0.0-0" if text == "0" else text)
        if matched is None:
            raise ValueError(f"{text} is not a semantic version")
        self.numbers = tuple(int(each) for each in matched.groups()[:3])
        self.pre = matched[4].split(".") if matched[4] else []

    def __lt__(self, other: SemVer) -> bool:
        if self.numbers != other.numbers:
            return self.numbers < other.numbers
        if not self.pre or not other.pre:
            return bool(self.pre) and not other.pre
        for mine, theirs in zip_longest(self.pre, other.pre):
            if mine != theirs:
                if mine is None or theirs is None:
                    return mine is None  # the shorter one comes first
                if mine.isdigit() and theirs.isdigit():
                    return int(mine) < int(theirs)
                return bool(mine.isdigit()) or (not theirs.isdigit() and mine < theirs)
        return False

    def __gt__(self, other: SemVer) -> bool:
        return other < self

    def __ge__(self, other: SemVer) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SemVer) and not self < other and not other < self

    def __hash__(self) -> int:
        return hash((self.numbers, tuple(self.pre)))


def _fixes(affected: Affected) -> tuple[str, ...]:
    return tuple(
        event["fixed"] for each in affected.ranges for event in each.events if "fixed" in event
    )


def judgement(finding: Finding) -> str:
    """Why a finding is accepted, or which versions fix it."""
    if reason := ACCEPTED.get(finding.advisory.id):
        return f"accepted: {reason}"
    return f"fixed in: {', '.join(finding.fixed) or 'no version yet'}"


def main(database: str) -> int:
    """The command: 0 if nothing was found or no path was given, 1 for findings, 2 for a database that can't be read."""
    if not database:
        print("Nothing was audited: no database is given. AUDIT_DB=path names OSV's exports.")
        return 0
    packages = locked_packages()
    advisories = 0

    def counted() -> Iterator[Advisory]:
        nonlocal advisories
        for advisory in read_advisories(Path(database)):
            advisories += 1
            yield advisory

    try:
        findings = audit(packages, counted())
    except (OSError, ValueError) as error:
        print(f"Nothing was audited: {error}", file=sys.stderr)
        return 2
    for finding in findings:
        also = f" ({', '.join(finding.advisory.aliases)})" if finding.advisory.aliases else ""
        print(f"{finding.package.name} {finding.package.version}: {finding.advisory.id}{also}")
        print(f"    {finding.advisory.summary or 'no summary'}")
        print(f"    {judgement(finding)}; locked in: {', '.join(finding.package.locks)}")
    open_ones = sum(finding.advisory.id not in ACCEPTED for finding in findings)
    accepted = len(findings) - open_ones
    print(
        f"{len(packages)} packages against {advisories} advisories:"
        f" {open_ones} open, {accepted} accepted."
    )
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
