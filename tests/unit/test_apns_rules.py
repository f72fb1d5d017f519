"""The local APNs server replies to each error as Apple documents."""

from __future__ import annotations

from uuid import uuid4

import jwt
import pytest

from tocsin.testing.apns import ApnsReply, Key, Rules

KEY = Key.new()
NOW = 1_800_000_000


def token(key: Key = KEY, issued_at: int = NOW, **changes: str) -> str:
    claims = {"iss": changes.get("iss", key.team_id), "iat": issued_at}
    return jwt.encode(claims, key.private, "ES256", headers={"kid": changes.get("kid", key.key_id)})


def rules() -> Rules:
    return Rules(KEY, topics=frozenset({"app"}), clock=lambda: NOW)


def judge(body: bytes = b'{"aps":{}}', **changes: str | None) -> ApnsReply:
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":path": "/3/device/aabbccdd",
        "authorization": f"bearer {token()}",
        "apns-topic": "app",
        "apns-push-type": "alert",
        "apns-id": str(uuid4()),
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return rules().judge(
        {name: value for name, value in headers.items() if value is not None}, body
    )


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, 200, ""),
        ({":method": "GET"}, 405, "MethodNotAllowed"),
        ({":path": "/2/device/aa"}, 404, "BadPath"),
        ({":path": "/3/device/"}, 400, "MissingDeviceToken"),
        ({":path": "/3/device/nothex!!"}, 400, "BadDeviceToken"),
        ({"authorization": None}, 403, "MissingProviderToken"),
        ({"authorization": "bearer x.y.z"}, 403, "InvalidProviderToken"),
        ({"authorization": f"bearer {token(Key.new())}"}, 403, "InvalidProviderToken"),
        ({"authorization": f"bearer {token(kid='OTHER')}"}, 403, "InvalidProviderToken"),
        ({"authorization": f"bearer {token(iss='OTHER')}"}, 403, "InvalidProviderToken"),
        ({"authorization": f"bearer {token(issued_at=NOW + 900)}"}, 403, "InvalidProviderToken"),
        ({"authorization": f"bearer {token(issued_at=NOW - 3601)}"}, 403, "ExpiredProviderToken"),
        ({"apns-topic": None}, 400, "MissingTopic"),
        ({"apns-topic": "other"}, 400, "TopicDisallowed"),
        ({"apns-push-type": None}, 400, "InvalidPushType"),
        ({"apns-push-type": "shout"}, 400, "InvalidPushType"),
        ({"apns-id": None}, 200, ""),
        ({"apns-id": "7"}, 400, "BadMessageId"),
        ({"apns-expiration": "soon"}, 400, "BadExpirationDate"),
        ({"apns-expiration": "0"}, 200, ""),
        ({"apns-priority": "7"}, 400, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "10"}, 400, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "5"}, 200, ""),
        ({"apns-collapse-id": "x" * 64}, 200, ""),
        ({"apns-collapse-id": "é" * 33}, 400, "BadCollapseId"),
    ],
)
def test_headers(changes: dict[str, str | None], status: int, reason: str) -> None:
    assert judge(**changes) == ApnsReply(status, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "PayloadEmpty"),
        (b"{}", 400, "PayloadEmpty"),
        (b"no json", 400, "PayloadEmpty"),
        (b'{"a":"%s"}' % (b"x" * 4088), 200, ""),
        (b'{"a":"%s"}' % (b"x" * 4089), 413, "PayloadTooLarge"),
    ],
)
def test_payloads(body: bytes, status: int, reason: str) -> None:
    assert judge(body) == ApnsReply(status, reason)


def test_a_token_that_changes_too_soon() -> None:
    now = float(NOW)
    judging = Rules(KEY, topics=frozenset({"app"}), min_refresh=1200, clock=lambda: now)

    def reason(issued_at: int) -> str:
        headers = {
            ":method": "POST",
            ":path": "/3/device/aabbccdd",
            "authorization": f"bearer {token(issued_at=issued_at)}",
            "apns-topic": "app",
            "apns-push-type": "alert",
        }
        return judging.judge(headers, b'{"aps":{}}').reason

    assert reason(NOW) == ""
    now += 1199
    assert reason(NOW + 1199) == "TooManyProviderTokenUpdates"
    now += 1
    assert reason(NOW + 1200) == ""
