"""What each response of APNs means, as a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tocsin.engine.actors.apns_reply import (
    DEVICE_PAUSE,
    REFUSALS,
    SERVER_PAUSE,
    ApnsResponse,
    NoResponse,
    classify,
    classify_no_response,
    read,
)
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown

WHEN = datetime(2026, 11, 1, 12, tzinfo=UTC)

SENT = SendResult(Sent("the-id"))
DEAD = {
    reason: SendResult(Rejected(f"apns_{reason}", address_dead=True, dead_since=WHEN))
    for reason in ("Unregistered", "ExpiredToken")
}
CONTEXT = {
    reason: SendResult(Rejected(f"apns_{reason}", quarantine=True))
    for reason in ("BadDeviceToken", "DeviceTokenNotForTopic")
}
REQUEST = {
    reason: SendResult(Rejected(f"apns_{reason}"))
    for reason in [
        "BadCollapseId",
        "BadExpirationDate",
        "BadMessageId",
        "BadPath",
        "BadPriority",
        "DuplicateHeaders",
        "Forbidden",
        "InvalidPushType",
        "MethodNotAllowed",
        "MissingDeviceToken",
        "PayloadEmpty",
        "PayloadTooLarge",
    ]
}
SETTING = {
    reason: SendResult(Rejected(f"apns_{reason}"), provider_failed=True)
    for reason in ("BadTopic", "MissingTopic", "TopicDisallowed")
}
CREDENTIALS = {
    reason: SendResult(Deferred(f"apns_{reason}"), provider_failed=True, keep_connection=False)
    for reason in [
        "BadCertificate",
        "BadCertificateEnvironment",
        "BadEnvironmentKeyIdInToken",
        "ExpiredProviderToken",
        "InvalidProviderToken",
        "MissingProviderToken",
        "TooManyProviderTokenUpdates",
        "UnrelatedKeyIdInToken",
    ]
}
SLOW_DOWN = {"TooManyRequests": SendResult(Deferred("apns_TooManyRequests", DEVICE_PAUSE))}
CONNECTION = {"IdleTimeout": SendResult(Deferred("apns_IdleTimeout"), keep_connection=False)}
SERVER = {
    reason: SendResult(Deferred(f"apns_{reason}", SERVER_PAUSE), provider_failed=True)
    for reason in ("InternalServerError", "ServiceUnavailable", "Shutdown")
}
REASONS = DEAD | CONTEXT | REQUEST | SETTING | CREDENTIALS | SLOW_DOWN | CONNECTION | SERVER
STATUSES = {
    "Unregistered": 410,
    "ExpiredToken": 410,
    "TooManyRequests": 429,
    "TooManyProviderTokenUpdates": 429,
    "PayloadTooLarge": 413,
    "MethodNotAllowed": 405,
    "BadPath": 404,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
} | dict.fromkeys(("Forbidden", *CREDENTIALS), 403)


def test_the_table_is_complete() -> None:
    assert REASONS.keys() == REFUSALS.keys()


def test_each_reason_has_its_meaning() -> None:
    found = {reason: classify(STATUSES.get(reason, 400), reason, WHEN) for reason in REFUSALS}
    assert found == REASONS


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, SENT),
        (400, SendResult(Rejected("apns_400"))),
        (403, SendResult(Deferred("apns_403"), provider_failed=True, keep_connection=False)),
        (404, SendResult(Rejected("apns_404"))),
        (405, SendResult(Rejected("apns_405"))),
        (410, SendResult(Deferred("apns_410"), provider_failed=True, keep_connection=False)),
        (413, SendResult(Rejected("apns_413"))),
        (429, SendResult(Deferred("apns_429", DEVICE_PAUSE))),
        (500, SendResult(Deferred("apns_500", SERVER_PAUSE), provider_failed=True)),
        (502, SendResult(Deferred("apns_502", SERVER_PAUSE), provider_failed=True)),
        (599, SendResult(Deferred("apns_599", SERVER_PAUSE), provider_failed=True)),
        (600, SendResult(Deferred("apns_600"), provider_failed=True, keep_connection=False)),
        (0, SendResult(Deferred("apns_0"), provider_failed=True, keep_connection=False)),
        (302, SendResult(Deferred("apns_302"), provider_failed=True, keep_connection=False)),
        (407, SendResult(Deferred("apns_407"), provider_failed=True, keep_connection=False)),
    ],
)
def test_a_status_alone(status: int, result: SendResult) -> None:
    assert classify(status, "", apns_id="the-id") == result


def test_a_reason_that_is_new_counts_by_its_status() -> None:
    assert classify(403, "BadMood").outcome == Deferred("apns_BadMood")
    assert classify(400, "BadMood").outcome == Rejected("apns_BadMood")
    assert classify(410, "BadMood").outcome == Deferred("apns_BadMood")


@pytest.mark.parametrize(
    ("status", "reason", "given", "pause"),
    [
        (429, "TooManyRequests", 600.0, 600.0),
        (429, "TooManyRequests", 5.0, DEVICE_PAUSE),
        (503, "Shutdown", 5.0, SERVER_PAUSE),
        (503, "Shutdown", 3600.0, 3600.0),
        (403, "InvalidProviderToken", 30.0, 30.0),
        (400, "IdleTimeout", 30.0, 30.0),
    ],
)
def test_retry_after_lengthens_a_pause_and_never_shortens_it(
    status: int, reason: str, given: float, pause: float
) -> None:
    outcome = classify(status, reason, retry_after=given).outcome
    assert outcome == Deferred(f"apns_{reason}", pause)


def test_no_token_is_touched_without_the_word_of_apple() -> None:
    touching = {
        reason
        for reason, result in REASONS.items()
        if isinstance(result.outcome, Rejected)
        and (result.outcome.address_dead or result.outcome.quarantine)
    }
    assert touching == {*DEAD, *CONTEXT}


def test_a_lost_response_is_unknown_unless_the_request_was_never_processed() -> None:
    assert classify_no_response(NoResponse("timeout")) == SendResult(
        Unknown("apns_timeout"), provider_failed=True, keep_connection=False
    )
    assert classify_no_response(NoResponse("goaway", unprocessed=True)).outcome == Deferred(
        "apns_goaway"
    )


@pytest.mark.parametrize(
    ("headers", "body", "reply"),
    [
        ({b":status": b"200"}, b"", ApnsResponse(200)),
        (
            {b":status": b"410"},
            b'{"reason":"Unregistered","timestamp":1793534400000}',
            ApnsResponse(410, "Unregistered", WHEN),
        ),
        (
            {b":status": b"410"},
            b'{"reason":"Unregistered","timestamp":"soon"}',
            ApnsResponse(410, "Unregistered"),
        ),
        (
            {b":status": b"410"},
            b'{"reason":"Unregistered","timestamp":1e300}',
            ApnsResponse(410, "Unregistered"),
        ),
        ({b":status": b"503", b"retry-after": b"30"}, b"", ApnsResponse(503, retry_after=30.0)),
        ({b":status": b"503", b"retry-after": b"Sun, 01 Nov"}, b"", ApnsResponse(503)),
        (
            {b":status": b"503", b"retry-after": b"9" * 30},
            b"",
            ApnsResponse(503, retry_after=86_400.0),
        ),
        ({b":status": b"400"}, b'{"reason":"no words\\n"}', ApnsResponse(400)),
        ({b":status": b"xyz"}, b"", ApnsResponse(0)),
        ({}, b"", ApnsResponse(0)),
        ({b":status": b"400"}, b"\xff", ApnsResponse(400)),
        ({b":status": b"400"}, b'"BadTopic"', ApnsResponse(400)),
    ],
)
def test_responses_are_parsed(
    headers: dict[bytes, bytes], body: bytes, reply: ApnsResponse
) -> None:
    assert read(headers, body) == reply
