"""The files of deploy/: they are valid, name existing commands and settings, and those that can run here are run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_connection
from time import monotonic, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest
import trustme
import yaml
from psycopg.conninfo import conninfo_to_dict

from tests.support import guides
from tests.support.run_folder import run_folder
from tests.support.services import LONGEST, SECRET, free_port, service_dsn
from tocsin.cli import main
from tocsin.dev import embedded_postgres
from tocsin.migrate import migrate
from tocsin.settings import DECLARED, PREFIX

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [
    each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text("utf-8"))
]
SETTINGS = {PREFIX + setting.name for setting in DECLARED}


def objects(kind: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] == kind]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifests_are_valid(version: str) -> None:
    program = ROOT / "build" / "deploy" / "bin" / "kubernetes-validate"
    done = subprocess.run(
        [program, "--kubernetes-version", version, "--strict", *MANIFESTS],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed for resource") == len(OBJECTS) == 7


def test_the_manifests_belong_together() -> None:
    (service,), (ingress,) = objects("Service"), objects("Ingress")
    pods = [each["spec"]["template"] for each in (*objects("Deployment"), *objects("Job"))]
    labels = [each["metadata"]["labels"].items() for each in pods]
    for owner in (service["spec"], objects("PodDisruptionBudget")[0]["spec"]["selector"]):
        selected = owner.get("selector") or owner["matchLabels"]
        assert sum(selected.items() <= each for each in labels) == 1
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    commands = [container["args"][0] for each in pods for container in each["spec"]["containers"]]
    assert sorted(commands) == ["migrate", "serve", "worker"]


def test_each_setting_and_command_of_the_files_is_there() -> None:
    named = {
        name
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for name in re.findall(r"TOCSIN_[A-Z_]+", path.read_text("utf-8"))
    }
    assert len(named) > 6
    assert named <= SETTINGS
    units = [path.read_text("utf-8") for path in (DEPLOY / "systemd").iterdir()]
    started = {name for unit in units for name in re.findall(r"bin/tocsin (\w+)", unit)}
    assert started == {"serve", "worker", "migrate"} <= main.commands.keys()


@pytest.mark.parametrize("name", ["tocsin-serve@8001", "tocsin-worker@1", "tocsin-migrate"])
def test_systemd_accepts_each_unit(name: str, tmp_path: Path) -> None:
    template = name.split("@", maxsplit=1)[0] + ("@" if "@" in name else "")
    text = (DEPLOY / "systemd" / f"{template}.service").read_text("utf-8")
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace("/opt/tocsin/bin/tocsin", str(BIN / "tocsin")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "tocsin" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """The owner's DSN of a PostgreSQL of its own."""
    with run_folder() as folder:
        running = embedded_postgres.start(folder / "data", durable=False)
        yield running.dsn
        embedded_postgres.stop(running)


