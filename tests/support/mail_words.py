"""`make words`: the words of mails and their pages, collected into the catalogues of tocsin/engine/mail/words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from jinja2.ext import babel_extract

from tocsin.engine.mail.language import CATALOGUES, LABELS
from tocsin.engine.store.catalogue_file import default_catalogue

MAIL = CATALOGUES.parent
PACKAGE = MAIL.parent.parent
ROOT = PACKAGE.parent
PAGES = PACKAGE / "http" / "pages"
SOURCES = (
    MAIL / "context.py",
    MAIL / "render_push.py",
    PAGES / "opt_outs.py",
    PAGES / "mail_links.py",
)
KEYWORDS = {
    "_": None,
    "gettext": None,
    "ngettext": (1, 2),
    "pgettext": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
# A date of its own would change with each run.
_SINCE = datetime(2026, 11, 1, tzinfo=UTC)
_NOBODY = re.compile(
    r'^"(Project-Id-Version|Report-Msgid-Bugs-To|Last-Translator|Language-Team|P\w+-\w+-Date|Generated-By):.*\n',
    re.MULTILINE,
)

Words = tuple[str | tuple[str, ...], str | None, str]


def collected() -> Catalog:
    """Returns all texts that are to be translated."""
    catalogue = Catalog(project="tocsin", charset="utf-8", creation_date=_SINCE)
    for message, context, place in _found():
        catalogue.add(message, context=context, locations=[(place, 0)])
    return catalogue


def updated(path: Path) -> Catalog:
    """Returns a catalogue with new texts untranslated, and without texts that are gone."""
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.stem)
    catalogue.update(collected(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    return catalogue


def written(catalogue: Catalog) -> str:
    """Returns the catalogue as its file has it: without the names that Babel adds."""
    file = BytesIO()
    write_po(file, catalogue, width=120, sort_output=True, include_lineno=False)
    return _NOBODY.sub("", file.getvalue().decode())


def _found() -> Iterator[Words]:
    for source in SOURCES:
        with source.open("rb") as file:
            for found in extract("python", file, keywords=KEYWORDS):
                yield _parted(found[1], found[3], str(source.relative_to(ROOT)))
    for path in sorted(
        [
            *(MAIL / "templates").rglob("*.*"),
            *(PAGES / "templates").glob("*.html"),
        ]
    ):
        if path.suffix not in {".html", ".txt"}:
            continue
        with path.open("rb") as file:
            for _, function, message, _ in babel_extract(file, list(KEYWORDS), [], {}):
                yield _template_words(function, message, str(path.relative_to(ROOT)))
    catalogue = default_catalogue()
    for label in (
        *catalogue.categories.values(),
        *(t.label for t in catalogue.event_types.values()),
    ):
        yield label, LABELS, "tocsin/event_types.toml"


def _parted(message: object, context: str | None, place: str) -> Words:
    assert isinstance(message, str | tuple)
    return message, context, place


def _template_words(function: str, message: object, place: str) -> Words:
    """Returns the texts of a call in a template; Jinja passes the arguments as written."""
    words = [each for each in ([message] if isinstance(message, str) else message or []) if each]  # type: ignore[attr-defined]
    context = words.pop(0) if function in {"pgettext", "npgettext"} else None
    return (words[0] if len(words) == 1 else tuple(words[:2])), context, place


def main() -> None:
    """Writes the catalogues again."""
    for path in sorted(CATALOGUES.glob("*.po")):
        catalogue = updated(path)
        path.write_text(written(catalogue), "utf-8")
        left = sum(not translated(message.string) for message in catalogue if message.id)
        print(f"{path.name}: {len(catalogue)} messages, {left} not translated")


def translated(string: object) -> bool:
    """Returns whether all forms are translated."""
    return all(string) if isinstance(string, tuple) else bool(string)


if __name__ == "__main__":
    main()
