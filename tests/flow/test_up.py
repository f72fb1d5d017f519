"""`tocsin up`: it starts everything, refuses what can't work, and stops everything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlsplit

import jwt
import psycopg
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from tests.support.keys import PEM
from tests.support.running_up import HTTP, OBEDIENT, STUBBORN, UP, RunningUp
from tests.support.services import until
from tocsin.cli import main
from tocsin.dev import embedded_postgres
from tocsin.dev.embedded_postgres import STOP_SECONDS, gone
from tocsin.dev.far_ends import STOP_SECONDS as PUSH_CATCHER_SECONDS
from tocsin.dev.mail_catcher import read_mails
from tocsin.dev.postgres_cluster import remove_cluster
from tocsin.dev.up import CHILD_SECONDS, reset
from tocsin.http.errors import Unauthorized
from tocsin.http.tokens import TokenVerifier
from tocsin.settings import read_settings
from tocsin.settings.running_instance import (
    DEVELOPMENT_KEY,
    AlreadyRunning,
    RunningInstance,
    find_running_instance,
    keep_secrets,
    lock_data_dir,
    publish,
    with_running_instance,
)
from tocsin.testing.apns import Authority, Key
from tocsin.testing.fcm import FcmServer


@pytest.fixture(scope="module")
def up_data(server_folder: Path) -> Iterator[Path]:
    # a name of its own: a process may come back to this module
    base = Path(mkdtemp(prefix="up-", dir=server_folder))
    base.chmod(0o755)
    yield base / "data"
    remove_cluster(base / "data")


@pytest_asyncio.fixture
async def run_up(up_data: Path) -> AsyncIterator[Callable[..., RunningUp]]:
    runs: list[RunningUp] = []

    def start(data_dir: Path = up_data, **options: Any) -> RunningUp:
        runs.append(RunningUp(data_dir, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


async def test_up_starts_everything_and_stops_it_all(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    up = run_up(FAR_ENDS="1")
    await up.ready()
    settings = with_running_instance(up.settings)

    assert "seeded" in up.text
    assert f"http://127.0.0.1:{settings.port}/schema" in up.text
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    (mailbox,) = settings.smtp_servers
    await send_mail(mailbox.port)
    assert len(read_mails(up_data / "mailbox")) == 1
    assert (settings.jwt_algorithms, len(settings.jwt_secret or "")) == (("HS256",), 48)
    assert stat.S_IMODE((up_data / "secrets.json").stat().st_mode) == 0o600
    assert settings.apns is not None
    assert settings.fcm_service_account is not None
    for url in (settings.apns_url, settings.fcm_url):
        assert urlsplit(url).hostname == "127.0.0.1"
    found = find_running_instance(up_data)
    assert found is not None
    assert found.pid == up.process.pid

    children = up.pids("working") + up.pids("serving")
    up.process.send_signal(signal.SIGINT)
    code = await up.ended()

    assert code == 0, up.text
    assert up.text.endswith("Stopped.\n")
    assert all(gone(pid) for pid in children)
    after = with_running_instance(up.settings)
    assert (after.database_url, after.smtp_url, after.jwt_secret) == (
        None,
        None,
        settings.jwt_secret,
    )


async def send_mail(port: int) -> None:
    import aiosmtplib

    await aiosmtplib.send(
        b"Subject: Hello\r\n\r\nHello\r\n",
        sender="a@example.com",
        recipients=["b@example.com"],
        hostname="127.0.0.1",
        port=port,
    )


async def test_a_second_up_names_the_address_of_the_first(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    first = run_up()
    await first.ready()
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UP, HTTP, OBEDIENT, env=first.environ, stderr=asyncio.subprocess.PIPE
    )

    _, complaint = await second.communicate()

    url = f"http://127.0.0.1:{first.settings.port}"
    assert second.returncode == 1
    assert complaint.decode().strip().count("\n") == 0
    assert f"pid {first.process.pid}) at {url}" in complaint.decode()
    with pytest.raises(AlreadyRunning):
        reset(up_data)


async def test_a_port_in_use_is_named_before_anything_starts(
    run_up: Callable[..., RunningUp], tmp_path: Path
) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        up = run_up(tmp_path / "data", TOCSIN_PORT=str(squatter.getsockname()[1]))

        assert await up.ended() == 1

    assert "TOCSIN_PORT" in up.text
    assert up.text.strip().count("\n") == 0
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "notify.example.com"])
async def test_a_bind_that_others_reach_is_refused_before_anything_starts(
    run_up: Callable[..., RunningUp], tmp_path: Path, host: str
) -> None:
    up = run_up(tmp_path / "data", TOCSIN_HOST=host)

    assert await up.ended() == 1

    (line,) = up.text.strip().splitlines()
    assert f"TOCSIN_HOST {host}" in line
    assert "127.0.0.1" in line
    assert not (tmp_path / "data").exists()


def test_beside_an_up_tokens_are_its_own_unless_a_secret_is_set(tmp_path: Path) -> None:
    keys = {"TOCSIN_JWT_PUBLIC_KEY": PEM, "TOCSIN_DATA_DIR": str(tmp_path)}

    def token(**more: str) -> Result:
        return CliRunner().invoke(main, ["token", "alice"], env=keys | more)

    assert "only your host app can sign" in token().stderr
    key = keep_secrets(tmp_path, DEVELOPMENT_KEY)[DEVELOPMENT_KEY]
    assert "only your host app can sign" in token().stderr
    with lock_data_dir(tmp_path) as lock:
        publish(lock, RunningInstance(1, "http://127.0.0.1:1"))
        own = token(TOCSIN_JWT_AUDIENCE="us").stdout.strip()
        theirs = token(TOCSIN_JWT_PUBLIC_KEY="", TOCSIN_JWT_SECRET="s" * 32).stdout.strip()
    settings = read_settings(keys | {"TOCSIN_JWT_AUDIENCE": "us"})
    verified = asyncio.run(TokenVerifier(settings, key).verify(own))
    assert verified.recipient_id == "alice"
    for other in (None, "another key of thirty-two bytes or more"):
        with pytest.raises(Unauthorized):
            asyncio.run(TokenVerifier(settings, other).verify(own))
    assert jwt.decode(theirs, "s" * 32, ["HS256"])["sub"] == "alice"


async def test_a_data_directory_from_before_the_first_release_is_refused_and_kept(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    made = (
        "create schema tocsin; create table tocsin.migration (name text);"
        " insert into tocsin.migration values ('0001_tocsin.sql'), ('0002_device.sql')"
    )
    server = embedded_postgres.start(up_data, durable=False)
    with psycopg.connect(server.dsn) as connection:
        connection.execute(made)
    embedded_postgres.stop(server)

    up = run_up(argv=[sys.executable, "-m", "tocsin", "up"])

    assert await up.ended() == 1
    (line,) = up.text.strip().splitlines()
    assert "`make reset`" in line
    server = embedded_postgres.start(up_data, durable=False)
    with psycopg.connect(server.dsn) as connection:
        kept = connection.execute("select count(*) from tocsin.migration").fetchone()
        connection.execute("drop schema tocsin cascade")
    embedded_postgres.stop(server)
    assert kept == (2,)


async def test_kill_9_of_up_takes_everything_along_and_the_next_one_starts(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    first = run_up()
    await first.ready()
    children = first.pids("working") + first.pids("serving")
    postmaster = int((up_data / "postgres/data/postmaster.pid").read_text().splitlines()[0])

    first.process.kill()
    first.process.wait()
    second = run_up()  # at once, as a person would
    await second.ready()

    await until(lambda: all(gone(pid) for pid in [*children, postmaster]))
    assert len(children) == 2


async def test_children_and_postgresql_that_die_come_back(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    up = run_up()
    await up.ready()
    pid_file = up_data / "postgres/data/postmaster.pid"
    dsn = with_running_instance(up.settings).database_url
    assert dsn is not None

    os.kill(up.pids("working")[0], signal.SIGKILL)
    os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGQUIT)

    await until(lambda: len(up.pids("working")) == 2)
    await until(lambda: with_running_instance(up.settings).database_url == dsn)
    up.process.send_signal(signal.SIGTERM)
    assert await up.ended() == 0


async def test_a_child_that_ignores_sigterm_does_not_delay_the_stop_beyond_5_seconds(
    run_up: Callable[..., RunningUp],
) -> None:
    up = run_up(worker=STUBBORN)
    await up.ready()
    up.process.send_signal(signal.SIGTERM)

    assert await up.ended() == 0
    assert f"did not stop within {CHILD_SECONDS:.1f} s: killed" in up.text
    assert CHILD_SECONDS + PUSH_CATCHER_SECONDS + STOP_SECONDS < 5
    assert all(gone(pid) for pid in up.pids("ignoring"))


async def test_a_second_ctrl_c_does_not_wait(run_up: Callable[..., RunningUp]) -> None:
    up = run_up(
        worker=STUBBORN, CHILD_SECONDS="3600"
    )  # a worker that ignores SIGTERM has this otherwise

    def ended_by_signals() -> bool:
        up.process.send_signal(signal.SIGINT)  # two at once count as one
        return up.process.poll() is not None

    await up.ready()
    await until(ended_by_signals)

    assert await up.ended() == 0
    assert all(gone(pid) for pid in up.pids("ignoring"))


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="make's state shows on Linux only"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_to_make_alone_reaches_up(
    run_up: Callable[..., RunningUp], up_data: Path, number: signal.Signals
) -> None:
    makefile = up_data.with_name("Makefile")
    makefile.write_text(
        'up:\n\t@exec env TOCSIN_MAKE_PID=$$PPID "$$INTERPRETER" -c "$$UP" "$$HTTP" "$$WORKER"\n'
    )
    up = run_up(
        argv=["make", "-f", str(makefile)],
        INTERPRETER=sys.executable,
        UP=UP,
        HTTP=HTTP,
        WORKER=OBEDIENT,
    )
    await up.ready()
    children = up.pids("working") + up.pids("serving")

    up.process.send_signal(number)

    await up.ended()
    await until(lambda: "Stopped." in up.text)
    assert all(gone(pid) for pid in children)


async def test_a_child_that_never_starts_ends_up_with_a_line(
    run_up: Callable[..., RunningUp],
) -> None:
    up = run_up(http="import sys; sys.exit('TOCSIN_FOO is wrong')")

    assert await up.ended() == 1
    assert "http   | TOCSIN_FOO is wrong" in up.text
    assert up.text.splitlines()[-1].startswith("http does not start")


async def test_a_signal_during_the_start_stops_it_too(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    up = run_up()
    await until((up_data / "postgres/data/postmaster.pid").exists)
    up.process.send_signal(signal.SIGTERM)

    assert await up.ended() == 0
    assert not (up_data / "postgres/data/postmaster.pid").exists()


ENVIRON = """
import os
for name in ("SMTP_URL", "APNS_KEY_ID", "APNS_URL", "CA_FILE", "FCM_SERVICE_ACCOUNT", "FCM_URL"):
    print(name, os.environ.get("TOCSIN_" + name), flush=True)
