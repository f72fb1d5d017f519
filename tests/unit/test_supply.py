"""The bill of materials, the licences, and the audit against made-up advisories."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import audit
import licences
import pytest
import sbom
from hypothesis import given
from hypothesis import strategies as st
from packages import ROOT, RUNTIME, Package, locked_packages, locks


def package(name: str = "demo", version: str = "1.5", **named: Any) -> Package:
    values = {"ecosystem": "PyPI", "licence": "MIT", "hashes": (), "ships": True, **named}
    return Package(name=name, version=version, **values)


def advisory(*events: dict[str, str], name: str = "demo", **named: Any) -> dict[str, Any]:
    affected: dict[str, Any] = {
        "package": {"ecosystem": named.pop("ecosystem", "PyPI"), "name": name},
        "versions": named.pop("versions", []),
    }
    if events:
        affected["ranges"] = [{"type": named.pop("type", "ECOSYSTEM"), "events": list(events)}]
    return {"id": "OSV-1", "summary": "It breaks.", "affected": [affected], **named}


def stored(folder: Path, *documents: dict[str, Any]) -> Path:
    for number, document in enumerate(documents):
        (folder / f"{number}.json").write_text(json.dumps(document))
    return folder


def found(folder: Path, documents: list[dict[str, Any]], *packages: Package) -> list[str]:
    advisories = audit.read_advisories(stored(folder, *documents))
    return [each.package.version for each in audit.audit(packages, advisories)]


# The packages.


def test_each_lock_file_of_the_repository_is_read() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--", "*.lock", "*package-lock.json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {lock.relative_to(ROOT).as_posix() for lock in locks()}
    assert {"checks/api/requirements.lock", "checks/frontends/next/package-lock.json"} <= names
    assert names == set(listed.stdout.split())
    assert {name for each in locked_packages() for name in each.locks} == names


def test_each_package_of_the_locks_is_known_with_its_hashes_and_whether_it_ships() -> None:
    packages = locked_packages()
    of_python = [each for each in packages if each.ecosystem == "PyPI"]
    assert {"psycopg", "litestar", "pytest", "schemathesis"} <= {each.name for each in of_python}
    pins = len(re.findall(r"^[a-z0-9._-]+==", RUNTIME.read_text(), re.MULTILINE))
    assert len([each for each in packages if each.ships]) == pins > 50
    assert [each.name for each in of_python if not each.hashes] == []
    assert not next(each for each in packages if each.name == "pytest").ships
    for lock in locks():
        if lock.suffix == ".lock":
            read = re.findall(r"^[^\s#].*==\S+", lock.read_text(), re.MULTILINE)
            name = lock.relative_to(ROOT).as_posix()
            assert len([each for each in packages if name in each.locks]) == len(read)
    assert {"esbuild", "caniemail", "nuxt"} <= {each.name for each in packages}


# The bill.


def test_the_bill_names_each_package_once_and_what_ships_is_required(tmp_path: Path) -> None:
    file = tmp_path / "build" / "sbom.json"
    assert sbom.main(file) == 0
    bill = json.loads(file.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "tocsin"
    packages = list(locked_packages())
    scopes = {each["bom-ref"]: each["scope"] for each in bill["components"]}
    assert len(scopes) == len(bill["components"]) == len(packages)
    assert list(scopes.values()).count("required") == sum(each.ships for each in packages)
    (psycopg,) = (each for each in bill["components"] if each["name"] == "psycopg")
    assert psycopg["purl"].startswith("pkg:pypi/psycopg@3.")
    assert psycopg["licenses"] == [{"license": {"id": "LGPL-3.0-only"}}]
    assert psycopg["hashes"][0]["alg"] == "SHA-256"


def test_the_same_packages_have_the_same_number() -> None:
    bills = [sbom.bill([package("a"), package("b")]) for _ in range(2)]
    assert bills[0].serial_number == bills[1].serial_number
    assert sbom.bill([package("a")]).serial_number != bills[0].serial_number


# The licences.


def test_all_that_ships_has_a_licence_that_fits() -> None:
    assert [each.name for each in licences.report(locked_packages())] == []


@pytest.mark.parametrize(
    ("licence", "fits"),
    [
        ("MIT", True),
        ("Apache License, Version 2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("LGPL-3.0-only", False),
        ("Proprietary", False),
        ("free for all; see the file", False),
        (None, False),
    ],
)
def test_a_licence_fits_or_is_refused(licence: str | None, fits: bool) -> None:
    refused = licences.report([package(licence=licence)])
    assert (refused == []) is fits


def test_weak_copyleft_is_for_the_packages_that_are_named_alone() -> None:
    assert licences.is_allowed(package("psycopg", licence="LGPL-3.0-only"))
    assert not licences.is_allowed(package("psycopg", licence="GPL-3.0-only"))
    assert not licences.is_allowed(package("certifi", licence="LGPL-3.0-only"))
    assert licences.UNCHANGED.keys() <= {each.name for each in locked_packages() if each.ships}


# The audit.


@pytest.mark.parametrize(
    ("version", "events", "affected"),
    [
        ("1.5", [{"introduced": "0"}], True),
        ("1.5", [{"introduced": "1.5"}], True),
        ("1.5", [{"introduced": "1.6"}], False),
        ("1.5", [{"introduced": "0"}, {"fixed": "1.5"}], False),
        ("1.4.9", [{"introduced": "0"}, {"fixed": "1.5"}], True),
        ("1.5rc1", [{"introduced": "0"}, {"fixed": "1.5"}], True),
        ("1.10", [{"introduced": "0"}, {"fixed": "1.9"}], False),
        ("1.5", [{"introduced": "0"}, {"last_affected": "1.5"}], True),
        ("1.5.1", [{"introduced": "0"}, {"last_affected": "1.5"}], False),
        ("1.5", [{"introduced": "0"}, {"limit": "1.5"}], False),
        (
            "2.1",
            [{"introduced": "2.0"}, {"fixed": "2.3"}, {"introduced": "0"}, {"fixed": "1.2"}],
            True,
        ),
        (
            "1.5",
            [{"introduced": "2.0"}, {"fixed": "2.3"}, {"introduced": "0"}, {"fixed": "1.2"}],
            False,
        ),
        ("2.3", [{"introduced": "0"}, {"fixed": "2.3"}, {"introduced": "2.3"}], False),
    ],
)
def test_a_version_is_affected_between_the_events_of_a_range(
    tmp_path: Path, version: str, events: list[dict[str, str]], affected: bool
) -> None:
    versions = found(tmp_path, [advisory(*events)], package(version=version))
    assert versions == ([version] if affected else [])


def test_a_version_is_affected_where_it_is_listed(tmp_path: Path) -> None:
    listed = advisory(versions=["1.5"])
    assert found(tmp_path, [listed], package(), package(version="1.6")) == ["1.5"]


def test_other_packages_ecosystems_and_commits_are_not_meant(tmp_path: Path) -> None:
    from_0 = {"introduced": "0"}
    others = [
        advisory(from_0, name="another"),
        advisory(from_0, ecosystem="npm"),
        advisory(from_0, type="GIT"),
        {"id": "OSV-2"},
    ]
    assert found(tmp_path, others, package()) == []


def test_what_was_withdrawn_is_left_out(tmp_path: Path) -> None:
    withdrawn = advisory({"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z")
    assert found(tmp_path, [withdrawn], package()) == []


def test_a_package_of_python_goes_by_each_spelling_of_its_name(tmp_path: Path) -> None:
    assert found(tmp_path, [advisory({"introduced": "0"}, name="De_Mo")], package("de-mo")) == [
        "1.5"
    ]


def test_a_package_of_npm_is_compared_by_semantic_versions(tmp_path: Path) -> None:
    document = advisory({"introduced": "0"}, {"fixed": "1.10.0"}, ecosystem="npm", type="SEMVER")
    versions = [
        package(version=each, ecosystem="npm")
        for each in ("1.9.9", "1.10.0-beta", "1.10.0", "2.0.0")
    ]
    assert found(tmp_path, [document], *versions) == ["1.9.9", "1.10.0-beta"]


def test_semantic_versions_are_ordered_as_their_standard_lists_them() -> None:
    """Section 11 of Semantic Versioning 2.0.0, and OSV's 0 before all."""
    texts = (
        "0 0.0.1 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11"
        " 1.0.0-rc.1 1.0.0 1.0.1"
    )
    ordered = [audit.SemVer(each) for each in texts.split()]
    for one, two in pairwise(ordered):
        assert one < two
        assert two > one
        assert two >= one
        assert not two < one
        assert one != two
    assert audit.SemVer("1.0.0+build") == audit.SemVer("1.0.0")


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=2, max_size=2))
def test_semantic_versions_compare_as_their_numbers(pair: list[tuple[int, int, int]]) -> None:
    one, two = (audit.SemVer(".".join(map(str, each))) for each in pair)
    assert (one < two, one == two) == (pair[0] < pair[1], pair[0] == pair[1])


