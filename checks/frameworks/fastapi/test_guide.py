"""The app of docs/guides/fastapi.md: its own test, and its bell against a running service."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.support import guides

SECRET = "a secret of the app and of Tocsin, 48 bytes long"


def url(driver: str) -> str:
    return os.environ["APP_DSN"].replace("postgresql://", f"postgresql+{driver}://")


@pytest.fixture
def port() -> int:
    return random.choice(range(15432, 32000))  # below those of outgoing connections


@pytest.fixture
def environ(port: int) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": url("asyncpg"),
        "TOCSIN_JWT_SECRET": SECRET,
        "TOCSIN_PUBLIC_URL": f"http://127.0.0.1:{port}",
    }


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_the_guides_own_test_passes(tmp_path: Path, environ: dict[str, str], driver: str) -> None:
    guides.write("fastapi.md", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environ | {"DATABASE_URL": url(driver)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.fixture
def service(environ: dict[str, str], port: int, tmp_path: Path) -> Iterator[str]:
    """The URL of a running `tocsin serve`."""
    settings = {
        "TOCSIN_DATABASE_URL": os.environ["OWNER_DSN"],
        "TOCSIN_DATA_DIR": str(tmp_path / "data"),
        "TOCSIN_PORT": str(port),
    }
    service = subprocess.Popen(
        [os.environ["SERVICE_PYTHON"], "-m", "tocsin", "serve"], env=environ | settings
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(service, address)
        yield address
    finally:
        service.terminate()
        service.wait(180)


def wait_until_ready(service: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert service.poll() is None, "tocsin serve ended"
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("tocsin serve is not ready")


def seed(folder: Path, environ: dict[str, str]) -> None:
    subprocess.run([sys.executable, "seed.py"], cwd=folder, env=environ, check=True)


async def test_the_service_takes_the_token_of_the_bell_and_shows_what_a_route_notified(
    tmp_path: Path, environ: dict[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "TOCSIN_JWT_SECRET", "TOCSIN_PUBLIC_URL"):
        monkeypatch.setenv(name, environ[name])
    guides.write("fastapi.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import app as guide

    for _ in range(2):  # it can be repeated
        seed(tmp_path, environ)
    transport = httpx.ASGITransport(guide.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        page = (await client.get("/")).text
        assert f'src="{service}/assets/tocsin-bell.js"' in page
        assert page.index("/notification-token.js") < page.index("tocsin-bell.js")
        module = await client.get("/notification-token.js")
        assert module.headers["content-type"].startswith("text/javascript")
        before = (await client.get("/notification-token")).status_code
        bob = {"cookie": "user=2"}
        await client.get("/sign-in/1")
        await client.put("/threads/9/subscription")
        await client.post("/threads/9/replies", json={"text": "Hi"}, headers=bob)
        token = (await client.get("/notification-token")).text
    await guide.engine.dispose()
    assert before == 401
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=service, headers=headers, timeout=60) as client:
        count = await client.get("/api/notifications/unread-count/")
    assert count.json()["count"] >= 1  # the guide's own test, too, notified her


def test_a_token_is_what_pyjwt_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from tocsin import InvalidArgument
    from tocsin.contrib.bell import bell_html, person_token

    claims: dict[str, Any] = jwt.decode(
        person_token(7, SECRET, audience="notifications", issuer="shop"),
        SECRET,
        ["HS256"],
        audience="notifications",
        issuer="shop",
    )
    assert claims["sub"] == "7"
    assert claims["exp"] - claims["iat"] == 900
    assert jwt.decode(person_token("a", SECRET * 2, algorithm="HS512"), SECRET * 2, ["HS512"])
    with pytest.raises(ValueError, match="less than 32 bytes"):
        person_token(7, "short")
    with pytest.raises(InvalidArgument, match="person is None"):
        person_token(None, SECRET)  # type: ignore[arg-type]
    assert 'title-count="&lt;3"' in bell_html("http://x/", title_count="<3")
