"""Mail that comes back, as providers report it: each proof, each form, and what is forged."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import KEY, METRICS_TOKEN, URL, Db, bearer, transport_to
from tests.support.ledger import deliver
from tests.support.sns import HOST, Sns, sns
from tocsin.engine.badge.hub import BadgeHub
from tocsin.engine.mail.links import make_tag
from tocsin.engine.store.database import Database
from tocsin.http.app import create_app
from tocsin.settings import Settings

SECRET_OF_POSTMARK = "a secret of sixteen and more"
KEY_OF_MAILGUN = "key-0123456789abcdef"
KEY_OF_SENDGRID = ec.generate_private_key(ec.SECP256R1())
TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"

Effects = list[tuple[str, str, bool, int | None]]


@pytest.fixture(scope="module")
def far_end() -> Iterator[Sns]:
    with sns() as running:
        yield running


@pytest.fixture
async def provider(
    database: Database, settings: Settings, far_end: Sns, people: None
) -> AsyncIterator[httpx.AsyncClient]:
    """A provider, without a key; all of them are configured."""
    far_end.requests.clear()
    far_end.valid_for = timedelta(days=1)
    public = KEY_OF_SENDGRID.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    configured = structs.replace(
        settings,
        ses_topics=(TOPIC,),
        # a path of its own for each test, since a verifier keeps certificates
        sns_url=f"{far_end.url}",
        ca_file=far_end.ca_file,
        postmark_secret=SECRET_OF_POSTMARK,
        mailgun_signing_key=KEY_OF_MAILGUN,
        sendgrid_public_key=base64.b64encode(public).decode(),
    )
    app = create_app(configured, database, BadgeHub(database), link_key=KEY)
    async with httpx.AsyncClient(transport=transport_to(app), base_url=URL) as client:
        yield client
    await app.state.offload.stop()


@pytest.fixture
def mailed(db: Db) -> int:
    """A mail to Alice that was sent; its provider gave it an id."""
    (delivery_id,) = deliver(db, "sent")
    db.execute("update tocsin.delivery set provider_id = '0102-aa'")
    return delivery_id


def tag(delivery_id: int) -> str:
    return make_tag(KEY, delivery_id)


def message_id(delivery_id: int) -> str:
    return f"<delivery-{tag(delivery_id)}@notify.test>"


def stored(db: Db) -> Effects:
    return db.execute(
        "select kind, reason, dead, delivery_id from tocsin.mail_event order by mail_event_id"
    ).fetchall()


async def post(client: httpx.AsyncClient, name: str, body: bytes, **named: Any) -> httpx.Response:
    kind = "text/plain; charset=UTF-8" if name == "ses" else "application/json"
    headers = {"Content-Type": kind, **named.pop("headers", {})}
    return await client.post(f"/api/mail-events/{name}/", content=body, headers=headers, **named)


async def recorded(client: httpx.AsyncClient, name: str, body: bytes, **named: Any) -> int:
    response = await post(client, name, body, **named)
    assert response.status_code == 200, response.text
    return int(response.json()["recorded"])


# Amazon SES


def ses_bounce(delivery_id: int, *, headers: bool = True, **named: Any) -> dict[str, Any]:
    """Returns the example of SES's documents, about one of our mails."""
    bounced = {
        "emailAddress": "alice@example.com",
        "action": "failed",
        "status": "5.1.1",
        "diagnosticCode": "smtp; 550 5.1.1 user unknown",
    }
    sent = [{"name": "X-Tocsin-Delivery", "value": tag(delivery_id)}] if headers else []
    return {
        "notificationType": "Bounce",
        "bounce": {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "bouncedRecipients": [bounced],
            "timestamp": "2026-11-30T09:02:00.000Z",
            "feedbackId": "0102-feedback",
            "remoteMtaIp": "192.0.2.1",
            **named,
        },
        "mail": {
            "timestamp": "2026-11-30T09:00:00.000Z",
            "messageId": "0102-aa",
            "destination": ["alice@example.com"],
            "headersTruncated": False,
            "headers": [
                {"name": "Message-ID", "value": "<0102-aa@eu-west-1.amazonses.com>"},
                *sent,
            ],
        },
    }


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("headers", [True, False], ids=["with headers", "by the provider's id"])
async def test_a_bounce_of_ses_is_tied_to_its_mail(
    provider: httpx.AsyncClient, far_end: Sns, db: Db, mailed: int, version: str, headers: bool
) -> None:
    body = far_end.message(ses_bounce(mailed, headers=headers), version=version)
    assert await recorded(provider, "ses", body) == 1
    assert await recorded(provider, "ses", body) == 0
    assert stored(db) == [("bounce", "bounce_5.1.1", True, mailed)]
    metrics = await provider.get("/metrics/", headers=bearer(METRICS_TOKEN))
    assert 'tocsin_mail_events_total{kind="bounce",source="ses"} 1.0' in metrics.text
    assert far_end.requests.count("/SimpleNotificationService-0a1b2c.pem") <= 1  # it is kept


