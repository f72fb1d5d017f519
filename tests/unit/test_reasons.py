"""The table of reasons: it has all that the code, SQL and the docs name, and words for people and operators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.reason_tables import PAGE, written
from tocsin.engine.actors.apns_reply import REFUSALS
from tocsin.engine.explain.reasons import (
    DECISIONS,
    DELIVERIES,
    TOPIC_REASONS,
    decision_reason,
    delivery_reason,
    meaning_and_cure,
)
from tocsin.engine.explain.why import provider_reason, undelivered_push
from tocsin.engine.model import DeliveryState
from tocsin.engine.store.notification import DeliveryRecord, DeviceRecord

ROOT = Path(__file__).parent.parent.parent
SQL = "\n".join(
    path.read_text("utf-8")
    for folder in ("functions", "queries")
    for path in sorted((ROOT / "tocsin/sql" / folder).glob("*.sql"))
)
PYTHON = "\n".join(
    path.read_text("utf-8") for path in sorted((ROOT / "tocsin/engine").rglob("*.py"))
)


def test_the_tables_of_the_docs_are_generated() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written(page), "make reasons"


def test_every_row_has_a_meaning_and_a_cure_and_is_not_hidden_by_another() -> None:
    for decision in DECISIONS:
        assert decision_reason(decision.code) is decision
        assert decision.sentence
        assert decision.meaning
        assert decision.cure
    states = {*DeliveryState, "disabled", "suppressed"}  # the latter of a device, an address
    for row in DELIVERIES:
        assert row.meaning
        assert row.cure
        assert row.state in states
        for code in row.codes:
            example = code.replace("…", "_x").replace("yz", "99").replace(".x", ".4")
            assert delivery_reason(example) is row, example


def sql_decisions() -> set[str]:
    """The reasons in `["off", "no_device"]` and `jsonb_build_array('on', 'preference', …)`."""
    return {
        *re.findall(r'\["(?:on|off)", "(\w+)"', SQL),
        *re.findall(r"jsonb_build_array\('(?:on|off)', '(\w+)'", SQL),
    }


def sql_delivery_reasons() -> Iterator[str]:
    """The values of each `case` that is a reason, and of each plain assignment of one."""
    yield from re.findall(r"(?<![.\w])(?:disabled_)?reason = '(\w+)'", SQL)
    open_at: list[int] = []
    for token in re.finditer(r"\b(case|end)\b", SQL):
        if token[0] == "case":
            open_at.append(token.start())
        elif open_at:
            start = open_at.pop()
            before, after = SQL[:start].rstrip()[-10:], SQL[token.end() :].lstrip()
            if before.endswith("reason =") or re.match(
                r"as (withheld|kept|reason)\b|into _unsent", after
            ):
                yield from re.findall(r"\b(?:then|else) '(\w+)'", SQL[start : token.end()])


def test_every_reason_of_sql_is_in_the_table() -> None:
    decisions = sql_decisions()
    assert len(decisions) >= 10
    assert {code for code in decisions if decision_reason(code) is None} == set()
    deliveries = set(sql_delivery_reasons())
    assert len(deliveries) >= 15
    assert {code for code in deliveries if delivery_reason(code) is None} == set()


def test_every_reason_of_the_actors_is_in_the_table() -> None:
    outcomes = r'(?:Unsent|Rejected|Deferred|Unknown|UnsendableError|give_up)\(\s*f?"(\w[^"]*)"'
    codes = {re.sub(r"\{.*?\}", "503", code) for code in re.findall(outcomes, PYTHON)}
    assert len(codes) >= 15
    assert {code for code in codes if delivery_reason(code) is None} == set()


def test_the_table_has_no_reason_that_nothing_writes() -> None:
    codes = {each.code for each in DECISIONS} | set(TOPIC_REASONS)
    codes |= {
        code
        for row in DELIVERIES
        for code in row.codes
        if not re.search(
            "^(apns|fcm|smtp|bounce|web_push|webhook|chat|apprise|slack|discord|teams|telegram)_",
            code,
        )
    }
    assert {code for code in codes if not re.search(rf"""['"]{code}['"]""", SQL + PYTHON)} == set()


