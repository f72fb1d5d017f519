"""Single mails to one person that are due together go as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tocsin.engine.model import Claimed


def bursts(claimed: Iterable[Claimed]) -> list[tuple[Claimed, ...]]:
    """What goes together, in the order in which it was claimed; most deliveries go alone."""
    groups: dict[tuple[str, int], list[Claimed]] = {}
    for one in claimed:
        key = ("alone", one.delivery_id) if one.burst_id is None else ("burst", one.burst_id)
        groups.setdefault(key, []).append(one)
    return [tuple(group) for group in groups.values()]
