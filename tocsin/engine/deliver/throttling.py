"""The limits of messages to one person, applied to what a worker has claimed (docs/adr/0075-limits.md)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import structlog
from msgspec import structs

from tocsin.engine.deliver.claiming import DatabaseRetry
from tocsin.engine.deliver.outcome_writer import OutcomeWriter
from tocsin.engine.model import Channel, Claimed
from tocsin.engine.store import delivery as store
from tocsin.engine.store.database import Database
from tocsin.engine.store.delivery import SettledDelivery, ThrottledDelivery, withheld_state

_LIMITED = frozenset({Channel.EMAIL, Channel.PUSH, Channel.WEB_PUSH})
# Seconds until an app and event type are logged again.
_LOG_AGAIN = 60.0
_MOST_LOGGED = 1000

log = structlog.get_logger("tocsin.throttle")


class Throttle:
    """Defers what is beyond a limit; `cap`: messages an hour to one person on a channel (0: any number)."""

    def __init__(
        self, database: Database, retry: DatabaseRetry, writer: OutcomeWriter, cap: int
    ) -> None:
        self._database = database
        self._retry = retry
        self._writer = writer
        self._cap = cap
        self._logged: dict[tuple[str, str, Channel], float] = {}

    def cap_of(self, channel: Channel) -> int:
        """Returns the cap of a channel; 0 where it has none."""
        return self._cap if channel in _LIMITED else 0

    async def apply(self, channel: Channel, claimed: list[Claimed]) -> list[Claimed]:
        """Returns those of one claim that are sent now, and with them what goes as one message."""
        people = {one.recipient_id for one in claimed if one.near_limit}
        if not people or channel not in _LIMITED:
            return claimed
        near = {one.delivery_id: one for one in claimed if one.recipient_id in people}
        withheld = [
            one.delivery_id for one in near.values() if one.withheld not in (None, "quiet_hours")
        ]
        found = await self._retry.run(
            lambda: store.throttle(
                self._database,
                claimed[0].claim,
                list(near),
                withheld=withheld,
                cap=self.cap_of(channel),
            )
        )
        if found is None:  # the worker stops: the leases run out
            return [one for one in claimed if one.delivery_id not in near]
        self._log(found, near)
        self._settle_withheld(found, claimed)
        _put_together(found, near)
        held = {one.delivery_id for one in found if one.held is not None}
        return [one for one in claimed if one.delivery_id not in held]

    def _settle_withheld(
        self, found: Iterable[ThrottledDelivery], claimed: Sequence[Claimed]
    ) -> None:
        for one in found:
            if one.counted and one.held is not None:
                state = withheld_state(one.held)
                self._writer.write(
                    SettledDelivery(one.delivery_id, claimed[0].claim, state, one.held)
                )

    def _log(self, found: Iterable[ThrottledDelivery], near: dict[int, Claimed]) -> None:
        """Logs which app sends too much of which event type: a line a minute, not one for each delivery."""
        counts: defaultdict[tuple[str, str, Channel], int] = defaultdict(int)
        for one in found:
            if one.held == "throttled" and (of := near.get(one.delivery_id)):
                counts[one.caller or "", of.event_type, of.channel] += 1
        now = time.monotonic()
        for key, n in counts.items():
            if self._logged.get(key, -_LOG_AGAIN) > now - _LOG_AGAIN:
                continue
            if len(self._logged) >= _MOST_LOGGED:
                self._logged.clear()
            self._logged[key] = now
            caller, event_type, channel = key
            log.warning(
                "throttled: one person gets more than the limit, and the rest later as one message",
                caller=caller,
                event_type=event_type,
                channel=channel,
                deliveries=n,
            )


def _put_together(found: Iterable[ThrottledDelivery], near: dict[int, Claimed]) -> None:
    """Gives each burst the deliveries that its message only counts."""
    bursts: dict[int, Claimed] = {}
    counted: defaultdict[int, list[int]] = defaultdict(list)
    for one in found:
        if one.held is not None or one.burst_id is None:
            continue
        if one.counted:
            counted[one.burst_id].append(one.delivery_id)
        else:
            bursts.setdefault(one.burst_id, near[one.delivery_id])
    for burst_id, first in bursts.items():
        if counted[burst_id]:
            structs.force_setattr(first, "counted", counted[burst_id])
