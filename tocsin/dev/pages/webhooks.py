"""/dev/webhooks/: what the demo's webhook received, as a page or as JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response
from litestar.di import NamedDependency

from tocsin.dev.pages.arrivals import PAGES
from tocsin.dev.webhook_catcher import NAME, CaughtMessage, read_messages
from tocsin.http.errors import AnyRequest
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.requests import Services


@get("/webhooks", opt={QUIET: True})
async def list_caught_messages(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[Any]:
    """The newest messages first."""
    messages = await asyncio.to_thread(read_messages, services.settings.data_dir)
    if "application/json" in request.headers.get("accept", ""):
        return Response(messages)
    return PAGES.render("webhooks.html", messages=messages, name=NAME, written=_written)


def _written(message: CaughtMessage) -> str:
    return msgspec.json.format(msgspec.json.encode(message.data), indent=2).decode()


HANDLERS = (list_caught_messages,)
