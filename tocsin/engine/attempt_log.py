"""The one line per attempt, written many at a time: a worker says thousands a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from tocsin.engine.model import Claimed, Settlement

_SOON = 0.02  # seconds

log = structlog.get_logger("tocsin.deliver")


class AttemptLog:
    """Collects lines for a moment; never a body, an address or a token is in them."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def note(self, together: Sequence[Claimed], settlement: Settlement, started: float) -> None:
        """What became of deliveries that went as one message, handed over at `started` (monotonic)."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_SOON, self.flush)
        outcome = settlement.outcome
        name = type(outcome).__name__.lower()
        reason = getattr(outcome, "reason", None)
        ms = round((time.monotonic() - started) * 1000, 1)
        for claimed in together:
            self._lines.append(
                {
                    "delivery_id": claimed.delivery_id,
                    "channel": claimed.channel,
                    "attempt": claimed.attempt,
                    "outcome": name,
                    "reason": reason,
                    "ms": ms,
                }
            )

    def flush(self) -> None:
        """Writes what is there."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        many = getattr(log, "many", None)  # of our own logs (logs.py); others get a line each
        if many is not None:
            many("attempt", lines)
            return
        for line in lines:
            log.info("attempt", **line)
