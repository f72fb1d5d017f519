"""What is wrong with a host's own words: a catalogue that can't be read, or a value that a sentence does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Message
from babel.messages.pofile import PoFileError, read_po

from tocsin.engine.template_problem import Problem

_VALUE = re.compile(r"%(?:\((\w+)\)s|\((\w+)\)d|%|.)")


def catalogue_problems(folder: Path) -> Iterator[Problem]:
    """Of each `<language>.po` of a folder."""
    for path in sorted(folder.glob("*.po")):
        name = f"{folder.name}/{path.name}"
        try:
            Locale.parse(path.stem)
            with path.open("rb") as file:
                catalogue = read_po(file, locale=path.stem, abort_invalid=True)
        except (UnknownLocaleError, ValueError) as error:
            why = (
                "it is not in UTF-8"
                if isinstance(error, UnicodeError)
                else "it is named after no language"
            )
            yield Problem(name, None, why)
        except PoFileError as error:
            yield Problem(name, (error.lineno or 0) + 1, str(error.args[0]))
        else:
            for message in catalogue:
                if message.id and (wrong := _wrong(message)):
                    yield Problem(name, message.lineno, wrong)


def _wrong(message: Message) -> str | None:
    """A value that the words ask for and nobody gives would cost each mail with them."""
    ids = message.id if isinstance(message.id, tuple) else (message.id,)
    words = message.string if isinstance(message.string, tuple) else (message.string,)
    given = {value for each in ids for value in _values(str(each))}
    for value in (value for each in words if each for value in _values(str(each))):
        if value not in given:
            known = ", ".join(sorted(given)) or "none"
            return f"unknown value {value!r}; these words have {known}"
    return None


def _values(text: str) -> Iterator[str]:
    """The names in %(…)s; a lone percent sign by itself, which would be read as one."""
    for match in _VALUE.finditer(text):
        if match[0] != "%%":
            yield match[1] or match[2] or match[0]
