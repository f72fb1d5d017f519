"""Our own processes under load: `tocsin serve`, `tocsin worker`, and the tokens of the people who call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import jwt
from msgspec import Struct

from bench import stage
from bench.rounds import until

SECRET = "a secret of at least thirty-two bytes, for benchmarks"  # as in peers/django_inbox.py


# counted as in production, but never reached
UNREACHED = ",".join(
    f"{name}=9999999/1s"
    for name in ("reads", "writes", "key-reads", "key-writes", "address", "tickets")
)

# a round notifies the same people again, and the limit of a person's messages in an hour is not what is measured
UNREACHED_CAP = "100000"


class Service(Struct, frozen=True):
    """A running `tocsin serve`."""

    host: str
    port: int
    process: Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def serve(dsn: str, **settings: str) -> Iterator[Service]:
    """Runs one HTTP process until the block ends."""
    port = stage.free_port()
    settings = {
        "database_url": dsn,
        "port": str(port),
        "public_url": f"http://127.0.0.1:{port}",
        "jwt_secret": SECRET,
        "rate_limits": UNREACHED,
        **settings,
    }
    with stage.program(*stage.ours("serve"), settings=settings) as process:
        wait_until_ready(f"http://127.0.0.1:{port}/healthz")
        yield Service("127.0.0.1", port, process)


@contextmanager
def worker(dsn: str, **settings: str) -> Iterator[Popen[bytes]]:
    """Runs one worker until the block ends."""
    settings = {
        "database_url": dsn,
        "public_url": "http://127.0.0.1",
        "mail_cap": UNREACHED_CAP,
        **settings,
    }
    with stage.program(*stage.ours("worker"), settings=settings) as process:
        yield process


def wait_until_ready(url: str) -> None:
    """Returns when something responds there."""

    def responds() -> bool:
        try:
            with urlopen(url, timeout=5):
                return True
        except HTTPError:
            return True
        except (URLError, OSError):
            return False

    until(responds)


def token(person: str, jti: str = "") -> str:
    """Returns a JWT for all contenders; simplejwt requires `jti` and `token_type`."""
    claims = {
        "sub": person,
        "exp": int(time.time()) + 86_400,
        "jti": jti or person,
        "token_type": "access",
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


def bearer(person: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(person)}"}
