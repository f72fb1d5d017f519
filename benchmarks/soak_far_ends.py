"""The soak tests' far ends: APNs and FCM servers that fail one request in twenty, none with --no-faults.

A separate process. It counts what it accepts, prints its settings and then, regularly, how many it has accepted; at the
end of its input it writes into the given file how often each push was accepted, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tocsin.testing.apns import (
    Act,
    ApnsReply,
    ApnsServer,
    Authority,
    Drop,
    GoAway,
    Key,
    Received,
    Reset,
    Rules,
)
from tocsin.testing.far_end import Fault, Script, Turn
from tocsin.testing.fcm import FcmServer, error, unavailable

TOPIC = "com.example.soak"
REPORT = 0.2  # seconds
RETRY_AFTER = "15"

# In thousandths of all requests, fifty in total.
APPLE: dict[Act, float] = {
    ApnsReply(503, "ServiceUnavailable"): 20,
    ApnsReply(429, "TooManyRequests", headers=(("retry-after", RETRY_AFTER),)): 15,
    Reset(): 12,
    GoAway(processed=True): 1.5,
    GoAway(processed=False): 1.4,
    Drop(): 0.1,  # ends all requests of the connection
}
GOOGLE: dict[Turn, float] = {
    unavailable(): 20,
    error(
        429,
        "RESOURCE_EXHAUSTED",
        "Device message rate exceeded.",
        code="QUOTA_EXCEEDED",
        retry_after=RETRY_AFTER,
    ): 15,
    Fault.RESET: 15,
}


class Chance:
    """Chooses a fault, or none, for each request; the same ones in each run."""

    def __init__(self, faults: dict[Any, float]) -> None:
        self._random = random.Random(7)
        self._faults = [None, *faults]
        self._weights = [1000 - sum(faults.values()), *faults.values()]

    def next(self) -> Any:
        return self._random.choices(self._faults, self._weights)[0]

    def even(self) -> bool:
        """Returns whether a request whose response is lost was accepted nevertheless."""
        return self._random.random() < 0.5


class Apple(ApnsServer):
    """APNs, by apns-id."""

    def __init__(self, *given: Any, faults: dict[Act, float], **options: Any) -> None:
        super().__init__(*given, **options)
        self.accepted: Counter[str] = Counter()
        self._chance = Chance(faults)

    def take(self, wire: Any, stream: int, headers: dict[str, str], body: bytes) -> None:
        act = self._chance.next()
        if act is not None:
            self.plan(headers[":path"].rpartition("/")[2], act)
        if isinstance(act, Reset) and self._chance.even():
            self.accepted[headers["apns-id"]] += 1
        super().take(wire, stream, headers, body)

    def _reply(self, reply: ApnsReply, wire: Any, stream: int, record: Received) -> None:
        if reply.status == 200:
            self.accepted[record.headers["apns-id"]] += 1
        super()._reply(reply, wire, stream, record)


class GoogleScript(Script):
    """A fault for one request in twenty."""

    def __init__(self, faults: dict[Turn, float]) -> None:
        super().__init__()
        self.chance = Chance(faults)

    def next(self, key: str) -> Turn | None:  # noqa: ARG002 - independent of the recipient
        turn: Turn | None = self.chance.next()
        return turn


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--no-faults", action="store_true", help="nothing fails, and nothing is printed"
    )
    options = parser.parse_args()
    folder = options.folder
    authority, key = Authority(), Key.new()
    ca_file = authority.write(folder / "ca.pem")
    rules = Rules(key, topics=frozenset({TOPIC}))
    apple = Apple(
        authority,
        key,
        faults={} if options.no_faults else APPLE,
        topics={TOPIC},
        rules=rules,
        keep=1,
    )
    google: Counter[str] = Counter()
    script = GoogleScript({} if options.no_faults else GOOGLE)

    def arrived(message: Any) -> None:
        lost = message.result == Fault.RESET.value and script.chance.even()
        if message.result == 200 or lost:
            # a badge push belongs to no notification
            number = message.message.get("data", {}).get("notification_id", "badge")
            google[f"{message.token} {number}"] += 1

    fcm = FcmServer(keep=1, on_request=arrived)
    fcm.script = script
    async with apple, fcm:
        settings = {
            "apns_key": key.private,
            "apns_key_id": key.key_id,
            "apns_team_id": key.team_id,
            "apns_topic": TOPIC,
            "apns_url": apple.url,
            "fcm_service_account": fcm.service_account_json,
            "fcm_url": fcm.url,
            "ca_file": str(ca_file),
        }
        print(json.dumps(settings), flush=True)
        over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not over.done():
            await asyncio.wait({over}, timeout=REPORT)
            if not options.no_faults:
                print(len(apple.accepted) + len(google), flush=True)
        whole = {"apns": apple.accepted, "fcm": google}
        (folder / "accepted.json").write_text(json.dumps(whole))


if __name__ == "__main__":
    asyncio.run(main())
