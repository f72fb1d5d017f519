"""/dev/chat/: what was posted to the chats that `make up` plays, as a page or as JSON."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Response
from litestar.di import NamedDependency

from tocsin.dev.chat_catcher import NAME, TOPIC, read_posts
from tocsin.dev.pages.arrivals import PAGES
from tocsin.http.errors import AnyRequest
from tocsin.http.observability import QUIET
from tocsin.http.openapi import get
from tocsin.http.requests import Services


@get("/chat", opt={QUIET: True})
async def list_posts(request: AnyRequest, services: NamedDependency[Services]) -> Response[Any]:
    """The newest posts first."""
    posts = await asyncio.to_thread(read_posts, services.settings.data_dir)
    if "application/json" in request.headers.get("accept", ""):
        return Response(posts)
    return PAGES.render("chat.html", posts=posts, target=NAME, topic=TOPIC)


HANDLERS = (list_posts,)
