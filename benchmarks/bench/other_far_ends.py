"""Servers of pushes to browsers, of webhooks and of Slack that accept everything, in a process of their own.

It prints the browsers' subscriptions and the two addresses as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tocsin.testing.chats import ChatServer
from tocsin.testing.far_end import WebhookEndpoint
from tocsin.testing.web_push import PushService


async def main(browsers: int) -> None:
    async with (
        PushService(keep=1) as pushes,
        ChatServer(keep=1) as chats,
        WebhookEndpoint(keep=1) as webhooks,
    ):
        found = {
            "browsers": [pushes.subscribe().json for _ in range(browsers)],
            "webhook": webhooks.url,
            "chat": chats.url("slack", "target-"),
        }
        print(json.dumps(found), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until its starter ends


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
