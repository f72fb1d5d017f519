"""The table of reasons: what each means for the person and for the operator, and what the operator does about it.

The table is reasons.toml.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct


class DecisionReason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a channel is on or off. The sentence may use `channel`, `decision`, `scope`, `label` and `topic`."""

    code: str
    decision: str  # on, off, or both
    sentence: str  # for the person
    meaning: str  # for the operator
    cure: str


class DeliveryReason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a delivery is in its state, a mail came back, or an address is suppressed.

    `clause` continues "It was not sent: "; empty where the code is clear enough.
    """

    codes: tuple[str, ...]
    state: str
    meaning: str  # for the operator
    cure: str
    clause: str = ""  # for the person


class _Table(Struct, forbid_unknown_fields=True):
    decision: tuple[DecisionReason, ...]
    topic: dict[str, str]
    engine: tuple[DeliveryReason, ...]
    email: tuple[DeliveryReason, ...]
    bounce: tuple[DeliveryReason, ...]
    push: tuple[DeliveryReason, ...]
    chat: tuple[DeliveryReason, ...]
    webhook: tuple[DeliveryReason, ...]


def _pattern(code: str) -> str:
    return re.escape(code).replace("…", ".*").replace("yz", r"\d\d").replace(r"\.x", r"\.\d+")


_TABLE = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes(), type=_Table)

DECISIONS = _TABLE.decision
TOPIC_REASONS = _TABLE.topic
"""Why a person who was not named gets an event of a topic; continues "You get this because "."""
PUSH_REASONS = _TABLE.push
DELIVERIES = (
    *_TABLE.engine,
    *_TABLE.email,
    *_TABLE.bounce,
    *PUSH_REASONS,
    *_TABLE.chat,
    *_TABLE.webhook,
)

WAITING_REASONS = frozenset({"quiet_hours", "delayed", "throttled"})
"""Why a delivery waits until a time that is known beforehand, without having been tried."""

_DECISIONS = {each.code: each for each in DECISIONS}
_PATTERNS = [(re.compile("|".join(map(_pattern, each.codes))), each) for each in DELIVERIES]


def decision_reason(code: str) -> DecisionReason | None:
    """Returns the row of a decision's reason; None if it is not known."""
    return _DECISIONS.get(code)


@lru_cache(maxsize=1024)
def delivery_reason(code: str) -> DeliveryReason | None:
    """Returns the row of a delivery's or device's reason; None if it is another actor's."""
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(code)), None)


def meaning_and_cure(code: str) -> tuple[str, str]:
    """Returns what a delivery's reason means and what an operator does; both empty if it is another actor's."""
    row = delivery_reason(code)
    return (row.meaning, row.cure) if row else ("", "")