@pytest.mark.parametrize(
    ("named", "reason", "dead"),
    [
        ({"bounceType": "Transient", "bouncedRecipients": [{"status": "5.1.1"}]}, "bounce", False),
        ({"bounceSubType": "NoEmail", "bouncedRecipients": []}, "bounce_5.1.1", True),
        (
            {"bounceType": "Transient", "bounceSubType": "MailboxFull", "bouncedRecipients": []},
            "bounce_4.2.2",
            False,
        ),
        ({"bounceType": "Undetermined", "bouncedRecipients": []}, "bounce", False),
    ],
)
async def test_the_kinds_of_bounces_of_ses(
    provider: httpx.AsyncClient,
    far_end: Sns,
    db: Db,
    mailed: int,
    named: dict[str, Any],
    reason: str,
    dead: bool,
) -> None:
    assert await recorded(provider, "ses", far_end.message(ses_bounce(mailed, **named))) == 1
    assert stored(db) == [("bounce", reason, dead, mailed)]


async def test_a_complaint_of_ses_by_a_configuration_set(
    provider: httpx.AsyncClient, far_end: Sns, db: Db, mailed: int
) -> None:
    content = ses_bounce(mailed)
    del content["bounce"], content["notificationType"]
    content["eventType"] = "Complaint"
    content["complaint"] = {
        "complainedRecipients": [{"emailAddress": "alice@example.com"}],
        "complaintFeedbackType": "abuse",
        "feedbackId": "f2",
    }
    assert await recorded(provider, "ses", far_end.message(content)) == 1
    content["complaint"] |= {"complaintFeedbackType": "not-spam", "feedbackId": "f3"}
    assert await recorded(provider, "ses", far_end.message(content)) == 0
    content["complaint"] = None
    content["delivery"] = {"smtpResponse": "250 ok"}
    assert await recorded(provider, "ses", far_end.message(content)) == 0
    assert await recorded(provider, "ses", far_end.message("Successfully validated SNS topic")) == 0
    assert stored(db) == [("complaint", "complaint", True, mailed)]


async def test_a_subscription_is_confirmed_for_an_allowed_topic_only(
    provider: httpx.AsyncClient, far_end: Sns
) -> None:
    foreign = far_end.subscription(TopicArn=TOPIC.replace("bounces", "others"))
    response = await post(provider, "ses", foreign)
    assert (response.status_code, "TOCSIN_SES_TOPICS" in response.text) == (403, True)
    for url in (
        "https://evil.test/?Action=ConfirmSubscription",
        "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.eu-west-1.amazonaws.com@evil.test/?Action=ConfirmSubscription",
        "https://sns.eu-west-1.amazonaws.com/elsewhere",
    ):
        assert (
            await post(provider, "ses", far_end.subscription(SubscribeURL=url))
        ).status_code == 401
    assert [each for each in far_end.requests if "Action" in each] == []
    assert await recorded(provider, "ses", far_end.subscription()) == 0
    assert [each for each in far_end.requests if "Action" in each] == [
        "/?Action=ConfirmSubscription&Token=t"
    ]


