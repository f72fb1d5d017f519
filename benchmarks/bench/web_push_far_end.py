"""A push service of browsers that accepts everything, in a process of its own: prints its subscriptions as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from tocsin.testing.web_push import PushService


async def main(number: int) -> None:
    async with PushService(keep=1) as service:
        print(json.dumps([service.subscribe().json for _ in range(number)]), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until its starter goes


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
