"""The cluster of one data directory: where it is, and how it is made."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from msgspec import Struct

from tocsin.postgres.binaries import (
    PostgresError,
    Report,
    RunAs,
    announced,
    call,
    explain,
    give,
    reaches,
    usable_binaries,
    wheel,
    who_runs_it,
)

SUPERUSER = "postgres"
SHARED_HOME = Path("/var/lib/tocsin")


class Cluster(Struct, frozen=True):
    """All that is needed to run the cluster of one data directory."""

    home: Path  # belongs to the user that PostgreSQL runs as
    binaries: Path
    run_as: RunAs

    @property
    def data(self) -> Path:
        """What PostgreSQL calls its data directory."""
        return self.home / "data"


def find_cluster(data_dir: Path) -> Cluster | None:
    """The cluster that was made for this data directory, if there is one."""
    home = _existing_home(data_dir)
    return None if home is None else Cluster(home, wheel(), who_runs_it())


def make_cluster(data_dir: Path, password: str, report: Report, *, durable: bool) -> Cluster:
    """Finds or makes it; an interrupted start leaves nothing that the next one trips over."""
    cluster = _place(data_dir, report)
    for leftover in cluster.home.glob("draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not (cluster.data / "PG_VERSION").exists():
        with announced(report, "Creating the PostgreSQL cluster ..."):
            _initdb(cluster, password, durable=durable)
    return cluster


def remove_cluster(data_dir: Path) -> None:
    """Deletes it with all its data; it must not be running."""
    for home in _homes(data_dir):
        shutil.rmtree(home, ignore_errors=True)
        if home.exists():
            raise PostgresError(f"{home} can't be removed: it belongs to another user")


def _homes(data_dir: Path) -> tuple[Path, Path]:
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return data_dir.resolve() / "postgres", SHARED_HOME / name


def _existing_home(data_dir: Path) -> Path | None:
    for home in _homes(data_dir):
        if os.path.exists(
            home / "data" / "PG_VERSION"
        ):  # unlike Path.exists, False where it is closed
            return home
    return None


def _place(data_dir: Path, report: Report) -> Cluster:
    """In the data directory, or beside it all where the unprivileged user can't get in there.

    No mode of a parent is changed for that: a 0700 home stays closed.
    """
    run_as, _ = who_runs_it(), wheel()  # before anything is made for what is not there
    own, shared = _homes(data_dir)
    home = _existing_home(data_dir) or own
    if home == own and not reaches(run_as, data_dir):
        home = shared
        note = f"The database is in {home}, since its user can't get into this directory.\n"
        (data_dir / "postgres-is-elsewhere.txt").write_text(note)
        if not SHARED_HOME.exists():
            SHARED_HOME.mkdir(parents=True)
            SHARED_HOME.chmod(0o755)  # our own, whatever the umask
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    if run_as:
        os.chown(home, run_as["user"], run_as["group"])
        if (home / "data").exists() and (home / "data").stat().st_uid != run_as["user"]:
            give(home / "data", run_as)  # made by an ordinary user, and root starts it now
    return Cluster(home, usable_binaries(home, run_as, report), run_as)


def _initdb(cluster: Cluster, password: str, *, durable: bool) -> None:
    """Makes it under another name first, so that a half-made one is never taken for a cluster."""
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=cluster.home))
    key = draft / "password"
    key.write_text(password)
    key.chmod(0o600)
    give(draft, cluster.run_as)
    command = [
        str(cluster.binaries / "bin" / "initdb"),
        f"--pgdata={draft / 'data'}",
        f"--username={SUPERUSER}",
        f"--pwfile={key}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # The same order of text on every machine, whatever its C library.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--data-checksums",
        "--no-instructions",
        *([] if durable else ["--no-sync"]),
    ]
    done = call(command, cluster.run_as)
    if done.returncode != 0:
        shutil.rmtree(draft, ignore_errors=True)
        raise PostgresError(explain(done.stderr, "initdb failed"))
    (draft / "data").rename(cluster.data)
    shutil.rmtree(draft)