async def test_what_sns_has_not_signed_is_refused_and_nothing_is_stored(
    provider: httpx.AsyncClient, far_end: Sns, db: Db, mailed: int
) -> None:
    good = json.loads(far_end.message(ses_bounce(mailed)))
    other = json.dumps(ses_bounce(mailed + 1))
    certificate = good["SigningCertURL"]
    forged: list[dict[str, Any]] = [
        {"Message": other},
        {"MessageId": "another"},
        {"Timestamp": "2026-11-30T09:03:00.000Z"},
        {"Subject": "another"},
        {"Signature": "AAAA"},
        {"Signature": "no base64"},
        {"SignatureVersion": "3"},
        {"SignatureVersion": "1"},
        {"Type": "Other"},
        *(
            {"SigningCertURL": url}
            for url in (
                certificate.replace("amazonaws.com", "amazonaws.com.evil.test"),
                certificate.replace("https", "http"),
                certificate.replace("eu-west-1", "us-east-1"),
                certificate.replace(".pem", ".pem/../x"),
                certificate.replace("0a1b2c", "unknown"),
                f"{HOST}:444/SimpleNotificationService-0a1b2c.pem",
                "file:///SimpleNotificationService-0a1b2c.pem",
            )
        ),
    ]
    for each in forged:
        response = await post(provider, "ses", json.dumps(good | each).encode())
        assert response.status_code == 401, each
    for body in (b"", b"{}", b"[]", b"\xff", b'{"Type": 1}'):
        assert (await post(provider, "ses", body)).status_code == 401
    assert stored(db) == []


async def test_a_certificate_whose_time_is_over_is_refused(
    provider: httpx.AsyncClient, far_end: Sns, db: Db, mailed: int
) -> None:
    far_end.valid_for = timedelta(days=-1)
    url = f"{HOST}/SimpleNotificationService-0a1b2cOld.pem"
    body = far_end.message(ses_bounce(mailed), SigningCertURL=url)
    assert (await post(provider, "ses", body)).status_code == 401


# Postmark


def postmark(delivery_id: int, **named: Any) -> bytes:
    return json.dumps(
        {
            "RecordType": "Bounce",
            "Type": "HardBounce",
            "TypeCode": 1,
            "ID": 4323372036854775807,
            "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
            "Description": "The server was unable to deliver your message.",
            "Details": "smtp;550 5.1.1 The email account does not exist.",
            "Email": "alice@example.com",
            "From": "notifications@example.com",
            "BouncedAt": "2026-11-30T09:02:00.9070259Z",
            "Metadata": {"tocsin": tag(delivery_id)},
            **named,
        }
    ).encode()