def test_every_reason_in_an_example_of_the_openapi_description_is_in_the_table() -> None:
    examples = (ROOT / "tocsin/http/examples.json").read_text("utf-8")
    codes = set(re.findall(r'"reason": "(\w+)"', examples))
    assert codes
    assert {code for code in codes if not (decision_reason(code) or delivery_reason(code))} == set()


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("smtp_535_5.7.8", "login"),
        ("smtp_550_5.1.1", "does not exist"),
        ("smtp_550_5.7.1", "policy"),
        ("smtp_451_4.7.1", "later"),
        ("smtp_timeout_connect", "reached"),
        ("smtp_timeout_body", "broke off"),
        ("apns_InvalidProviderToken", "our key"),
        ("apns_BadDeviceToken_mass_rejection", "Every device"),
        ("smtp_550_5.1.1_mass_rejection", "Every address"),
        ("fcm_503_unavailable", "now"),
        ("fcm_404_unregistered", "gone"),
        ("fcm_404", "our account"),
        ("fcm_token_503", "token_uri"),
        ("webhook_500", "did not accept"),
        ("webhook_401", "secret"),
        ("webhook_connect_refused", "reached"),
    ],
)
def test_what_reasons_mean(reason: str, word: str) -> None:
    assert word in meaning_and_cure(reason)[0]


# A push that was not delivered.

REMOVED = "apns_Unregistered"
BY_APPLE = "Apple reports that the app was removed from it (unregistered)"

WORDS = [
    (REMOVED, BY_APPLE),
    ("apns_ExpiredToken", "Apple reports that its token has expired (expired token)"),
    (
        "apns_BadDeviceToken",
        "Apple does not know its token, which may be one of the other environment (bad device token)",
    ),
    (
        "apns_DeviceTokenNotForTopic",
        "Apple reports that its token is another app's (device token not for topic)",
    ),
    (
        "apns_invalid_token",
        "what was registered for it is no token of Apple's (invalid token)",
    ),
    ("apns_PayloadTooLarge", "it is larger than Apple takes (payload too large)"),
    ("apns_Forbidden", "Apple refuses how it was sent (forbidden)"),
    ("apns_BadPriority", "Apple refuses how it was sent (bad priority)"),
    ("apns_MissingDeviceToken", "Apple refuses how it was sent (missing device token)"),
    (
        "apns_TopicDisallowed",
        "Apple refuses the app's id that this service has (topic disallowed)",
    ),
    ("apns_MissingTopic", "Apple refuses the app's id that this service has (missing topic)"),
    (
        "apns_ExpiredProviderToken",
        "Apple refuses the key of this service (expired provider token)",
    ),
    (
        "apns_InvalidProviderToken",
        "Apple refuses the key of this service (invalid provider token)",
    ),
    (
        "apns_TooManyProviderTokenUpdates",
        "Apple wants no new token of this service yet (too many provider token updates)",
    ),
    ("apns_TooManyRequests", "Apple reports that it got too many (too many requests)"),
    ("apns_InternalServerError", "Apple could not take it (internal server error)"),
    ("apns_ServiceUnavailable", "Apple could not take it (service unavailable)"),
    ("apns_Shutdown", "Apple could not take it (shutdown)"),
    ("apns_IdleTimeout", "Apple closed the connection (idle timeout)"),
    ("apns_503", "Apple could not take it (503)"),
    ("apns_403", "Apple refuses the key of this service (403)"),
    ("apns_410", "Apple did not take it (410)"),
    ("apns_timeout", "Apple did not take it (timeout)"),
    ("apns_SomethingNew", "Apple did not take it (something new)"),
    (
        "apns_BadDeviceToken_mass_rejection",
        "every device was refused just then, so that none is believed to be bad (bad device token mass rejection)",
    ),
    ("fcm_404_unregistered", "Google reports that the app was removed from it (unregistered)"),
    (
        "fcm_403_sender_id_mismatch",
        "Google reports that its token is another project's (sender id mismatch)",
    ),
    (
        "fcm_400_invalid_argument_token",
        "Google does not know its token (invalid argument token)",
    ),
    ("fcm_400_invalid_argument", "Google refuses how it was sent (invalid argument)"),
    ("fcm_413", "Google refuses how it was sent (413)"),
    (
        "fcm_401_third_party_auth_error",
        "Google refuses the account of this service (third party auth error)",
    ),
    ("fcm_403_permission_denied", "Google refuses the account of this service (permission denied)"),
    ("fcm_404", "Google refuses the account of this service (404)"),
    ("fcm_token_refused", "Google refuses the account of this service (token refused)"),
    (
        "fcm_429_quota_exceeded",
        "Google takes no more of this service for the moment (quota exceeded)",
    ),
    (
        "fcm_429_quota_exceeded_device",
        "Google reports that it got too many (quota exceeded device)",
    ),
    ("fcm_500_internal", "Google could not take it (internal)"),
    ("fcm_503_unavailable", "Google could not take it (unavailable)"),
    ("fcm_timeout", "Google did not take it (timeout)"),
    ("stale", "its app has not registered it again for 270 days (stale)"),
    ("payload_too_large", "it is larger than a push may be (payload too large)"),
    ("smtp_550_5.1.1", None),
    ("opted_out_since", None),
    ("", None),
]


