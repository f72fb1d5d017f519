"""One PostgreSQL server process: launch it, read its pid file, see it end."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

from msgspec import Struct

from tocsin.postgres.binaries import PostgresError, Report, announced, environment, explain
from tocsin.postgres.cluster import Cluster

HOST = "127.0.0.1"
PORTS = range(15432, 32000)  # below what systems hand out for outgoing connections
READY_SECONDS = 120.0  # recovery after a crash may take its time
LOG_BYTES = 10_000_000
TRIES = 5

# In the background, so that it is nobody's child; there a shell's own input would be /dev/null.
GUARD = 'exec 3<&0; (read -r _ <&3; kill -INT "$1" 2> /dev/null) &'

DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
THROWAWAY = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum_naptime=10s",
)


class PidFile(Struct, frozen=True):
    """What the server's postmaster.pid says; PostgreSQL's own miscadmin.h names the lines."""

    pid: int
    port: int
    status: str  # "starting", "ready", "stopping", "standby" or "" while it is being written


def looks_like_ours(cluster: Cluster, pid: int) -> bool:
    """By its command line, for a server that does not answer (yet)."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        line = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True
        ).stdout
    return os.fsencode(cluster.data) in line


def read_pid_file(cluster: Cluster) -> PidFile | None:
    """What the server says of itself, as far as it has come."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return None
    lines += [""] * (8 - len(lines))
    if not lines[0].strip().isdigit():
        return None
    port = int(lines[3]) if lines[3].strip().isdigit() else 0
    return PidFile(int(lines[0]), port, lines[7].strip())


def launch(
    cluster: Cluster, data_dir: Path, report: Report, *, durable: bool
) -> tuple[PidFile, FileIO]:
    """Starts it and waits until it takes connections; returns its guard beside it."""
    output = ""
    for attempt in range(TRIES):
        port = _choose_port(data_dir / "postgres.port")
        # Ours, not its user's: root must not write where another may have put a link.
        log = data_dir / "postgres.log"
        with announced(report, "Starting PostgreSQL ..."):
            launched, output = _try_launch(_command(cluster, port, durable=durable), cluster, log)
        if launched is not None:
            return launched
        if "pre-existing shared memory block" in output:  # the last sessions of a killed server
            time.sleep(0.5 * (attempt + 1))
        elif "could not bind" not in output:
            break
    raise PostgresError(explain(output, "it does not start"))


def _choose_port(port_file: Path) -> int:
    """The same at each start, so that a DSN noted down stays good; another one when it is taken."""
    try:
        kept = [int(port_file.read_text())]
    except (OSError, ValueError):
        kept = []
    for port in kept + random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError, OverflowError):
                probe.bind((HOST, port))
                port_file.write_text(f"{port}\n")
                return port
    raise PostgresError(f"No free port for PostgreSQL on {HOST}")


def _command(cluster: Cluster, port: int, *, durable: bool) -> list[str]:
    command = [str(cluster.binaries / "bin" / "postgres"), "-D", str(cluster.data)]
    for setting in (
        f"listen_addresses={HOST}",
        f"port={port}",
        "unix_socket_directories=",
        "max_connections=200",  # two processes with pools, and a person looking in
        "timezone=UTC",
        "log_timezone=UTC",
        *(DURABLE if durable else THROWAWAY),
    ):
        command += ["-c", setting]
    return command


def _try_launch(
    command: list[str], cluster: Cluster, log: Path
) -> tuple[tuple[PidFile, FileIO] | None, str]:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.unlink()
    log.touch(mode=0o600)  # it may quote what people wrote
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command,
            **cluster.run_as,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for `tocsin up`, which then stops it in order
        )
    hold = guard(cluster, process.pid)
    found = _wait_ready(cluster, process)
    if found is not None:
        # Popen would warn of a child that outlives it; stop() reaps this one.
        process.returncode = 0
        return (found, hold), ""
    hold.close()
    with log.open("rb") as output_again:
        output_again.seek(begin)
        return None, output_again.read(LOG_BYTES).decode(errors="replace")


def _wait_ready(cluster: Cluster, process: subprocess.Popen[bytes]) -> PidFile | None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None:
        found = read_pid_file(cluster)
        if found and found.pid == process.pid and found.status == "ready":
            return found
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
        time.sleep(0.01)
    return None


def guard(cluster: Cluster, pid: int) -> FileIO:
    """Leaves a shell waiting on a pipe of ours: its end, be it by kill -9, stops the server."""
    reading, writing = os.pipe()
    try:
        subprocess.run(
            ["/bin/sh", "-c", GUARD, "tocsin-postgres-guard", str(pid)],
            **cluster.run_as,
            cwd="/",
            env=environment(),
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(reading)
    return FileIO(writing, "wb")


def wait_gone(pid: int, seconds: float) -> bool:
    """Whether the process ended within that time."""
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether no such process is there; reaps it where it was our child."""
    with suppress(ChildProcessError):  # an adopted server is no child of ours
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
