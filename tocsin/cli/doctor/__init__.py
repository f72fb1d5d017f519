"""`tocsin doctor`: checks one by one all that an installation needs, and names the cure of what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Literal

import psycopg
from msgspec import Struct

from tocsin.cli.doctor.examination import TEXTS, DoctorOptions, Examination, Finding, finding
from tocsin.engine.model import Unavailable
from tocsin.engine.store.connection import one_line

_OPTIONS = {"purpose", "needs", "limit"}  # of a check, in findings.toml

Run = Callable[[Examination], Awaitable[Iterable[Finding]]]


class Check(Struct, frozen=True):
    """One check: its name, its function, what it finds out, and what it needs to run."""

    name: str
    run: Run
    purpose: str
    needs: Literal["", "database", "schema"] = ""
    limit: float = 15.0  # seconds


async def examine(check: Check, examination: Examination) -> list[Finding]:
    """Returns what a check found; one that fails or hangs is a finding too."""
    if check.needs and examination.unreachable:
        return [finding("every.unreachable")]
    if check.needs == "schema" and not examination.migrated:
        return [finding("every.not_migrated")]
    try:
        async with asyncio.timeout(check.limit):
            return list(await check.run(examination))
    except TimeoutError:
        return [finding("every.hangs", check=check)]
    except (Unavailable, psycopg.Error, OSError) as error:
        return [finding("every.fails", check=check, error=one_line(error))]


def all_checks() -> list[Check]:
    """Returns the checks of findings.toml in its order; the function of each is `check_` and its name."""
    from tocsin.cli.doctor import database_checks, provider_checks, service_checks

    functions = vars(database_checks) | vars(provider_checks) | vars(service_checks)
    return [
        Check(name, functions[f"check_{name}"], **{key: row[key] for key in _OPTIONS & row.keys()})
        for name, row in TEXTS.items()
        if "purpose" in row
    ]


async def run_checks(
    environ: Mapping[str, str], options: DoctorOptions, names: Collection[str] = ()
) -> list[tuple[str, list[Finding]]]:
    """Returns what each check (of these names) found, in the table's order. They run at the same time."""
    checks = [check for check in all_checks() if not names or check.name in names]
    examination = Examination(environ, options)
    async with examination.opened():
        found = await asyncio.gather(*(examine(check, examination) for check in checks))
    return [(check.name, findings) for check, findings in zip(checks, found, strict=True)]
