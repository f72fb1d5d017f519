"""A container engine for the length of a run, and a base image made of Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from tocsin.dev.embedded_postgres import WATCHDOG

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "build" / "image"  # between runs: the tree of the base, made in minutes
MIRROR = "http://deb.debian.org/debian"
RELEASE = "trixie"  # what python:3.13-slim is made of; its Python is 3.13 too
PACKAGES = "python3,python3-venv,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
START_SECONDS = 120


def base_tree() -> Path:
    """Returns a minimal Debian with Python, and with docker-compose, which is not part of the image; made once."""
    tree, stamp = KEPT / "base", KEPT / "base.made"
    if not stamp.exists():
        shutil.rmtree(tree, ignore_errors=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, tree, MIRROR)
        (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for file in (CERTIFICATES, Path("/etc/resolv.conf")):  # this machine may have its own
            shutil.copyfile(file, tree / file.relative_to("/"))
        archive = KEPT / "base.tar"
        _run("tar", f"--directory={tree}", "--create", f"--file={archive}", ".")
        _run("chroot", tree, "apt-get", "--quiet", "update")
        install = ("apt-get", "--quiet", "install", "--yes", "--no-install-recommends")
        _run("chroot", tree, *install, "docker-compose")
        stamp.touch()
    return tree


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """Runs dockerd with folders of its own, for containers in the host's network; yields the client's environment.

    It ends with this process, also where that is killed.
    """
    folder = Path(mkdtemp(prefix="tocsin-docker-", dir="/tmp"))  # the path of a socket is short
    socket = f"unix://{folder}/socket"
    command = ["dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    command += [f"--pidfile={folder}/pid", f"--host={socket}"]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            command, stdout=log, stderr=log, env={"PATH": path}, start_new_session=True
        )
    reading, writing = os.pipe()
    subprocess.run(["/bin/sh", "-c", WATCHDOG, "sh", str(daemon.pid)], stdin=reading, check=True)
    os.close(reading)
    try:
        environ = {
            "DOCKER_HOST": socket,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(folder / "client"),
        }
        _wait(daemon, environ, folder / "log")
        yield environ
    finally:
        daemon.terminate()
        daemon.wait()
        os.close(writing)
        _unmount(folder)
        shutil.rmtree(folder)


def _unmount(folder: Path) -> None:
    """Unmounts what the daemon left mounted below its folder, such as the namespace of the host's network."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):  # the inner ones first
        if Path(mount).is_relative_to(folder):
            _run("umount", mount)


def _wait(daemon: subprocess.Popen[bytes], environ: dict[str, str], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while subprocess.run(
        ["docker", "info"], env=os.environ | environ, capture_output=True
    ).returncode:
        assert daemon.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.2)


def _run(*command: str | Path) -> None:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run([*map(str, command)], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
