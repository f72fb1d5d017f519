"""The floors of HTTP: apps that return the same bytes to all requests, with the settings of `tocsin serve`.

`null_http.py raw|litestar PORT`.
"""

from __future__ import annotations

import sys

import uvicorn
import uvloop
from litestar import Litestar, Response, get
from litestar.types import Receive, Scope, Send

from tocsin.http.app import uvicorn_config
from tocsin.settings import Settings

BODY = b'{"count":3}'


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Handles a request with the minimum of any app under uvicorn."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


@get("/")
async def null() -> Response[bytes]:
    """The minimum of any handler of Litestar."""
    return Response(BODY, media_type="application/json")


def main() -> None:
    which, port = sys.argv[1:]
    app = raw if which == "raw" else Litestar([null], openapi_config=None, logging_config=None)
    config = uvicorn_config(Settings(port=int(port)), app)
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
