"""The tables of docs/settings.md, from the declarations of the settings. `make settings-page` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from tocsin.settings import DECLARED, PREFIX, Setting, Settings

FILE = Path(__file__).parent.parent.parent / "docs" / "settings.md"


def settings_page(text: str) -> str:
    """Returns the page with each setting's row as it is declared; the order of the rows is the page's own."""
    rows = {PREFIX + each.name: _row(each) for each in DECLARED}
    return re.sub(
        r"^\| `(TOCSIN_\w+)`.*$",
        lambda found: rows.get(found[1], found[0]),
        text,
        flags=re.MULTILINE,
    )


def _row(setting: Setting) -> str:
    default = setting.default or _default(getattr(Settings(), DECLARED[setting]))
    return f"| `{PREFIX}{setting.name}` | {default} | `{setting.example}` | {setting.sentence} |"


def _default(value: object) -> str:
    if value in (None, ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


if __name__ == "__main__":
    FILE.write_text(settings_page(FILE.read_text("utf-8")), "utf-8")
