"""The plan of one seed: the calls of apps and people, and the faults, each with its time. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

PEOPLE = 36
DIGEST = range(4)  # people with a daily digest of the forum's category
DST = range(4, 6)  # people whose digest is due while the clock of their time zone changes
OPT_OUT = range(6, 14)  # people who turn the email of an event type off meanwhile
TOPICS = {"forum.thread:1": range(14, 24), "forum.thread:2": range(20, 34)}
STREAMS = range(14, 20)  # people with an open stream
TYPES = (
    "forum.new_reply",
    "forum.mention",
    "approval.requested",
    "event.changed",
    "billing.payment_due",
    "compliance.overdue",
    "messages.new_dm",
)
OPT_OUT_TYPES = ("approval.requested", "event.changed")
LEASE = 30.0  # seconds, of a claim


class Kind(Struct, frozen=True):
    """A kind of fault: how often it is chosen, and for how many seconds it lasts."""

    weight: float
    least: float
    most: float
    group: str  # faults of one group don't overlap
    needs: str = ""  # its requirement


KINDS: dict[str, Kind] = {
    "kill_worker": Kind(10, 0.3, 2.0, "worker"),
    "kill_leader": Kind(6, 0.3, 2.0, "worker"),
    "kill_serve": Kind(4, 0.3, 2.0, "serve"),
    "freeze_worker": Kind(5, 1.0, 6.0, "worker"),
    "freeze_worker_beyond_lease": Kind(1.5, LEASE + 5, LEASE + 15, "worker"),
    "freeze_serve": Kind(2, 1.0, 5.0, "serve"),
    "freeze_far_end": Kind(3, 1.0, 6.0, "far_end"),
    "freeze_server": Kind(4, 1.0, 12.0, "database"),
    "stop_server": Kind(10, 1.0, 20.0, "database"),
    "crash_backend": Kind(4, 0.0, 0.0, "database"),
    "terminate_all": Kind(5, 0.0, 8.0, "database"),
    "terminate_some": Kind(5, 0.0, 8.0, "database"),
    "disk_full": Kind(2, 2.0, 6.0, "database", "root"),
    "failover": Kind(2.5, 0.2, 1.5, "database"),
    "smtp_451": Kind(3, 1.0, 5.0, "smtp"),
    "smtp_554": Kind(2, 1.0, 4.0, "smtp"),
    "smtp_421": Kind(3, 1.0, 5.0, "smtp"),
    "smtp_hang": Kind(3, 1.0, 5.0, "smtp"),
    "smtp_reset": Kind(3, 1.0, 5.0, "smtp"),
    "smtp_drop_after_data": Kind(4, 1.0, 5.0, "smtp"),
    "smtp_hang_after_data": Kind(2, 1.0, 5.0, "smtp"),
    "apns_429": Kind(3, 1.0, 5.0, "apns"),
    "apns_503": Kind(3, 1.0, 5.0, "apns"),
    "apns_goaway": Kind(4, 1.0, 5.0, "apns"),
    "apns_rst": Kind(3, 1.0, 5.0, "apns"),
    "apns_410": Kind(2, 1.0, 3.0, "apns"),
    "apns_drop": Kind(3, 1.0, 4.0, "apns"),
    "fcm_429": Kind(3, 1.0, 5.0, "fcm"),
    "fcm_500": Kind(3, 1.0, 5.0, "fcm"),
    "fcm_503": Kind(3, 1.0, 5.0, "fcm"),
    "fcm_reset": Kind(3, 1.0, 5.0, "fcm"),
    "fcm_hang": Kind(2, 1.0, 4.0, "fcm"),
    "clock": Kind(2, 4.0, 10.0, "worker", "libfaketime"),
    "dst": Kind(1.5, 0.0, 0.0, "dst"),
}
ONCE = frozenset({"failover", "disk_full", "freeze_worker_beyond_lease"})
"""A run has at most one of these."""
LONG_STOPS = 0.07  # the share of server stops that last longer than the common ones
MOST_STOP = 150.0


class Fault(Struct, frozen=True):
    """One fault; `number` chooses its target, `share` the share of affected messages."""

    kind: str
    at: float
    seconds: float
    number: int
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind} for {self.seconds:.1f} s"


class Action(Struct, frozen=True):
    """One call of an app or a person."""

    number: int
    at: float
    kind: str
    people: tuple[int, ...] = ()
    event_type: str = ""
    mode: str = ""
    seconds: float = 0.0
    target: int = -1  # the action that this one cancels

    @property
    def marker(self) -> str:
        """A word that only this event's messages contain."""
        return f"M{self.number:06d}"


