"""A Django app of peers/ under gunicorn; threads, since its plain workers close each connection."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench import stage
from bench.peer import PEERS, PYTHON
from bench.service import Service, wait_until_ready

_VERSIONS = """
import json, importlib.metadata as m
names = "django", "djangorestframework", "djangorestframework-simplejwt", "gunicorn"
print(json.dumps({n: m.version(n) for n in names}))
"""


@contextmanager
def gunicorn(
    module: str, environ: Mapping[str, str], *, workers: int = 1, threads: int = 8
) -> Iterator[Service]:
    """Runs `module:application` until the block ends."""
    port = stage.free_port()
    command = [
        *(PYTHON.parent / "gunicorn", "--workers", str(workers), "--worker-class", "gthread"),
        *("--threads", str(threads), "--keep-alive", "75", "--bind", f"127.0.0.1:{port}"),
        *("--chdir", PEERS, f"{module}:application"),
    ]
    with stage.program(*command, environ=environ) as process:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield Service("127.0.0.1", port, process)


def versions() -> dict[str, str]:
    """Returns the versions of Django and what it needs."""
    output = subprocess.run(
        [PYTHON, "-c", _VERSIONS], check=True, capture_output=True, text=True
    ).stdout
    return dict(json.loads(output))
