"""Takes each sample's picture in Chromium: light, dark, and on a phone.

`python -m tests.support.mail_screenshots [NAME…]`
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.support.golden_mails import samples

FOLDER = Path(__file__).parent.parent.parent / "build" / "mail"
NARROW, WIDE = 390, 800
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# A browser that sends nothing to the network: what it shows names no remote resource either.
_QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def main(wanted: list[str]) -> None:
    """Writes `build/mail/<name>-<look>.png`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    shown = {name: mail.html for name, mail in samples().items() if not wanted or name in wanted}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(_QUIET))
        for name, html in shown.items():
            for look, width, dark in (
                ("light", WIDE, False),
                ("dark", WIDE, True),
                ("phone", NARROW, False),
                ("phone-dark", NARROW, True),
            ):
                _take(browser, html, FOLDER / f"{name}-{look}.png", width=width, dark=dark)
        browser.close()
    print(f"{4 * len(shown)} pictures in {FOLDER}")


def chromium() -> str:
    """Returns the path of Chromium, which the make target installs where it is missing."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    raise SystemExit(
        "Chromium is not here: see tools/debian.sh, or on Debian: apt install chromium"
    )


def _take(browser: Browser, html: str, path: Path, *, width: int, dark: bool) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 600},
        color_scheme="dark" if dark else "light",
        offline=True,
    )
    page = context.new_page()
    page.set_content(html)
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if overflow > 0:
        raise SystemExit(f"{path.name}: {overflow} pixels wider than the window")
    page.screenshot(path=path, full_page=True)
    context.close()


if __name__ == "__main__":
    main(sys.argv[1:])
