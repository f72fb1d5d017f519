"""nginx with nchan, and its feed: one LISTEN, each notification posted at once over a connection that stays open."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import uvloop

from bench import stage
from bench.commits import CHANNEL
from bench.service import wait_until_ready

PATH = "/sub/{}"
_CONFIGURATION = """
load_module {module};
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /healthz {{ return 200; }}
        nchan_eventsource_ping_interval 15;
        location ~ ^/sub/(\\w+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
        location ~ ^/pub/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_timeout 1m; }}
    }}
}}
"""


@contextmanager
def nchan(dsn: str) -> Iterator[tuple[int, int]]:
    """Yields its port, and the process id of the worker that holds the streams."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None
    port = stage.free_port()
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)  # its worker runs as another user
        configuration = folder / "nginx.conf"
        user = "user nobody nogroup;" if os.geteuid() == 0 else ""
        module = "/usr/lib/nginx/modules/ngx_nchan_module.so"
        text = _CONFIGURATION.format(module=module, user=user, folder=folder, port=port)
        configuration.write_text(text)
        with stage.program(program, "-c", configuration, "-e", folder / "error.log") as master:
            wait_until_ready(f"http://127.0.0.1:{port}/healthz")
            feeder = [sys.executable, "-m", "bench.nchan", dsn, str(port)]
            with stage.program(*feeder, environ={"PYTHONPATH": str(Path(__file__).parent.parent)}):
                children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text()
                yield port, int(children.split()[0])


def version() -> str:
    """Returns the version of nginx; Debian's module has the same one."""
    output = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr
    return output.strip().rpartition("/")[2]


async def feed(dsn: str, port: int) -> None:
    """Posts each notification to its channel, without waiting for the response to the previous one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drop_responses() -> None:
        while await reader.read(65_536):
            pass

    dropping = asyncio.create_task(drop_responses())
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(f"listen {CHANNEL}")
        async for notice in connection.notifies():
            person, _, text = notice.payload.partition(" ")
            body = json.dumps({"title": text}).encode()
            writer.write(
                f"POST /pub/{person} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
    dropping.cancel()


if __name__ == "__main__":
    uvloop.run(feed(sys.argv[1], int(sys.argv[2])))
