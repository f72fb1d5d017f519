"""An app of a framework, built from its guide with the npm package as it is published."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from host_site import ROOT, TIMEOUT, HostSite, until
from npm_package import install
from playwright.sync_api import Page, expect

from tests.support.guides import write
from tests.support.services import SECRET

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "frontends"
# no framework reports its use, and none repairs its lock from a registry
QUIET = {
    "ASTRO_TELEMETRY_DISABLED": "1",
    "CI": "1",
    "NEXT_IGNORE_INCORRECT_LOCKFILE": "1",
    "NEXT_TELEMETRY_DISABLED": "1",
    "NUXT_TELEMETRY_DISABLED": "1",
}
LONGEST = 600  # seconds of an installation or build, on a machine that is busy


class Project:
    """An app of a framework: its locked packages, the files of its guide, and our package."""

    def __init__(self, name: str, guide: str, site: HostSite) -> None:
        self.folder = BUILD / name
        self.person = site.person()
        self.environ = {
            **os.environ,
            **QUIET,
            "CHECK_PERSON": self.person,
            "NEXT_PUBLIC_NOTIFY_URL": f"{site.url}/",
            "NUXT_JWT_SECRET": SECRET,
            "NUXT_PUBLIC_NOTIFY_URL": f"{site.url}/",
            "PUBLIC_NOTIFY_URL": f"{site.url}/",
            "TOCSIN_JWT_SECRET": SECRET,
        }
        shutil.copytree(HERE / name, self.folder, dirs_exist_ok=True)
        self._install_packages()
        self.files = {
            path.relative_to(self.folder).as_posix() for path in write(guide, self.folder)
        }
        shutil.rmtree(self.folder / "node_modules" / "tocsin", ignore_errors=True)
        install(self.folder)

    def _install_packages(self) -> None:
        """Installs them once for each lock."""
        lock = self.folder / "package-lock.json"
        installed = self.folder / "node_modules" / ".installed-lock"
        if not installed.exists() or installed.read_bytes() != lock.read_bytes():
            self.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            installed.write_bytes(lock.read_bytes())

    def run(self, *command: str) -> str:
        """Returns the output of a command, which has to succeed."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
        )
        assert ran.returncode == 0, ran.stdout[-5000:]
        return ran.stdout

    def tool(self, name: str, *options: str) -> str:
        return self.run(f"node_modules/.bin/{name}", *options)

    @contextmanager
    def serving(self, site: HostSite, *command: str, folder: str = ".") -> Iterator[str]:
        """Yields the address of the app, once it responds."""
        port = str(site.front.app_port)
        environ = {**self.environ, "PORT": port, "HOST": "127.0.0.1", "NODE_ENV": "production"}
        log = self.folder / "served.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.folder / folder, env=environ, stdout=output, stderr=output
            )
        address = f"http://localhost:{port}"
        try:
            until(
                lambda: process.poll() is not None or responds(address),
                log.read_text,
                seconds=LONGEST,
            )
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()
            process.wait(LONGEST)


def responds(address: str) -> bool:
    try:
        with urlopen(address, timeout=20):
            return True
    except (URLError, OSError):
        return False


def read(address: str) -> str:
    """Returns the page as the server renders it."""
    with urlopen(address, timeout=TIMEOUT) as response:
        text: str = response.read().decode()
        return text


def expect_badge(page: Page, count: int) -> None:
    expect(page.get_by_role("button", name=f"Notifications, {count} unread")).to_be_visible()