def test_an_audit_fails_with_what_was_found_and_where_it_is_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = (each.version for each in locked_packages() if each.name == "litestar")
    document = advisory({"introduced": "0"}, {"fixed": "99"}, name="litestar", aliases=["CVE-1"])
    archive = tmp_path / "PyPI" / "all.zip"
    archive.parent.mkdir()
    with ZipFile(archive, "w") as written:
        written.writestr("OSV-1.json", json.dumps(document))
    assert audit.main(str(tmp_path)) == 1
    output = capsys.readouterr().out
    assert f"litestar {version}: OSV-1 (CVE-1)" in output
    assert "fixed in: 99; locked in: requirements.lock, requirements-dev.lock" in output
    assert "1 open" in output
    monkeypatch.setitem(audit.ACCEPTED, "OSV-1", "only with a debugger")
    assert audit.main(str(archive)) == 0
    assert "accepted: only with a debugger" in capsys.readouterr().out


def test_an_audit_without_a_database_states_that_nothing_was_audited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit.main("") == 0
    assert "Nothing was audited" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "[]", '{"no": "id"}', "not JSON"])
def test_a_database_that_is_none_is_an_error(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "1.json").write_text(content)
    assert audit.main(str(tmp_path)) == 2
    assert "Nothing was audited" in capsys.readouterr().err
    assert audit.main(str(tmp_path / "missing")) == 2
