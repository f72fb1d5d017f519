"""Runs the checks of the named frameworks, or of all, each in an environment of its own, against one PostgreSQL.

A folder of checks/frameworks is a framework: its requirements.lock is installed into build/frameworks/<name>, and its
tests run there by pytest, with the checkout on the path. Their environment:

FRAMEWORKS_DSN   the server's, of a role that may create databases and roles
OWNER_DSN        a new database with Tocsin's schema, as the owner of the schema
APP_DSN          the same as an app: a login that may create tables and is granted tocsin_app
SERVICE_PYTHON   the interpreter with `python -m tocsin`, for tests that run the service

A folder with a run.sh has its own steps; it gets FRAMEWORKS_DSN and SERVICE_PYTHON. PYTEST_ADDOPTS is passed on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ROOT / "checks" / "frameworks"
sys.path.insert(0, str(ROOT))

from tests.support.run_folder import run_folder  # noqa: E402 -- the checkout is on the path from here on
from tocsin.dev import embedded_postgres  # noqa: E402
from tocsin.migrate import login_dsn, migrate  # noqa: E402


def main(names: list[str]) -> int:
    """Returns how many frameworks failed."""
    folders = sorted(path for path in FRAMEWORKS.iterdir() if (path / "requirements.lock").exists())
    chosen = [path for path in folders if path.name in names] or folders
    failed = []
    with run_folder() as folder:
        server = embedded_postgres.start(folder / "data", lambda _: None, durable=False)
        try:
            with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
                connection.execute("alter role tocsin_owner createdb createrole")
            for framework in chosen:
                begun = time.monotonic()
                if not run(framework, server.dsn, folder):
                    failed.append(framework.name)
                print(f"{framework.name}: {time.monotonic() - begun:.0f} s", flush=True)
        finally:
            embedded_postgres.stop(server)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def run(framework: Path, server_dsn: str, folder: Path) -> bool:
    """Runs one framework's tests; returns whether all passed."""
    environ = os.environ | {"FRAMEWORKS_DSN": server_dsn, "SERVICE_PYTHON": sys.executable}
    if (framework / "run.sh").exists():
        return subprocess.run([framework / "run.sh"], env=environ).returncode == 0
    owner_dsn, app_dsn = create_database(f"frameworks_{framework.name}", server_dsn, folder)
    python = install(framework)
    return (
        subprocess.run(
            [python, "-m", "pytest", "--quiet"],
            cwd=framework,
            env=environ | {"OWNER_DSN": owner_dsn, "APP_DSN": app_dsn},
        ).returncode
        == 0
    )


def create_database(name: str, server_dsn: str, folder: Path) -> tuple[str, str]:
    """Returns a migrated database, as its owner and as an app."""
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    owner_dsn = f"{server_dsn.rpartition('/')[0]}/{name}"
    migrate(owner_dsn)
    app_dsn = login_dsn(owner_dsn, folder / "logins", "app")
    with psycopg.connect(owner_dsn) as connection:
        connection.execute("grant create on schema public to tocsin_app_login")
    return owner_dsn, app_dsn


def install(framework: Path) -> Path:
    """Returns the interpreter of its environment, with what its lock file pins and the checkout."""
    env, lock = ROOT / "build" / "frameworks" / framework.name, framework / "requirements.lock"
    python, installed = env / "bin" / "python", env / "installed.lock"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        print(f"Installing {framework.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", env], check=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", lock], check=True)
        installed.write_bytes(lock.read_bytes())
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(env)}))
    (packages / "checkout.pth").write_text(f"{ROOT}\n")
    return python


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
