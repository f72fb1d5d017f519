"""Raw reports of mail servers: what they state, and by which the mail is found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import reports
from tests.support.reports import TAG
from tocsin.engine.mail.links import find_tagged_delivery, make_tag
from tocsin.engine.mail.returned import find_status, read_report, to_mail_events

KEY = b"k" * 32
GENUINE = make_tag(KEY, 4711)

BOUNCES = {
    "Postfix": (reports.POSTFIX, "5.1.1", True),
    "Exchange": (reports.EXCHANGE, "5.1.10", True),
    "Gmail": (reports.GMAIL, "5.1.1", True),
    "Exim": (reports.EXIM, "5.1.1", True),
    "an old Exim": (reports.OLD_EXIM, "5.1.1", True),
    "qmail": (reports.QMAIL, "5.1.1", True),
    "a full mailbox": (reports.FULL, "5.2.2", False),
    "a policy": (reports.POLICY, "5.7.1", False),
    "a server that was away": (reports.GIVEN_UP, "4.4.1", False),
}


@pytest.mark.parametrize(("raw", "status", "dead"), BOUNCES.values(), ids=BOUNCES)
def test_a_bounce_is_tied_to_its_delivery_by_the_genuine_tag_alone(
    raw: str, status: str, dead: bool
) -> None:
    report = read_report(reports.with_tag(raw, GENUINE))
    assert report is not None
    (event,) = to_mail_events([report], KEY)
    assert (event.kind, event.reason, event.dead) == ("bounce", f"bounce_{status}", dead)
    assert event.delivery_id == 4711
    assert event.occurred_at == datetime(2026, 11, 30, 9, 2, tzinfo=UTC)
    forged = read_report(reports.with_tag(raw, TAG))
    assert forged is not None
    (event,) = to_mail_events([forged], KEY)
    assert event.delivery_id is None


def test_a_complaint_is_known_by_its_type() -> None:
    report = read_report(reports.with_tag(reports.COMPLAINT, GENUINE))
    assert report is not None
    (event,) = to_mail_events([report], KEY)
    assert (event.kind, event.reason, event.dead, event.delivery_id) == (
        "complaint",
        "complaint",
        True,
        4711,
    )


@pytest.mark.parametrize(
    "raw",
    [
        reports.DELAYED,
        reports.DELIVERED,
        reports.NOT_SPAM,
        reports.VACATION,
        "",
        "no headers at all",
        "Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\n",
    ],
)
def test_what_is_no_bounce_and_no_complaint_is_no_report(raw: str) -> None:
    assert read_report(reports.with_tag(raw, GENUINE)) is None


def test_a_return_path_with_the_tag_is_enough() -> None:
    tagged = f"bounces+{GENUINE}@example.com"
    raw = reports.report(
        notice="", fields="Action: failed\nStatus: 5.1.1", original=reports.NOTHING
    )
    for header in ("To", "Delivered-To", "X-Original-To"):
        addressed = raw.replace("To: notifications@example.com", f"{header}: {tagged.upper()}")
        report = read_report(addressed.encode())
        assert report is not None
        assert to_mail_events([report], KEY)[0].delivery_id == 4711


def test_a_report_on_an_internationalised_address_is_read() -> None:
    raw = reports.POSTFIX.replace("message/delivery-status", "message/global-delivery-status")
    report = read_report(reports.with_tag(raw, GENUINE))
    assert report is not None
    assert report.status == "5.1.1"


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        (("smtp; 550 5.1.1 unknown",), "5.1.1"),
        (("550-5.1.1 a", "5.0.0"), "5.1.1"),
        (("5.0.0", "smtp; 550 5.7.1 no"), "5.7.1"),
        (("5.0.0", None), "5.0.0"),
        (("from 192.5.1.1 and 5.1.1.7",), None),
        (("(#5.1.2)",), "5.1.2"),
        (("2.1.5 fine", "1234"), None),
    ],
)
def test_the_status_code_is_found_in_words(
    texts: tuple[str | None, ...], status: str | None
) -> None:
    assert find_status(*texts) == status


def test_only_a_genuine_tag_is_found() -> None:
    wrong = f"4712{GENUINE[4:]}"
    assert find_tagged_delivery(KEY, f"<delivery-{GENUINE}@x>") == 4711
    assert find_tagged_delivery(KEY, f"{TAG} {wrong} 4711.{'0' * 12} then {GENUINE}") == 4711
    for text in ("", TAG, wrong, GENUINE[:-1], f"{GENUINE}0", f"1{GENUINE}", "9" * 19 + ".0" * 12):
        assert find_tagged_delivery(KEY, text) is None
    assert find_tagged_delivery(b"x" * 32, GENUINE) is None
    assert find_tagged_delivery(KEY, f"{TAG} " * 50 + GENUINE) is None  # bounded


@given(st.binary(max_size=500), st.sampled_from([each[0] for each in BOUNCES.values()]))
def test_hostile_messages_are_read_or_are_none(noise: bytes, raw: str) -> None:
    whole = reports.with_tag(raw, GENUINE)
    at = len(noise) * 7 % len(whole)
    read_report(whole[:at] + noise + whole[at:])


def test_a_returned_mail_that_is_large_does_not_hide_its_report() -> None:
    large = reports.ORIGINAL.replace("Hello Alice", "Hello Alice\n" * 80_000)
    for raw, status in ((reports.POSTFIX, "5.1.1"), (reports.QMAIL, "5.1.1")):
        report = read_report(reports.with_tag(raw.replace(reports.ORIGINAL, large), GENUINE))
        assert report is not None
        assert report.status == status
        assert to_mail_events([report], KEY)[0].delivery_id == 4711


def test_a_message_of_thousands_of_parts_is_no_report() -> None:
    part = "--=b\nContent-Type: text/plain\n\nx\n"
    raw = reports.POSTFIX.replace(
        "--=b\nContent-Type: message", f"{part * 5000}--=b\nContent-Type: message", 1
    )
    assert read_report(reports.with_tag(raw, GENUINE)) is None


def test_a_message_nested_a_thousand_times_is_no_report() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=a\n\n--a\n" * 1000
    assert read_report(raw) is None
    assert read_report(b"Content-Type: message/rfc822\n\n" * 2000) is None
