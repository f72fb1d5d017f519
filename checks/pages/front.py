"""A host app's own site: its pages, and Tocsin below `/notify`, as behind a reverse proxy.

It has two origins, so that a page can have Tocsin's origin or another one. Browsers report violations of a page's
Content-Security-Policy here.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, web
from msgspec import Struct

from tests.support.services import LONGEST, free_port

PREFIX = "/notify"
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "content-encoding", "host"})

# The strictest policy: no inline script or style, no markup made from text.
POLICY = (
    "default-src 'none'; script-src {sources}; style-src 'self'; connect-src {sources}; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'; report-uri /csp-reports"
)


class HostPage(Struct, frozen=True):
    """A page of a host app: its HTML, its own script, its style sheet."""

    html: str
    script: str = ""
    style: str = ""
    policy: str = POLICY


class Front:
    """Runs in a separate thread. `port` is the host's own, `other_port` another origin with the same pages."""

    def __init__(self, backend: int) -> None:
        self.backend = backend
        self.port = self.other_port = 0
        self.app_port = free_port()  # of an app that is served beside the site
        self.pages: dict[str, HostPage] = {}
        self.reports: list[dict[str, Any]] = []
        self._epoch = 0
        self._passing: set[asyncio.Transport] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_origin(self) -> str:
        return f"http://localhost:{self.other_port}"

    def start(self, port: int) -> None:
        self.port = port
        self._thread.start()
        assert self._ready.wait(LONGEST)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LONGEST)

    def show(self, name: str, page: HostPage) -> str:
        """Serves a page on both origins; returns its path."""
        self.pages[name] = page
        return f"/{name}.html"

    def cut(self) -> None:
        """Ends all connections to Tocsin, like a network failure."""
        for each in self._passing:
            self._loop.call_soon_threadsafe(each.abort)

    @contextmanager
    def without_service(self) -> Iterator[None]:
        """Makes Tocsin behind the site unavailable within the block; the site itself responds."""
        backend, self.backend = self.backend, 1  # a port without a listener
        self.cut()
        try:
            yield
        finally:
            self.backend = backend

    def stall(self) -> None:
        """Open connections stay open but forward nothing, as after a sleep; later connections work."""
        self._epoch += 1

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/csp-reports", self._report)
        app.router.add_route("*", PREFIX + "/{path:.*}", self._pass_on)
        app.router.add_get("/{name}.{kind:html|js|css}", self._page)
        app.router.add_get("/{path:.*}", self._landed)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        async with ClientSession(
            auto_decompress=False, timeout=ClientTimeout(total=None, sock_connect=10)
        ) as self._client:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            other = web.TCPSite(runner, "127.0.0.1", 0)
            await other.start()
            server: Any = other._server
            self.other_port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.append(json.loads(await request.text()))
        return web.Response(status=204)

    async def _landed(self, request: web.Request) -> web.Response:
        """Returns the target of action URLs."""
        return web.Response(text="<!doctype html><title>Landed</title>", content_type="text/html")

    async def _page(self, request: web.Request) -> web.Response:
        page = self.pages.get(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        kind = request.match_info["kind"]
        if kind == "js":
            return web.Response(text=page.script, content_type="text/javascript")
        if kind == "css":
            return web.Response(text=page.style, content_type="text/css")
        sources = f"'self' {self.origin}" if f":{self.port}" not in request.host else "'self'"
        headers = {"Content-Security-Policy": page.policy.format(sources=sources)}
        return web.Response(text=page.html, content_type="text/html", headers=headers)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        """Forwards to Tocsin with the prefix in the path, piece by piece so that streams work."""
        url = f"http://127.0.0.1:{self.backend}{request.raw_path}"
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        body = await request.read()
        epoch = self._epoch
        assert isinstance(request.transport, asyncio.Transport)
        self._passing.add(request.transport)
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(
                    self._client.request(
                        request.method, url, headers=headers, data=body, allow_redirects=False
                    )
                )
            except ClientConnectionError:
                return web.Response(status=502)
            passed = web.StreamResponse(status=response.status)
            for name, value in response.headers.items():
                if name.lower() not in _HOP - {"content-encoding"}:
                    passed.headers.add(name, value)
            await passed.prepare(request)
            with suppress(ConnectionError):  # the browser disconnected
                async for chunk in response.content.iter_any():
                    if epoch != self._epoch:
                        await self._stop.wait()
                    await passed.write(chunk)
                await passed.write_eof()
            return passed
