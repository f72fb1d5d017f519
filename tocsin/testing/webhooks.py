"""The far end of webhooks: an endpoint of a host app, for tests and for `tocsin up`."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping

from aiohttp import web

from tocsin.testing.http_faults import Script, play


class WebhookEndpoint:
    """A receiver that checks requests by Standard Webhooks, and replies as scripted: 204, or 401 for a wrong signature.

    Without secrets, it verifies nothing. `on_request` is called with the headers and the body of each request.
    """

    def __init__(
        self,
        *secrets: str,
        on_request: Callable[[Mapping[str, str], bytes], object] | None = None,
        keep: int | None = None,
    ) -> None:
        self.secrets = secrets
        self._on_request = on_request
        self._keep = keep
        self.script = Script()
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.requests = 0
        self.port = 0
        app = web.Application()
        app.router.add_post("/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)

    async def __aenter__(self) -> WebhookEndpoint:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The address of a webhook; any other path is received too."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append((headers, body))
        if self._keep is not None:
            del self.received[: -self._keep]
        if self._on_request is not None:
            self._on_request(headers, body)
        if turn := self.script.next(request.path):
            return await play(turn, request)
        return web.Response(status=204 if self.verified(headers, body) else 401)

    def verified(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Returns whether one of the secrets made a signature; written after the standard, not after the actor."""
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
