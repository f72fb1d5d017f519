"""The invariants I1 to I10, checked when the system is idle again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct, to_builtins

from faults.inject import Window
from faults.ledger import Delivery, Key, Ledger, Passage, Passages, acceptances
from faults.load import COMMITTED, NOTHING, AppEvent, Revocation, address, person_id
from faults.unknowns import Unknowns

ENDS = frozenset({"sent", "failed", "skipped", "cancelled", "expired"})
CHECK_VALID = 0.25  # seconds for which a presend check is valid
SLACK = 0.75  # additional time on a busy machine
EARLY = 0.05  # seconds by which clocks of one machine may differ


class Violation(Struct):
    """One violated invariant, with its evidence."""

    invariant: str
    text: str
    evidence: dict[str, Any] = {}


class Findings(Struct):
    """The result of the check of one run."""

    violations: list[Violation]
    duplicates: Counter[str]  # allowed ones, by their reason


class Check:
    """One run's invariants."""

    def __init__(
        self,
        ledger: Ledger,
        passages: Passages,
        app_events: Sequence[AppEvent],
        revocations: Sequence[Revocation],
        windows: Sequence[Window],
    ) -> None:
        self._ledger = ledger
        self._passages = passages
        self._app_events = app_events
        self._revocations = revocations
        self._windows = windows
        self._unknowns = Unknowns(windows, passages.cuts)
        self._failovers = [window for window in windows if window.kind == "failover"]
        self._copies = Counter(event.marker for event in ledger.events)
        self._by_marker = {event.marker: event for event in ledger.events}
        self._deliveries = {each.key: each for each in ledger.deliveries if each.key}
        self.duplicates: Counter[str] = Counter()

    def all(self) -> Findings:
        checks = (
            self._events,
            self._notifications,
            self._ends,
            self._sent,
            self._duplicates,
            self._obeyed,
            self._attempts,
            self._retry_after,
            self._badges,
            self._digests,
        )
        violations = [violation for check in checks for violation in check()]
        return Findings(violations, self.duplicates)

    # I1

    def _events(self) -> Iterator[Violation]:
        """Yields violations of: each committed event exists once, and no event that was rolled back."""
        for app_event in self._app_events:
            if text := self._fault_of(app_event):
                yield Violation("I1", f"{app_event.action.marker} {text}", _of(app_event))
        for key in self._passages.by_key:
            if key[2] not in self._by_marker and not self._failovers:
                yield Violation("I1", f"{key} was sent, though its event is not there")

    def _fault_of(self, app_event: AppEvent) -> str:
        """Returns the violation of an event, if there is one."""
        event = self._by_marker.get(app_event.action.marker)
        if event is None:
            vanished = app_event.outcome == COMMITTED and not self._may_have_vanished(app_event.at)
            return "committed, and is gone" if vanished else ""
        if app_event.outcome == NOTHING:
            return "never committed, and is there"
        if not event.fanned_out and not event.cancelled:
            return "was not fanned out"
        copies = self._copies[event.marker]
        return f"was stored {copies} times" if copies > 1 else ""

    def _notifications(self) -> Iterator[Violation]:
        """Yields violations of: one notification for each recipient, and a delivery for each channel that is on."""
        recipients: dict[int, Counter[str]] = defaultdict(Counter)
        for notification in self._ledger.notifications:
            recipients[notification.event_id][notification.recipient_id] += 1
        for app_event in self._app_events:
            event = self._by_marker.get(app_event.action.marker)
            if event is None or not event.fanned_out:
                continue
            expected = Counter(person_id(number) for number in app_event.people)
            if recipients[event.event_id] != expected:
                text = f"{event.marker} has notifications for others than its recipients"
                found = dict(recipients[event.event_id])
                yield Violation("I1", text, _of(app_event) | {"found": found})
        mails = Counter(
            each.notification_id for each in self._ledger.deliveries if each.channel == "email"
        )
        for notification in self._ledger.notifications:
            decision, reason = notification.decisions.get("email", ["off", ""])[:2]
            wanted_mails = int(decision == "on" and reason != "digest")
            if mails[notification.notification_id] != wanted_mails:
                text = f"notification {notification.notification_id} has {mails[notification.notification_id]} mails"
                yield Violation("I1", text, {"decisions": notification.decisions})

    def _ends(self) -> Iterator[Violation]:
        for delivery in self._ledger.deliveries:
            if delivery.state not in ENDS:
                text = f"delivery {delivery.delivery_id} is still {delivery.state}"
                yield Violation("I1/I7", text, self._evidence(delivery))

    def _sent(self) -> Iterator[Violation]:
        """Sent deliveries were accepted, and no others (unless the outcome could not be known)."""
        by_burst = self._burst_keys()
        for delivery in self._ledger.deliveries:
            if delivery.key is None:
                continue
            passages = self._passages.by_key.get(delivery.key, [])
            accepted = acceptances(passages)
            if delivery.state == "sent" and not accepted:
                together = by_burst.get(delivery.burst_id or -1, [])
                if not any(acceptances(self._passages.by_key.get(key, [])) for key in together):
                    text = f"delivery {delivery.delivery_id} is called sent, but nobody accepted it"
                    yield Violation("I1 lost", text, self._evidence(delivery))
            known = accepted and not self._unknowns.why(accepted[-1], accepted[-1].at + 60)
            if delivery.state != "sent" and known:
                text = f"delivery {delivery.delivery_id} was accepted, but is {delivery.state}"
                yield Violation("I1", text, self._evidence(delivery))

    def _burst_keys(self) -> dict[int, list[Key]]:
        keys: dict[int, list[Key]] = defaultdict(list)
        for delivery in self._ledger.deliveries:
            if delivery.burst_id is not None and delivery.key is not None:
                keys[delivery.burst_id].append(delivery.key)
        return keys

    # I2

    def _duplicates(self) -> Iterator[Violation]:
        """Yields violations of: one acceptance for each delivery, except for outcomes that could not be known."""
        groups: list[tuple[str, list[Passage], Delivery | None]] = [
            (str(key), passages, self._deliveries.get(key))
            for key, passages in self._passages.by_key.items()
        ]
        groups += [
            (f"digest {name}", found, None) for name, found in self._passages.digests.items()
        ]
        for name, passages, delivery in groups:
            for first, second in pairwise(acceptances(passages)):
                why = self._unknowns.why(first, second.at, second.slot)
                if why is None:
                    text = f"{name} was accepted again after {second.at - first.at:.1f} s"
                    evidence = self._evidence(delivery) if delivery else {}
                    evidence |= {"passages": to_builtins(passages)}
                    yield Violation("I2", text, evidence | self._around(first.at, second.at))
                else:
                    self.duplicates[why] += 1

    # I3

    def _obeyed(self) -> Iterator[Violation]:
        for each in self._revocations:
            if not self._is_stored(each):
                if not self._may_have_vanished(each.at):
                    yield Violation("I3", f"a committed {each.kind} is gone", to_builtins(each))
                continue
            for key in self._stopped_by(each):
                for passage in self._passages.by_key.get(key, []):
                    late = passage.began - each.at
                    if late > CHECK_VALID + SLACK and not self._waited_in_socket(passage):
                        text = f"{key} was begun {late:.2f} s after its {each.kind} had committed"
                        delivery = self._deliveries.get(key)
                        evidence = self._evidence(delivery) if delivery else {}
                        yield Violation("I3", text, evidence | {"revocations": to_builtins(each)})

    def _is_stored(self, each: Revocation) -> bool:
        if each.kind == "opt_out":
            return (person_id(each.person), each.event_type) in self._ledger.opt_outs
        event = self._by_marker.get(each.marker)
        if event is None:  # another event had its number after a failover
            return bool(self._failovers)
        return event.cancelled

    def _stopped_by(self, each: Revocation) -> list[Key]:
        """Returns the deliveries that must not be started any more."""
        if each.kind == "cancel":
            return [key for key in self._passages.by_key if key[2] == each.marker]
        return [
            ("email", address(each.person), app_event.action.marker)
            for app_event in self._app_events
            if app_event.action.event_type == each.event_type
        ]

    def _waited_in_socket(self, passage: Passage) -> bool:
        """Returns whether its bytes were sent before, and waited in a socket of a frozen far end."""
        return any(
            window.kind == "freeze_far_end" and window.began <= passage.began <= window.ended + 2
            for window in self._windows
        )

    # I4, I5

    def _attempts(self) -> Iterator[Violation]:
        for delivery in self._ledger.deliveries:
            cap = delivery.max_attempts
            met = len(self._passages.by_key.get(delivery.key, [])) if delivery.key else 0
            if cap is not None and (delivery.attempts > cap or met > cap):
                text = f"delivery {delivery.delivery_id} had {delivery.attempts} attempts of {cap}, {met} arrived"
                yield Violation("I4", text, self._evidence(delivery))

    def _retry_after(self) -> Iterator[Violation]:
        for key, passages in self._passages.by_key.items():
            delivery = self._deliveries.get(key)
            for first, second in pairwise(passages):
                waited = second.began - first.at
                if first.retry_after and waited < first.retry_after - EARLY:
                    text = f"{key} came again after {waited:.2f} s, asked for {first.retry_after} s"
                    yield Violation("I5", text, self._evidence(delivery) if delivery else {})
                if first.reply in {"554", "410"}:
                    text = f"{key} came again after it was refused for good"
                    if not self._refusal_unknown(first):
                        yield Violation("I5", text, self._evidence(delivery) if delivery else {})

    def _refusal_unknown(self, first: Passage) -> bool:
        return self._unknowns.why(first, first.at) is not None

    # I6, I10

    def _badges(self) -> Iterator[Violation]:
        for recipient, counted, found in self._ledger.counts:
            if counted != found:
                text = (
                    f"the badge of {recipient} is {counted} by unread_count(), {found} by count(*)"
                )
                yield Violation("I6", text)

    def _digests(self) -> Iterator[Violation]:
        for recipient, day, count in self._ledger.digests:
            if count > 1:
                yield Violation("I10", f"{recipient} has {count} digests of {day}")

    # Evidence.

    def _may_have_vanished(self, at: float) -> bool:
        """Returns whether it was committed just before an asynchronous failover; nothing else may be lost."""
        return any(window.began - 1.0 <= at <= window.ended for window in self._failovers)

    def _evidence(self, delivery: Delivery) -> dict[str, Any]:
        passages = self._passages.by_key.get(delivery.key, []) if delivery.key else []
        attempts = self._ledger.attempts.get(delivery.delivery_id, [])
        return {
            "delivery": to_builtins(delivery),
            "attempts": to_builtins(attempts),
            "passages": to_builtins(passages),
        }

    def _around(self, begin: float, end: float) -> dict[str, Any]:
        near = [
            to_builtins(window)
            for window in self._windows
            if window.began <= end + 1 and begin - 5 <= window.ended
        ]
        return {"windows": near}


def _of(app_event: AppEvent) -> dict[str, Any]:
    return {"app_event": to_builtins(app_event)}