"""


async def test_a_database_and_providers_of_ones_own_are_honoured(
    run_up: Callable[..., RunningUp], tmp_path: Path
) -> None:
    account = tmp_path / "account.json"
    account.write_text(FcmServer().service_account_json.replace('""', '"https://oauth.example"'))
    up = run_up(
        tmp_path / "data",
        worker=ENVIRON + OBEDIENT,
        FAR_ENDS="1",
        TOCSIN_APNS_KEY=Key.new().private,
        TOCSIN_APNS_KEY_ID="MINE",
        TOCSIN_APNS_TEAM_ID="TEAM",
        TOCSIN_APNS_TOPIC="com.example.app",
        TOCSIN_FCM_SERVICE_ACCOUNT=str(account),
        TOCSIN_DATABASE_URL="postgresql://app@db.example.com/app",
        TOCSIN_SMTP_URL="smtp://mail.example.com",
        TOCSIN_PUBLIC_URL="https://notify.example.com",
    )
    await up.ready()
    await until(lambda: "working" in up.text)
    up.process.send_signal(signal.SIGINT)
    await up.ended()

    assert "migrated postgresql://app@db.example.com/app" in up.text
    assert "worker | SMTP_URL smtp://mail.example.com" in up.text
    assert "worker | APNS_KEY_ID MINE" in up.text
    assert "worker | APNS_URL None" in up.text
    assert f"worker | FCM_SERVICE_ACCOUNT {account}" in up.text
    assert "worker | FCM_URL None" in up.text
    assert "/dev/phones/" not in up.text
    assert "https://notify.example.com/schema" in up.text
    assert "seeded" not in up.text
    kept = {path.name for path in (tmp_path / "data").iterdir()}
    assert kept == {"secrets.json", "up.lock", "vapid.key"}


async def test_each_provider_counts_for_itself_and_a_ca_file_stays_ones_own(
    run_up: Callable[..., RunningUp], tmp_path: Path
) -> None:
    ca_file = tmp_path / "mail-ca.pem"
    Authority().write(ca_file)
    up = run_up(
        tmp_path / "data",
        worker=ENVIRON + OBEDIENT,
        FAR_ENDS="1",
        TOCSIN_APNS_KEY=Key.new().private,
        TOCSIN_APNS_KEY_ID="MINE",
        TOCSIN_APNS_TEAM_ID="TEAM",
        TOCSIN_APNS_TOPIC="com.example.app",
        TOCSIN_CA_FILE=str(ca_file),
        TOCSIN_DATABASE_URL="postgresql://app@db.example.com/app",
    )
    await up.ready()
    await until(lambda: "working" in up.text)
    taken = with_running_instance(up.settings)
    up.process.send_signal(signal.SIGINT)
    await up.ended()

    assert "worker | APNS_KEY_ID MINE" in up.text
    assert "worker | APNS_URL None" in up.text
    assert f"worker | CA_FILE {ca_file}" in up.text
    assert "worker | FCM_URL http://127.0.0.1:" in up.text
    assert taken.apns is not None
    assert (taken.apns.key_id, taken.apns_url, taken.apns_ca_file) == ("MINE", None, None)
    assert taken.fcm_service_account is not None
    assert taken.ca_file == ca_file


async def test_reset_forgets_what_was_stored_and_nothing_else(
    run_up: Callable[..., RunningUp], up_data: Path
) -> None:
    up = run_up()
    await up.ready()
    (up_data / "mine.txt").write_text("keep")
    (up_data / "phones.jsonl").write_text("{}\n")
    (up_data / "far-ends").mkdir(exist_ok=True)
    up.process.send_signal(signal.SIGINT)
    await up.ended()

    reset(up_data)

    assert {path.name for path in up_data.iterdir()} == {"mine.txt", "up.lock"}


def test_the_lock_ends_with_its_holder_and_names_nobody_then(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path) as lock:
        lock.write(json.dumps({"pid": 1, "url": "http://x"}).encode())
        assert find_running_instance(tmp_path) is not None
        with pytest.raises(AlreadyRunning, match="pid 1"), lock_data_dir(tmp_path):
            pass

    assert find_running_instance(tmp_path) is None
    with lock_data_dir(tmp_path):
        pass
