"""What each response of FCM means, as a table; and how responses are read."""

from __future__ import annotations

import msgspec
import pytest

from tocsin.engine.actors.fcm import classify, invalid_fields, read, unreadable
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown
from tocsin.testing import fcm
from tocsin.testing.far_end import Reply


def later(reason: str, wait: float, *, pause: float | None = None) -> SendResult:
    return SendResult(Deferred(reason, wait), pause=pause)


def down(reason: str, wait: float = 10.0, *, pause: float | None = None) -> SendResult:
    return SendResult(Deferred(reason, wait), provider_failed=True, pause=pause)


def rejected(reason: str, *, dead: bool = False, quarantine: bool = False) -> SendResult:
    return SendResult(Rejected(reason, address_dead=dead, quarantine=quarantine))


BAD = "INVALID_ARGUMENT"
OTHER_APP = rejected("fcm_400_invalid_argument_token", quarantine=True)
OUR_REQUEST = rejected("fcm_400_invalid_argument")
NOT_VALID = "The registration token is not a valid FCM registration token"

TABLE = [
    (
        200,
        None,
        ("projects/p/messages/0:1%a",),
        None,
        SendResult(Sent("projects/p/messages/0:1%a")),
    ),
    (200, None, ("something else",), None, SendResult(Sent(None))),
    # A token dies by UNREGISTERED alone.
    (404, "UNREGISTERED", (), None, rejected("fcm_404_unregistered", dead=True)),
    (404, "NOT_FOUND", ("Requested entity was not found.",), None, down("fcm_404_not_found")),
    (404, None, (), None, down("fcm_404")),
    # Another sender's.
    (403, "SENDER_ID_MISMATCH", (), None, rejected("fcm_403_sender_id_mismatch", quarantine=True)),
    # Our request: the token's fault, or the payload's.
    (400, BAD, (NOT_VALID,), None, OTHER_APP),
    (400, BAD, ("message.token", "Invalid value"), None, OTHER_APP),
    (400, BAD, ("BadDeviceToken", "APNs refused it."), None, OTHER_APP),
    (400, BAD, ("DeviceTokenNotForTopic",), None, OTHER_APP),
    (400, BAD, ("message.android.ttl",), None, OUR_REQUEST),
    (400, BAD, ("message.android.ttl", "message.token"), None, OUR_REQUEST),
    (400, BAD, ("message.data[0].value", NOT_VALID), None, OUR_REQUEST),
    (400, BAD, ("Message too big",), None, OUR_REQUEST),
    (400, BAD, (), None, OUR_REQUEST),
    (400, None, (), None, rejected("fcm_400")),
    (413, None, (), None, rejected("fcm_413")),
    # Our credentials and configuration: no token is touched.
    (401, "UNAUTHENTICATED", (), None, down("fcm_401_unauthenticated")),
    (401, "THIRD_PARTY_AUTH_ERROR", (), None, down("fcm_401_third_party_auth_error")),
    (403, "PERMISSION_DENIED", (), None, down("fcm_403_permission_denied")),
    (403, None, (), None, down("fcm_403")),
    (302, None, (), None, down("fcm_302")),
    (405, None, (), None, down("fcm_405")),
    # Slow down: all of us, or one device.
    (429, "QUOTA_EXCEEDED", (), None, later("fcm_429_quota_exceeded", 60, pause=60)),
    (429, "QUOTA_EXCEEDED", (), 120, later("fcm_429_quota_exceeded", 120, pause=120)),
    (429, "QUOTA_EXCEEDED", (), 0, later("fcm_429_quota_exceeded", 10, pause=10)),
    (429, "RESOURCE_EXHAUSTED", (), 3, later("fcm_429_resource_exhausted", 10, pause=10)),
    (429, None, (), None, later("fcm_429", 60, pause=60)),
    (
        429,
        "QUOTA_EXCEEDED",
        ("Device message rate exceeded",),
        None,
        later("fcm_429_quota_exceeded_device", 60),
    ),
    # Failures of theirs.
    (500, "INTERNAL", (), None, down("fcm_500_internal")),
    (502, None, (), None, down("fcm_502")),
    (503, "UNAVAILABLE", (), None, down("fcm_503_unavailable")),
    (503, "UNAVAILABLE", (), 30, down("fcm_503_unavailable", 30, pause=30)),
    (503, "UNAVAILABLE", (), 1, down("fcm_503_unavailable", 10, pause=10)),
]


