"""docs/guides/django.md, executed as it stands: its commands, its files, and the bell's token at a real service."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psycopg
import pytest

ROOT = Path(__file__).parent.parent.parent.parent
GUIDE = (ROOT / "docs/guides/django.md").read_text("utf-8")
SERVER = psycopg.conninfo.conninfo_to_dict(os.environ["FRAMEWORKS_DSN"])
SERVICE_PYTHON = os.environ.get("SERVICE_PYTHON", str(ROOT / ".venv/bin/python"))
SECRET = "the secret of the guide, which is long enough"
ENVIRON = {
    **{k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"},
    "PGHOST": str(SERVER["host"]),
    "PGPORT": str(SERVER["port"]),
    "PGUSER": str(SERVER["user"]),
    "PGPASSWORD": str(SERVER.get("password", "")),
    "TOCSIN_JWT_SECRET": SECRET,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
CREATE_ALICE = (
    'from django.contrib.auth.models import User; User.objects.create_user(username="alice")'
)
DSN = psycopg.conninfo.make_conninfo(os.environ["FRAMEWORKS_DSN"], dbname="mysite")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project, after all that the guide has for it."""
    folder = tmp_path_factory.mktemp("guide")
    with psycopg.connect(os.environ["FRAMEWORKS_DSN"], autocommit=True) as server:
        server.execute("drop database if exists mysite")
        server.execute("create database mysite")
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL):
            if language == "sh":
                if "alice" in text:  # `createsuperuser` asks for a password
                    in_django(folder, CREATE_ALICE)
                # this environment has what pip installs
                run(folder, re.sub(r"^pip install .*\n", "", text, flags=re.MULTILINE))
            elif named := re.match(r"(?:# |<!-- )([\w/.]+)(, at the end)?(?: -->)?\n", text):
                path = folder / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a" if named[2] else "w") as file:
                    file.write(text[named.end() :])
        yield folder
        server.execute("drop database mysite")


def run(folder: Path, command: str) -> str:
    done = subprocess.run(
        f"set -e\n{command}",
        shell=True,
        cwd=folder,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def in_django(site: Path, script: str) -> str:
    return run(site, f"python manage.py shell -c '{script}'")


def test_the_guides_own_tests_pass(site: Path) -> None:
    assert "OK" in run(site, "python manage.py test")


def test_an_order_is_on_the_bell_of_the_running_service(site: Path) -> None:
    page = in_django(
        site,
        "from django.test import Client; from django.contrib.auth.models import User; c = Client(); "
        "c.force_login(User.objects.get()); "
        "print(c.get(\"/\", HTTP_HOST=\"localhost\").content.decode().replace(chr(10), \" \"))",
    )  # fmt: skip
    token = re.search(r'<tocsin-bell token="([^"]+)"', page)
    assert token is not None
    with Serving() as url:
        request = Request(
            f"{url}/api/notifications/", headers={"Authorization": f"Bearer {token[1]}"}
        )
        with urlopen(request) as response:
            found = json.load(response)["results"]
    assert [each["title"] for each in found] == ["Order A1 is on its way"]


class Serving:
    """`tocsin serve` of the development environment, on the guide's database."""

    def __enter__(self) -> str:
        port = random.choice(range(15432, 32000))  # below those of outgoing connections
        url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [SERVICE_PYTHON, "-m", "tocsin", "serve"],
            env=ENVIRON
            | {
                "TOCSIN_DATABASE_URL": DSN,
                "TOCSIN_PUBLIC_URL": url,
                "TOCSIN_PORT": str(port),
                "PYTHONPATH": "",
            },
            cwd=ROOT,
        )
        deadline = time.monotonic() + 180
        while True:
            try:
                urlopen(f"{url}/healthz").close()
            except URLError:
                assert self.process.poll() is None, "tocsin serve ended"
                assert time.monotonic() < deadline, "tocsin serve does not respond"
                time.sleep(0.2)  # until it listens
            else:
                return url

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(180)
