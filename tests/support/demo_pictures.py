"""Takes the picture of README: the demo of `make up` in Chromium after one button, light and dark.

`python -m tests.support.demo_pictures`
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, expect, sync_playwright

from tests.support.mail_screenshots import chromium
from tests.support.run_folder import run_folder
from tests.support.services import free_port

FOLDER = Path(__file__).parent.parent.parent / "docs"
WIDTH, HEIGHT = 1200, 800
QUALITY = 90
EVENT_TYPES = ("billing.payment_due", "forum.new_reply")
"""What is pressed: the first mail and push after a start take longer; that of the first type is in no inbox."""
SECONDS = 120.0


def main() -> None:
    """Writes `docs/demo-light.webp` and `docs/demo-dark.webp`."""
    with _running_demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", reduced_motion="reduce"
        )
        page.set_default_timeout(SECONDS * 1000)
        page.goto(url)
        _press(page)
        _take(page, "light")
        _take(page, "dark")
        browser.close()


@contextmanager
def _running_demo() -> Iterator[str]:
    """Yields the address of `tocsin up`, with data of its own."""
    with run_folder() as folder:
        port = free_port()
        environ = {
            name: text for name, text in os.environ.items() if not name.startswith("TOCSIN_")
        }
        environ |= {"TOCSIN_DATA_DIR": str(folder / "data"), "TOCSIN_PORT": str(port)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tocsin", "up"], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        try:
            for line in process.stdout:
                if "Tocsin is up" in line:
                    yield f"http://127.0.0.1:{port}/dev/"
                    break
            else:
                raise SystemExit("tocsin up has ended")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS)


def _press(page: Page) -> None:
    """Presses the buttons in Alice's window, and opens Bob's bell when all has arrived."""
    expect.set_options(timeout=SECONDS * 1000)
    for side in ("left", "right"):
        expect(page.locator(f".panel.{side} tocsin-bell")).not_to_have_js_property("count", None)
    for event_type in EVENT_TYPES:
        page.locator(f".panel.left [data-event-type='{event_type}']").click()
        expect(page.locator("#trace li").first).to_be_visible()
        expect(page.locator("#trace .waiting")).to_have_count(0)
    bell = page.locator(".panel.right tocsin-bell")
    bell.click()
    expect(bell.get_by_role("listitem").first).to_be_visible()


def _take(page: Page, look: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=look)
    shown = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot", {"format": "webp", "quality": QUALITY}
    )
    (FOLDER / f"demo-{look}.webp").write_bytes(b64decode(shown["data"]))


if __name__ == "__main__":
    main()