class Plan(Struct, frozen=True):
    """A whole run."""

    seed: int
    workers: int
    serves: int
    seconds: float  # of calls
    actions: tuple[Action, ...]
    faults: tuple[Fault, ...]

    def has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.faults)

    def __str__(self) -> str:
        head = (
            f"seed {self.seed}: {self.serves} serve, {self.workers} worker,"
            f" {len(self.actions)} calls in {self.seconds:.0f} s"
        )
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


def make_plan(
    seed: int, *, max_stop: float = MOST_STOP, lacks: Sequence[str] = (), only: Sequence[str] = ()
) -> Plan:
    """Returns the plan of a seed; `lacks` names the unmet requirements, `only` the kinds to choose from."""
    chance = random.Random(seed)
    faults = _faults(chance, max_stop, lacks, only)
    ends = max(fault.at + fault.seconds for fault in faults)
    # calls continue during long faults, but more slowly
    seconds = max(10.0, min(ends + 2.0, 60.0))
    actions = make_actions(chance, seconds, rate=min(12.0, 200.0 / seconds))
    return Plan(seed, chance.choice((2, 2, 3)), chance.choice((1, 2)), seconds, actions, faults)


def _faults(
    chance: random.Random, max_stop: float, lacks: Sequence[str], only: Sequence[str]
) -> tuple[Fault, ...]:
    kinds = {
        name: kind
        for name, kind in KINDS.items()
        if (not only or name in only) and kind.needs not in lacks
    }
    busy: dict[str, float] = {}  # until when a group has a fault
    found: list[Fault] = []
    for _ in range(chance.randint(3, 7)):
        name = chance.choices(list(kinds), [kind.weight for kind in kinds.values()])[0]
        kind = kinds[name]
        if name in ONCE and any(fault.kind in ONCE for fault in found):
            continue
        at = max(chance.uniform(1.0, 9.0), busy.get(kind.group, 0.0) + chance.uniform(0.2, 2.0))
        seconds = chance.uniform(kind.least, kind.most)
        if name == "stop_server" and chance.random() < LONG_STOPS:
            seconds = chance.uniform(kind.most, MOST_STOP)
        if kind.group == "database":
            seconds = min(seconds, max_stop)
        busy[kind.group] = at + seconds
        fault = Fault(name, at, seconds, chance.randrange(1000), chance.choice((0.3, 0.6, 1.0)))
        found.append(fault)
    return tuple(sorted(found, key=lambda fault: fault.at))


def make_actions(chance: random.Random, seconds: float, *, rate: float) -> tuple[Action, ...]:
    """Returns the calls of so many seconds, numbered from 0."""
    kinds = {
        "sql": 40,
        "http": 25,
        "topic": 6,
        "crowd": 1.5,
        "scheduled": 5,
        "cancel": 5,
        "read_one": 5,
        "read_all": 3,
        "opt_out": 3,
    }
    modes = ("auto", "auto", "commit", "commit", "rollback", "slow")
    actions: list[Action] = []
    at = 0.0
    while at < seconds:
        number = len(actions)
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        people = tuple(sorted(chance.sample(range(PEOPLE), chance.choice((1, 1, 1, 2, 3)))))
        event_type = chance.choice(TYPES)
        if kind == "opt_out":
            people, event_type = (chance.choice(OPT_OUT),), chance.choice(OPT_OUT_TYPES)
        elif kind == "crowd":
            people = tuple(range(PEOPLE))
        action = Action(
            number,
            at,
            kind,
            people,
            event_type,
            chance.choice(tuple(TOPICS)) if kind == "topic" else chance.choice(modes),
            chance.uniform(0.3, 6.0),
            chance.randrange(max(0, number - 30), number) if number else -1,
        )
        actions.append(action)
        at += chance.expovariate(rate)
    return tuple(actions)