@contextmanager
def started(command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a command as a platform starts it: by a shell, with its variables."""
    rest = {name: text for name, text in os.environ.items() if not name.startswith("TOCSIN_")}
    path = f"{BIN}:{rest['PATH']}"
    process = subprocess.Popen(
        ["sh", "-c", f"exec env {command}"], env=rest | {"PATH": path} | environ
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LONGEST)


def wait_for(url: str) -> None:
    deadline = monotonic() + LONGEST
    while True:
        try:
            with urlopen(url, timeout=5) as response:
                assert response.status == 200
                return
        except (URLError, ConnectionError):
            assert monotonic() < deadline, url
            sleep(0.1)


def wait_for_nginx(port: int) -> None:
    deadline = monotonic() + LONGEST
    while True:
        try:
            create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            assert monotonic() < deadline, port
            sleep(0.1)
        else:
            return


def of_unit(name: str, root: Path) -> tuple[str, dict[str, str]]:
    """Returns the command of a unit and its variables, as systemd reads them, with files below another root."""
    text = (root / "etc/systemd/system" / name).read_text("utf-8")
    (file,) = re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
    (command,) = re.findall(r"^ExecStart=/opt/tocsin/bin/(.*)$", text, re.MULTILINE)
    lines = (root / file.lstrip("/")).read_text("utf-8").splitlines()
    given = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return command, {key: value.strip('"') for key, value in given}


def test_the_guide_to_one_machine_leads_to_services_without_a_red_check(
    dsn: str, tmp_path: Path
) -> None:
    """Its commands as they are, below another root; what systemd, nginx and pip do is done by the units' own lines."""
    commands = "".join(guides.blocks("deploying.md", "sh")[:2])
    for folder in ("etc", "etc/nginx/conf.d", "etc/systemd/system"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for line in commands.splitlines():
        if line.startswith("install "):
            there = re.sub(r" (/etc/\S*)", rf" {tmp_path}\1", line)
            subprocess.run(["sh", "-c", there], cwd=ROOT, check=True)
    port, etc = free_port(), tmp_path / "etc/tocsin"
    assert {oct(file.stat().st_mode & 0o777) for file in etc.iterdir()} == {"0o600"}
    settings = etc / "tocsin.env"
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("create role shop login")
        (etc / "migrate.env").write_text(f"TOCSIN_DATABASE_URL={dsn}\n")
        command, environ = of_unit("tocsin-migrate.service", tmp_path)
        with started(command, **environ) as migration:
            assert migration.wait(LONGEST) == 0
        (statements,) = guides.blocks("deploying.md", "text")
        owner.execute(statements.encode())
    edited = settings.read_text("utf-8")
    assert "\nTOCSIN_JWT_SECRET=\n" in edited
    where = conninfo_to_dict(dsn)
    for before, after in (
        ("127.0.0.1:5432/app", f"127.0.0.1:{where['port']}/{where['dbname']}"),
        ("https://notify.example.com", f"http://127.0.0.1:{port}"),
        ("TOCSIN_JWT_SECRET=", f"TOCSIN_JWT_SECRET={SECRET.replace(' ', '-')}"),
    ):
        assert before in edited
        edited = edited.replace(before, after)
    settings.write_text(edited)
    serve, environ = of_unit("tocsin-serve@.service", tmp_path)
    worker, _ = of_unit("tocsin-worker@.service", tmp_path)
    with started(serve, **environ, TOCSIN_PORT=str(port)), started(worker, **environ):
        wait_for(f"http://127.0.0.1:{port}/readyz")
        names = "settings database requirements session schema rights services tokens stream"
        doctor = f"sh -c 'set -a; . {settings}; set +a; exec tocsin doctor {names}'"
        examine = ["sh", "-c", f"PATH={BIN}:$PATH {doctor}"]
        deadline = monotonic() + LONGEST  # until the worker has reported too, and leads
        while subprocess.run(examine).returncode:
            assert monotonic() < deadline


def test_the_procfile_runs(dsn: str) -> None:
    lines = (DEPLOY / "Procfile").read_text("utf-8").splitlines()
    commands = dict(line.split(": ", 1) for line in lines)
    port = free_port()
    environ = {
        "DATABASE_URL": dsn,
        "PORT": str(port),
        "TOCSIN_PUBLIC_URL": "https://n.example.com",
        "TOCSIN_JWT_SECRET": SECRET,
    }
    with started(commands["release"], **environ) as release:
        assert release.wait(LONGEST) == 0
    with (
        started(commands["web"], **environ) as web,
        started(commands["worker"], **environ) as worker,
    ):
        wait_for(f"http://127.0.0.1:{port}/readyz")
        assert web.poll() is None
        assert worker.poll() is None
    assert (web.returncode, worker.returncode) in {(0, 0), (-15, 0), (-15, -15), (0, -15)}


def test_a_stream_through_the_nginx_of_the_guide_is_green(dsn: str, tmp_path: Path) -> None:
    """Both services behind the file as it is, but for the ports and the certificate."""
    migrate(dsn)
    front, *ports = free_port(), free_port(), free_port()
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    site = (DEPLOY / "nginx" / "tocsin.conf").read_text("utf-8")
    for before, after in (
        ("127.0.0.1:8001", f"127.0.0.1:{ports[0]}"),
        ("127.0.0.1:8002", f"127.0.0.1:{ports[1]}"),
        ("443 ssl", f"127.0.0.1:{front} ssl"),
        ("/etc/letsencrypt/live/notify.example.com/fullchain.pem", str(certificate)),
        ("/etc/letsencrypt/live/notify.example.com/privkey.pem", str(key)),
    ):
        assert before in site
        site = site.replace(before, after)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}/p;\n{site}}}\n"
    )
    environ = {
        "TOCSIN_DATABASE_URL": service_dsn(dsn),
        "TOCSIN_PUBLIC_URL": f"https://127.0.0.1:{front}",
        "TOCSIN_JWT_SECRET": SECRET,
        "TOCSIN_CA_FILE": str(ca_file),
    }
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(started("tocsin serve", **environ, TOCSIN_PORT=str(port)))
        stack.enter_context(started(f"nginx -c {config}"))
        for port in ports:
            wait_for(f"http://127.0.0.1:{port}/readyz")
        wait_for_nginx(front)
        with started("tocsin doctor stream --heartbeat", **environ) as doctor:
            assert doctor.wait(LONGEST) == 0
