"""What one check of `tocsin doctor` finds, and assertions on it."""

from __future__ import annotations

from typing import Any

from tocsin.cli.doctor import run_checks
from tocsin.cli.doctor.examination import DoctorOptions, Finding


async def find(name: str, options: DoctorOptions | None = None, **settings: Any) -> list[Finding]:
    """Returns what one check finds with these settings and no others."""
    environ = {f"TOCSIN_{key.upper()}": value for key, value in settings.items()}
    environ.setdefault("TOCSIN_DATA_DIR", "/nonexistent")
    ((_, found),) = await run_checks(environ, options or DoctorOptions(), [name])
    return found


async def is_red(name: str, sentence: str, cure: str, **settings: Any) -> None:
    """Asserts that the check is red, once, with these words in its sentence and its cure."""
    found = [each for each in await find(name, **settings) if each.status == "red"]
    assert len(found) == 1, found
    assert sentence in found[0].sentence
    assert cure in found[0].cure


async def is_yellow(name: str, sentence: str, cure: str, **settings: Any) -> None:
    """Asserts that one of the check's findings is yellow, with these words."""
    found = [each for each in await find(name, **settings) if each.status == "yellow"]
    assert any(sentence in each.sentence and cure in each.cure for each in found), found


async def is_green(name: str, **settings: Any) -> str:
    """Returns the sentence of the check's only finding, which is green."""
    found = await find(name, **settings)
    assert [each.status for each in found] == ["green"], found
    return found[0].sentence