async def test_a_bounce_of_postmark_by_either_proof(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    by_header = {"X-Tocsin-Secret": SECRET_OF_POSTMARK}
    assert await recorded(provider, "postmark", postmark(mailed), headers=by_header) == 1
    by_password = ("tocsin", SECRET_OF_POSTMARK)
    complaint = postmark(mailed, RecordType="SpamComplaint", Type="SpamComplaint", ID=2)
    assert await recorded(provider, "postmark", complaint, auth=by_password) == 1
    full = postmark(mailed, Type="SoftBounce", Details="smtp;552 5.2.2 full", ID=3)
    assert await recorded(provider, "postmark", full, auth=by_password) == 1
    for ignored in (
        postmark(mailed, Type="AutoResponder"),
        postmark(mailed, Type="Transient"),
        postmark(mailed, RecordType="Open"),
        b"[]",
    ):
        assert await recorded(provider, "postmark", ignored, auth=by_password) == 0
    assert stored(db) == [
        ("bounce", "bounce_5.1.1", True, mailed),
        ("complaint", "complaint", True, mailed),
        ("bounce", "bounce_5.2.2", False, mailed),
    ]


async def test_postmark_without_the_secret_is_refused(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    for named in (
        {},
        {"auth": ("tocsin", "wrong")},
        {"auth": (SECRET_OF_POSTMARK, "")},
        {"headers": {"Authorization": "Basic !"}},
        {"headers": {"Authorization": f"Bearer {SECRET_OF_POSTMARK}"}},
        {"headers": {"X-Tocsin-Secret": "wrong"}},
    ):
        response = await post(provider, "postmark", postmark(mailed), **named)
        assert response.status_code == 401
    assert stored(db) == []


# Mailgun


def mailgun(
    delivery_id: int, *, at: float | None = None, key: str = KEY_OF_MAILGUN, **named: Any
) -> bytes:
    timestamp = str(int(time.time() if at is None else at))
    signature = hmac.digest(key.encode(), f"{timestamp}token".encode(), "sha256").hex()
    status = {"code": 550, "enhanced-code": "5.1.1", "message": "No such user", "description": ""}
    event = {
        "event": "failed",
        "severity": "permanent",
        "id": "G9Bn5sl1TC6nu79C8C0bwg",
        "timestamp": 1796036520.9,
        "reason": "bounce",
        "recipient": "alice@example.com",
        "delivery-status": status,
        "message": {"headers": {"message-id": message_id(delivery_id).strip("<>")}},
        **named,
    }
    signed = {"timestamp": timestamp, "token": "token", "signature": signature}
    return json.dumps({"signature": signed, "event-data": event}).encode()


async def test_failures_and_complaints_of_mailgun(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    assert await recorded(provider, "mailgun", mailgun(mailed)) == 1
    assert await recorded(provider, "mailgun", mailgun(mailed)) == 0
    assert await recorded(provider, "mailgun", mailgun(mailed, event="complained", id="2")) == 1
    others: list[dict[str, Any]] = [
        {"severity": "temporary"},
        {"event": "delivered"},
        {"event": "unsubscribed"},
    ]
    for other in others:
        assert await recorded(provider, "mailgun", mailgun(mailed, id="3", **other)) == 0
    assert stored(db) == [
        ("bounce", "bounce_5.1.1", True, mailed),
        ("complaint", "complaint", True, mailed),
    ]


async def test_forged_and_replayed_calls_of_mailgun_are_refused(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    day_ago = time.time() - 86_400
    for body in (
        mailgun(mailed, key="another"),
        mailgun(mailed, at=day_ago),
        mailgun(mailed, at=time.time() + 86_400),
        mailgun(mailed).replace(b'"token": "token"', b'"token": "other"'),
        b"{}",
        b"no json",
    ):
        assert (await post(provider, "mailgun", body)).status_code == 401
    assert stored(db) == []


# SendGrid


def sendgrid(*events: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(events).encode()
    timestamp = str(int(time.time()))
    signature = KEY_OF_SENDGRID.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return body, {
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
    }


def event_of(delivery_id: int, event: str, **named: Any) -> dict[str, Any]:
    return {
        "email": "alice@example.com",
        "timestamp": 1796036520,
        "smtp-id": message_id(delivery_id),
        "event": event,
        "sg_event_id": f"{event} of {delivery_id}",
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001",
        **named,
    }


async def test_a_list_of_events_of_sendgrid(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    body, headers = sendgrid(
        event_of(mailed, "bounce", type="bounce", status="5.1.1", reason="550 5.1.1 unknown"),
        event_of(mailed, "dropped", reason="Bounced Address", status="5.1.1"),
        event_of(mailed, "spamreport"),
        event_of(mailed, "deferred", response="450 4.2.1 later"),
        event_of(mailed, "delivered"),
    )
    response = await post(provider, "sendgrid", body, headers=headers)
    assert response.json() == {"recorded": 3, "known": 0, "ignored": 2}
    assert stored(db) == [
        ("bounce", "bounce_5.1.1", True, mailed),
        ("bounce", "bounce", False, mailed),
        ("complaint", "complaint", True, mailed),
    ]
    wrong, headers = sendgrid()
    assert await recorded(provider, "sendgrid", wrong, headers=headers) == 0


async def test_what_sendgrid_has_not_signed_is_refused(
    provider: httpx.AsyncClient, db: Db, mailed: int
) -> None:
    body, headers = sendgrid(event_of(mailed, "spamreport"))
    name = "X-Twilio-Email-Event-Webhook-"
    for wrong in (
        {},
        {f"{name}Timestamp": "1"},
        {f"{name}Signature": "AAAA"},
        {f"{name}Signature": "no base64"},
    ):
        given = headers | wrong if wrong else {}
        assert (await post(provider, "sendgrid", body, headers=given)).status_code == 401
    assert (await post(provider, "sendgrid", body + b" ", headers=headers)).status_code == 401
    assert stored(db) == []


# Limits


@pytest.mark.parametrize("name", ["ses", "postmark", "mailgun", "sendgrid"])
async def test_a_provider_that_is_not_configured_is_not_there(
    anyone: httpx.AsyncClient, name: str
) -> None:
    response = await post(anyone, name, b"{}")
    assert response.status_code == 404
    assert f"TOCSIN_{name.upper()}" in response.json()["detail"]


@pytest.mark.parametrize("name", ["ses", "postmark", "mailgun", "sendgrid"])
async def test_too_much_is_refused(provider: httpx.AsyncClient, name: str) -> None:
    named: dict[str, Any] = {"auth": ("tocsin", SECRET_OF_POSTMARK)}
    if name == "sendgrid":
        named = {"headers": sendgrid()[1]}
    response = await post(provider, name, b"x" * 1_000_001, **named)
    assert response.status_code == 413
