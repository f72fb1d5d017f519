"""An endpoint of a host app that receives webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac

from aiohttp import web

from tocsin.testing.http_faults import Script, play

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()


class Endpoint:
    """A receiver that checks requests by Standard Webhooks, and replies as scripted."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = secrets
        self.script = Script()
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.requests = 0
        self.port = 0
        app = web.Application()
        app.router.add_post("/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)

    async def __aenter__(self) -> Endpoint:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append((headers, body))
        if turn := self.script.next(request.path):
            return await play(turn, request)
        return web.Response(status=204 if self.verified(headers, body) else 401)

    def verified(self, headers: dict[str, str], body: bytes) -> bool:
        """Written after the standard, not after our code; without secrets, nothing is signed."""
        if not self.secrets:
            return True
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signatures = [each.split(",", 1) for each in headers["webhook-signature"].split(" ")]
        for secret in self.secrets:
            key = base64.b64decode(secret.split("_", 1)[1])
            digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            if ["v1", digest] in signatures:
                return True
        return False
