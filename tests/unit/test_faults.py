"""The checks of the fault runner: what is a violation, and which outcomes could not be known."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from faults.inject import Window
from faults.invariants import Check
from faults.ledger import Attempt, Delivery, Event, Ledger, Notification, Passage, Passages
from faults.load import COMMITTED, NOTHING, AppEvent, Revocation
from faults.plan import KINDS, Action, make_plan
from faults.unknowns import Unknowns

ACTION = Action(1, 0.0, "sql", (1,), "event.changed", "auto")
APP_EVENT = AppEvent(ACTION, (1,), COMMITTED, 1.0, 1)
EVENT = Event(1, "M000001 of sql", fanned_out=True, cancelled=False)
NOTIFICATION = Notification(
    1, 1, "p1", in_inbox=True, read=False, archived=False, decisions={"email": ["on", "default"]}
)
DELIVERY = Delivery(
    1, 1, 1, "p1", "email", "sent", None, 1, "email", None, "M000001 of sql", None, None, 10
)
KEY = ("email", "p1@example.com", "M000001")
ACCEPTED = Passage(
    at=100.0,
    began=99.9,
    channel="email",
    slot=0,
    id="<delivery-1.x@localhost>",
    to="p1@example.com",
    result="accepted",
    reply="250",
    digest=False,
    retry_after=0.0,
)


def at(seconds: float, **changes: Any) -> Passage:
    return structs.replace(ACCEPTED, at=seconds, began=seconds - 0.1, **changes)


def found(
    *passages: Passage,
    app_event: AppEvent = APP_EVENT,
    event: Event | None = EVENT,
    delivery: Delivery = DELIVERY,
    windows: tuple[Window, ...] = (),
    revocations: tuple[Revocation, ...] = (),
    counts: tuple[tuple[str, int, int], ...] = (),
    opt_outs: frozenset[tuple[str, str]] = frozenset(),
) -> list[str]:
    """The invariants that do not hold for one event of one person."""
    ledger = Ledger(
        [event] if event else [],
        [NOTIFICATION] if event else [],
        [delivery] if event else [],
        {1: [Attempt(1, 1, 100.0, "sent", "")]},
        [],
        list(counts),
        set(opt_outs),
    )
    met = Passages({KEY: list(passages)} if passages else {}, {}, [], len(passages))
    check = Check(ledger, met, [app_event], list(revocations), list(windows))
    return [violation.invariant for violation in check.all().violations]


def test_a_seed_has_one_plan() -> None:
    assert make_plan(7) == make_plan(7)
    assert make_plan(7) != make_plan(8)


def test_each_kind_of_fault_is_in_some_plan() -> None:
    plans = [make_plan(seed) for seed in range(400)]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(KINDS)


def test_what_went_well_is_no_violation() -> None:
    assert found(ACCEPTED) == []


def test_a_delivery_that_nobody_accepted_is_lost() -> None:
    assert found() == ["I1 lost"]


def test_an_event_that_never_committed_must_not_be_there() -> None:
    assert found(ACCEPTED, app_event=structs.replace(APP_EVENT, outcome=NOTHING)) == ["I1"]


def test_a_committed_event_must_be_there() -> None:
    assert found(event=None) == ["I1"]
    failover = Window("failover", 0.5, 3.0)
    assert found(event=None, windows=(failover,)) == []


def test_a_delivery_must_come_to_an_end() -> None:
    assert found(delivery=structs.replace(DELIVERY, state="queued")) == ["I1/I7"]


def test_what_was_accepted_must_be_called_sent() -> None:
    assert found(ACCEPTED, delivery=structs.replace(DELIVERY, state="failed")) == ["I1"]


@pytest.mark.parametrize(
    ("first", "window"),
    [
        (at(100.0, reply="lost"), None),
        (at(100.0), Window("kill_worker", 100.5, 102.0, slot=0)),
        (at(100.0), Window("freeze_worker_beyond_lease", 100.1, 140.0, slot=0)),
        (at(100.0), Window("failover", 99.0, 101.0)),
    ],
    ids=["reply lost", "killed", "frozen", "failover"],
)
def test_a_second_one_is_allowed_where_the_first_outcome_was_unknown(
    first: Passage, window: Window | None
) -> None:
    windows = (window,) if window else ()
    assert found(first, at(130.0, slot=1), windows=windows) == []


@pytest.mark.parametrize(
    "window",
    [
        None,
        Window("kill_worker", 100.5, 102.0, slot=1),  # another worker
        Window("kill_worker", 110.0, 112.0, slot=0),  # long after it must have been recorded
        Window("freeze_worker", 100.1, 105.0, slot=0),
        Window("stop_server", 100.1, 120.0),
        Window("terminate_all", 100.1, 108.0),
    ],
    ids=["none", "another killed", "killed later", "frozen shortly", "outage", "cut"],
)
def test_a_second_one_is_a_violation_where_a_worker_knew_the_first(window: Window | None) -> None:
    windows = (window,) if window else ()
    assert found(at(100.0), at(130.0, slot=1), windows=windows) == ["I2"]


def test_nothing_is_begun_after_an_opt_out_or_a_cancellation() -> None:
    opt_out = Revocation("opt_out", 90.0, person=1, event_type="event.changed")
    stored = frozenset({("p1", "event.changed")})
    assert found(at(100.0), revocations=(opt_out,), opt_outs=stored) == ["I3"]
    assert found(at(90.3), revocations=(opt_out,), opt_outs=stored) == []
    assert found(at(90.3), revocations=(opt_out,)) == ["I3"]  # it is gone
    cancelled = structs.replace(EVENT, cancelled=True)
    cancel = Revocation("cancel", 90.0, "M000001")
    assert found(at(100.0), event=cancelled, revocations=(cancel,)) == ["I3"]


def test_attempts_have_a_cap() -> None:
    delivery = structs.replace(DELIVERY, max_attempts=2)
    refused = [at(100.0 + i, result="refused", reply="451") for i in range(2)]
    assert found(*refused, at(110.0), delivery=delivery) == ["I4"]


def test_a_provider_is_not_asked_before_the_time_it_named() -> None:
    later = at(100.0, result="refused", reply="429", retry_after=3.0)
    assert found(later, at(102.0)) == ["I5"]
    assert found(later, at(103.2)) == []


def test_what_was_refused_for_good_is_not_tried_again() -> None:
    assert found(at(100.0, result="refused", reply="554"), at(110.0)) == ["I5"]


def test_a_badge_is_exact() -> None:
    assert found(ACCEPTED, counts=(("p1", 2, 1),)) == ["I6"]


@pytest.mark.parametrize(
    ("slot", "accepted", "known"), [(2, 10.1, False), (1, 10.1, True), (2, 14, True)]
)
def test_a_worker_that_stops_while_the_far_end_is_frozen_does_not_know_the_outcome(
    slot: int, accepted: float, known: bool
) -> None:
    windows = [Window("clock", 1, 7, slot=2), Window("freeze_far_end", 4, 10)]
    first = Passage(accepted, accepted, "fcm", slot, "1", "pixel", "accepted", "200", False, 0)
    assert (Unknowns(windows, []).why(first, accepted + 2) is None) is known