def test_responses_are_classified() -> None:
    wrong = [
        (status, code, details, wait, found)
        for status, code, details, wait, expected in TABLE
        if (found := classify(status, code, details, wait)) != expected
    ]
    assert not wrong


def test_no_status_is_without_a_meaning_and_none_alone_touches_a_token() -> None:
    for status in range(300, 600):
        outcome = classify(status, None, (), None).outcome
        assert isinstance(outcome, Deferred | Rejected), status
        assert outcome.reason == f"fcm_{status}"
        assert not getattr(outcome, "address_dead", False), status
        assert not getattr(outcome, "quarantine", False), status


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (fcm.INVALID_TOKEN, "fcm_400_invalid_argument_token"),
        (fcm.INVALID_TOKEN_FIELD, "fcm_400_invalid_argument_token"),
        (fcm.INVALID_PAYLOAD, "fcm_400_invalid_argument"),
        (fcm.TOO_BIG, "fcm_400_invalid_argument"),
        (fcm.THIRD_PARTY_AUTH_ERROR, "fcm_401_third_party_auth_error"),
        (fcm.UNAUTHENTICATED, "fcm_401_unauthenticated"),
        (fcm.PERMISSION_DENIED, "fcm_403_permission_denied"),
        (fcm.SENDER_ID_MISMATCH, "fcm_403_sender_id_mismatch"),
        (fcm.UNREGISTERED, "fcm_404_unregistered"),
        (fcm.quota_exceeded(), "fcm_429_quota_exceeded"),
        (fcm.DEVICE_QUOTA_EXCEEDED, "fcm_429_quota_exceeded_device"),
        (fcm.INTERNAL, "fcm_500_internal"),
        (fcm.unavailable(), "fcm_503_unavailable"),
        (
            fcm.apns_error(400, "BadDeviceToken", code=BAD, name=BAD),
            "fcm_400_invalid_argument_token",
        ),
    ],
)
def test_errors_as_fcm_sends_them(reply: Reply, reason: str) -> None:
    found = read(reply.body.encode())
    assert found is not None
    outcome = classify(reply.status, *found, None).outcome
    assert isinstance(outcome, Deferred | Rejected)
    assert outcome.reason == reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"error": "x"}',
        b'{"error": []}',
        b'{"name": 1}',
        b"[" * 10_000,
    ],
)
def test_what_is_not_fcms_is_not_read(body: bytes) -> None:
    assert read(body) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {}}', None),
        (b'{"error": {"status": "lower case"}}', None),
        (b'{"error": {"status": "NOT_FOUND", "details": 7}}', "NOT_FOUND"),
        (b'{"error": {"status": "A_B", "details": ["x", {"errorCode": 7}]}}', "A_B"),
        (b'{"error": {"details": [{"fieldViolations": [7, {"field": 7}]}]}}', None),
        (b'{"error": {"status": "' + b"A" * 100 + b'"}}', None),
    ],
)
def test_odd_errors_are_read_as_far_as_they_go(body: bytes, code: str | None) -> None:
    found = read(body)
    assert found is not None
    assert found[0] == code


def test_only_names_of_fields_are_fit_for_a_log() -> None:
    messages = ("message.token", "Invalid token: abc", "message.data[0].value", "message token abc")
    assert invalid_fields(messages) == ["message.token", "message.data[0].value"]


@pytest.mark.parametrize(
    ("error", "details"),
    [
        ({"status": "NOT_FOUND"}, ("",)),
        (
            {
                "message": "Invalid",
                "details": [
                    {"fieldViolations": [{"field": "message.token", "description": "Odd"}]}
                ],
            },
            ("message.token", "Odd", "Invalid"),
        ),
        (
            {
                "message": "Too many",
                "details": [
                    {
                        "reason": "RATE",
                        "violations": [{"subject": "project:7", "description": "Device rate"}],
                    }
                ],
            },
            ("RATE", "project:7", "Device rate", "Too many"),
        ),
        ({"message": "m" * 600, "details": [{"reason": "r" * 600}]}, ("r" * 500, "m" * 500)),
    ],
)
def test_the_texts_of_an_error_are_its_details(
    error: dict[str, object], details: tuple[str, ...]
) -> None:
    found = read(msgspec.json.encode({"error": error}))
    assert found is not None
    assert found[1] == details


def test_a_2xx_that_is_not_from_fcm_leaves_the_outcome_unknown() -> None:
    assert unreadable(200) == SendResult(
        Unknown("fcm_200_unreadable"), provider_failed=True, keep_connection=False
    )
