"""`make licences`: the licence of each package that ships, and an error for one that may not ship with Apache-2.0."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from license_expression import ExpressionError, Licensing, get_spdx_licensing
from packages import Package, locked_packages

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CNRI-Python", "ISC", "MIT", "MIT-0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Permissive: they require only a notice."""

UNCHANGED = {
    "certifi": "MPL-2.0",
    "pathspec": "MPL-2.0",
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
    "psycopg-pool": "LGPL-3.0-only",
}
"""Weak copyleft, for these packages alone: installed beside Tocsin and not changed (docs/adr/0009-dependencies.md)."""

NOT_INSTALLED = {"colorama": "BSD-3-Clause"}
"""Licences of packages for other platforms, whose metadata is not installed."""

SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Licence names of older metadata as SPDX expressions."""

_SPDX: Licensing = get_spdx_licensing()


def spdx(package: Package) -> str:
    """Returns a package's licence as an SPDX expression; "unknown" if the metadata has none."""
    named = package.licence or NOT_INSTALLED.get(package.name) or "unknown"
    return SPELLINGS.get(named, named)


def is_allowed(package: Package) -> bool:
    """Returns whether a package may ship: for `A OR B` one is enough, for `A AND B` both are needed."""
    allowed = ALLOWED | {UNCHANGED.get(package.name, "MIT")}
    try:
        expression = _SPDX.parse(spdx(package), validate=True)
    except ExpressionError:
        return False
    truth = {
        symbol: _SPDX.TRUE if symbol.key in allowed else _SPDX.FALSE
        for symbol in _SPDX.license_symbols(expression)
    }
    return bool(expression.subs(truth, simplify=True) == _SPDX.TRUE)


def report(packages: Iterable[Package]) -> list[Package]:
    """Prints a line for each package that ships, and returns those that may not."""
    refused = []
    for package in packages:
        if package.ships:
            print(f"{package.name:24} {package.version:16} {spdx(package)}")
            if not is_allowed(package):
                refused.append(package)
    return refused


def main() -> int:
    """The command."""
    refused = report(locked_packages())
    for package in refused:
        print(
            f"{package.name} {package.version}: {spdx(package)} is not in the list of allowed licences",
            file=sys.stderr,
        )
    if refused:
        print(
            "Take another package, or add the licence to checks/supply/licences.py and to ADR 0009.",
            file=sys.stderr,
        )
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
