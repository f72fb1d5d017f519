"""`make sbom`: a bill of materials in CycloneDX's JSON, from the lock files. sbom.py FILE"""

from __future__ import annotations

import sys
import tomllib
import uuid
from collections.abc import Iterable
from pathlib import Path

from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from licences import spdx
from packages import ROOT, Package, locked_packages
from packageurl import PackageURL

_LICENCES = LicenseFactory()
_HASHES = HashTypeFactory()


def bill(packages: Iterable[Package]) -> Bom:
    """Returns the bill of materials; packages for builds and checks only have the scope "excluded"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    product = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=project["name"],
        licenses=[_LICENCES.make_from_string(project["license"])],
        purl=PackageURL("pypi", name=project["name"], version=project["version"]),
    )
    bom = Bom(components=[component(package) for package in packages])
    bom.metadata.component = product
    bom.register_dependency(
        product, (each for each in bom.components if each.scope == ComponentScope.REQUIRED)
    )
    references = sorted(str(each.bom_ref) for each in bom.components)
    # the same packages have the same number
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(references))
    return bom


def component(package: Package) -> Component:
    """Returns one package; each of its files adds one hash of its distribution."""
    group, _, name = package.name.rpartition("/")
    purl = PackageURL(package.ecosystem.lower(), group or None, name, package.version)
    licence = spdx(package)
    return Component(
        type=ComponentType.LIBRARY,
        group=group or None,
        name=name,
        version=package.version,
        scope=ComponentScope.REQUIRED if package.ships else ComponentScope.EXCLUDED,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=[_LICENCES.make_from_string(licence)] if licence != "unknown" else [],
        hashes=[_HASHES.from_composite_str(text) for text in package.hashes],
    )


def main(file: Path) -> int:
    """The command."""
    bom = bill(locked_packages())
    file.parent.mkdir(parents=True, exist_ok=True)
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    file.write_text(outputter.output_as_string(indent=2) + "\n", "utf-8")
    shipped = sum(each.scope == ComponentScope.REQUIRED for each in bom.components)
    print(
        f"{file}: {shipped} packages that ship, {len(bom.components) - shipped} that build or check."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
