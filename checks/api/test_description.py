"""`make api-check`: Schemathesis against `tocsin serve`, with all of its checks and each kind of credentials.

It reads the API's description and generates requests for each call, right and wrong ones. It fails on a response that
is not described, a server error, a wrong value that is accepted, or a call that works without its credentials.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import jwt

from tests.conftest import *  # noqa: F403 - fixtures
from tests.support.services import SECRET, free_port, running
from tocsin.dev.seed import seed
from tocsin.engine.store.credential import APP_SCOPES, MAIL_EVENTS, create_api_key
from tocsin.engine.store.database import Database

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "build" / "api" / "bin" / "schemathesis"
METRICS_TOKEN = "the-token-of-the-metrics"
EXAMPLES = 3  # generated requests a call and phase

# `auth` is by security scheme. A request that fits the description may still be refused: a cursor, an event type or a
# token that fits its pattern can be unknown.
CONFIGURATION = """
[auth.openapi]
token = {{ bearer = "{token}" }}
api_key = {{ bearer = "{api_key}" }}
ops_key = {{ bearer = "{ops_key}" }}
metrics_token = {{ bearer = "{metrics_token}" }}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422]

[[operations]]
include-operation-id = "stream"
enabled = false # a good response has no end; tests/rest/test_stream.py and test_documented_responses.py have it
"""


async def test_each_response_is_as_the_description_states(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    seed(dsn, phones=False)
    _, api_key = await create_api_key(database, "app", scopes=[*APP_SCOPES, MAIL_EVENTS])
    _, ops_key = await create_api_key(database, "ops", scopes=["ops"])
    token = jwt.encode({"sub": "alice", "exp": int(time.time()) + 3600}, SECRET, "HS256")
    port = free_port()
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(
        CONFIGURATION.format(
            token=token, api_key=api_key, ops_key=ops_key, metrics_token=METRICS_TOKEN
        )
    )
    settings = {
        "database_url": dsn,
        "jwt_secret": SECRET,
        "public_url": f"http://127.0.0.1:{port}",
        "port": str(port),
        "metrics_token": METRICS_TOKEN,
        "rate_limits": "off",
    }
    async with running("serve", log=tmp_path / "serve.log", settings=settings) as service:
        await service.wait_for_log("tocsin")
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "--config-file", configuration, "run"),
            f"http://127.0.0.1:{port}/schema/openapi.json",
            *("--wait-for-schema", "60", "--checks", "all", "--max-examples", str(EXAMPLES)),
            *("--generation-deterministic", "--no-shrink", "--continue-on-failure"),
            *("--max-response-time", "60"),  # in seconds: for hangs, not for slowness
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