@pytest.mark.parametrize(("reason", "words"), WORDS)
def test_a_provider_reason_in_words(reason: str, words: str | None) -> None:
    assert provider_reason(reason) == words


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_documented_reason_of_apple_is_known(reason: str) -> None:
    assert not str(provider_reason(f"apns_{reason}")).startswith("Apple did not")


@pytest.mark.parametrize(
    ("state", "reason", "device", "sentence"),
    [
        (
            "failed",
            REMOVED,
            DeviceRecord("ios", "a1b2c3", REMOVED),
            f"Your iPhone …a1b2c3 was not reached: {BY_APPLE}; it gets no more.",
        ),
        (
            "failed",
            REMOVED,
            DeviceRecord("ios", "a1b2c3", None),  # registered again since
            f"Your iPhone …a1b2c3 was not reached: {BY_APPLE}.",
        ),
        (
            "failed",
            "fcm_404_unregistered",
            None,
            "Your device was not reached: Google reports that the app was removed from it (unregistered).",
        ),
        (
            "failed",
            "payload_too_large",
            DeviceRecord("android", None, None),
            "Your Android phone was not reached: it is larger than a push may be (payload too large).",
        ),
        (
            "deferred",
            "apns_503",
            DeviceRecord("ios", "a1b2c3", None),
            "Your iPhone …a1b2c3 was not reached yet: Apple could not take it (503); it is tried again.",
        ),
        (
            "skipped",
            "no_device",
            DeviceRecord("android", "f00baa", "stale"),
            "Your Android phone …f00baa gets no more: its app has not registered it again for 270 days (stale).",
        ),
        ("skipped", "no_device", None, None),
        ("skipped", "device_moved", None, None),
        ("sent", None, DeviceRecord("ios", "a1b2c3", REMOVED), None),
        ("failed", "attempts_exhausted", DeviceRecord("ios", "a1b2c3", None), None),
    ],
)
def test_a_push_that_did_not_arrive_has_a_sentence_with_phone_and_reason(
    state: str, reason: str | None, device: DeviceRecord | None, sentence: str | None
) -> None:
    assert (
        undelivered_push(DeliveryRecord("push", state, reason, None, [], device=device)) == sentence
    )
