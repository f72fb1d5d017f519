"""What each SMTP reply means, as a table; and the ids that servers give to accepted mails."""

from __future__ import annotations

from itertools import product

import pytest

from tocsin.engine.actors.email_reply import Step, classify, classify_no_reply, queue_id
from tocsin.engine.actors.machinery.envelope import SendResult
from tocsin.engine.model import Deferred, Rejected, Sent, Unknown

CONNECT, HELO, TLS, AUTH = Step.CONNECT, Step.HELO, Step.TLS, Step.AUTH
MAIL, RCPT, DATA, BODY = Step.MAIL, Step.RCPT, Step.DATA, Step.BODY


def deferred(reason: str, *, provider: bool = False, keep: bool = True) -> SendResult:
    return SendResult(Deferred(reason), provider_failed=provider, keep_connection=keep)


def rejected(reason: str, *, dead: bool = False, provider: bool = False) -> SendResult:
    return SendResult(Rejected(reason, address_dead=dead), provider_failed=provider)


def down(reason: str) -> SendResult:
    return deferred(reason, provider=True, keep=False)


TABLE = [
    # Before a message: the provider, or our credentials.
    (CONNECT, 421, "too many connections", down("smtp_421")),
    (CONNECT, 554, "5.7.1 go away", down("smtp_554_5.7.1")),
    (HELO, 550, "who are you", down("smtp_550")),
    (TLS, 454, "TLS not available", down("smtp_454")),
    (AUTH, 535, "5.7.8 bad credentials", down("smtp_535_5.7.8")),
    (AUTH, 454, "4.7.0 temporary", down("smtp_454_4.7.0")),
    # 421 closes the channel at any step, and credentials are ours at any step.
    (MAIL, 421, "4.3.2 shutting down", down("smtp_421_4.3.2")),
    (RCPT, 421, "4.7.0 try later", down("smtp_421_4.7.0")),
    (BODY, 421, "closing", down("smtp_421")),
    (MAIL, 530, "5.7.0 authentication required", down("smtp_530_5.7.0")),
    (RCPT, 535, "5.7.8 bad credentials", down("smtp_535_5.7.8")),
    # MAIL is about us, but for the size.
    (MAIL, 451, "4.3.0 queue file write error", deferred("smtp_451_4.3.0", provider=True)),
    (MAIL, 553, "5.1.8 sender's domain unknown", rejected("smtp_553_5.1.8", provider=True)),
    (MAIL, 550, "5.1.1 unknown", rejected("smtp_550_5.1.1", provider=True)),
    (MAIL, 552, "message too large", rejected("smtp_552")),
    (MAIL, 523, "5.3.4 message too big", rejected("smtp_523_5.3.4")),
    (MAIL, 554, "5.2.3 message too big", rejected("smtp_554_5.2.3")),
    # 4yz at RCPT and later: this message, later.
    (RCPT, 450, "4.2.1 mailbox busy", deferred("smtp_450_4.2.1")),
    (RCPT, 451, "greylisted", deferred("smtp_451")),
    (RCPT, 452, "4.2.2 over quota", deferred("smtp_452_4.2.2")),
    (RCPT, 450, "4.1.1 unknown for now", deferred("smtp_450_4.1.1")),
    (DATA, 451, "4.3.0 local error", deferred("smtp_451_4.3.0")),
    (BODY, 450, "4.7.1 try later", deferred("smtp_450_4.7.1")),
    (BODY, 454, "Throttling failure: Maximum sending rate exceeded.", deferred("smtp_454")),
    # 5yz: 5.1.x and 5.2.1 of the recipient kill the address.
    (RCPT, 550, "5.1.1 no such user", rejected("smtp_550_5.1.1", dead=True)),
    (RCPT, 550, "5.1.2 bad destination system", rejected("smtp_550_5.1.2", dead=True)),
    (RCPT, 553, "5.1.3 bad syntax", rejected("smtp_553_5.1.3", dead=True)),
    (RCPT, 551, "5.1.6 moved", rejected("smtp_551_5.1.6", dead=True)),
    (RCPT, 556, "5.1.10 null MX", rejected("smtp_556_5.1.10", dead=True)),
    (RCPT, 550, " 5.1.1 no such user", rejected("smtp_550_5.1.1", dead=True)),
    (RCPT, 550, "5.2.1 mailbox disabled", rejected("smtp_550_5.2.1", dead=True)),
    (BODY, 550, "5.1.1 no such user", rejected("smtp_550_5.1.1", dead=True)),
    # The sender's address, a full mailbox, policy, reputation: never.
    (RCPT, 550, "5.1.7 bad sender", rejected("smtp_550_5.1.7")),
    (RCPT, 550, "5.1.8 bad sender's system", rejected("smtp_550_5.1.8")),
    (RCPT, 552, "5.2.2 mailbox full", rejected("smtp_552_5.2.2")),
    (RCPT, 550, "5.2.10 other", rejected("smtp_550_5.2.10")),
    (RCPT, 550, "5.4.1 access denied", rejected("smtp_550_5.4.1")),
    (RCPT, 554, "5.7.1 user unknown, says our policy", rejected("smtp_554_5.7.1")),
    (BODY, 550, "5.7.26 unauthenticated", rejected("smtp_550_5.7.26")),
    (BODY, 554, "5.6.0 content", rejected("smtp_554_5.6.0")),
    (DATA, 554, "no valid recipients", rejected("smtp_554")),
    # Bare codes: only 550 at RCPT, only in plain words, and not where the text is not about a policy.
    (RCPT, 550, "User unknown", rejected("smtp_550", dead=True)),
    (RCPT, 550, "No such user here", rejected("smtp_550", dead=True)),
    (RCPT, 550, "<a@b.test>: Recipient unknown", rejected("smtp_550", dead=True)),
    (RCPT, 550, "mailbox unavailable", rejected("smtp_550")),
    (RCPT, 550, "user unknown (blocked by list)", rejected("smtp_550")),
    (RCPT, 550, "relay not permitted", rejected("smtp_550")),
    (RCPT, 550, "", rejected("smtp_550")),
    (RCPT, 500, "", rejected("smtp_500")),
    (RCPT, 551, "User unknown", rejected("smtp_551")),
    (RCPT, 553, "User unknown", rejected("smtp_553")),
    (BODY, 550, "User unknown", rejected("smtp_550")),
    # An enhanced code of another class than its reply is ignored.
    (RCPT, 450, "5.1.1 no such user", deferred("smtp_450")),
    (RCPT, 550, "4.1.1 no such user", rejected("smtp_550", dead=True)),
    # Replies that do not belong to the command.
    (RCPT, 354, "go ahead", down("smtp_protocol_error")),
    (DATA, 250, "ok", down("smtp_protocol_error")),
    (MAIL, -1, "HTTP/1.1 400 Bad Request", down("smtp_protocol_error")),
    (RCPT, 0, "", down("smtp_protocol_error")),
    (RCPT, 600, "", down("smtp_protocol_error")),
    (
        BODY,
        354,
        "?",
        SendResult(Unknown("smtp_protocol_error"), provider_failed=True, keep_connection=False),
    ),
    (BODY, 250, "2.0.0 Ok: queued as 4XyZ12", SendResult(Sent("4XyZ12"))),
    (BODY, 250, "OK", SendResult(Sent(None))),
    (BODY, 251, "will forward", SendResult(Sent(None))),
]


def test_replies_are_classified() -> None:
    wrong = [
        (step, code, text, found)
        for step, code, text, expected in TABLE
        if (found := classify(step, code, text)) != expected
    ]
    assert not wrong


def test_no_code_is_without_a_meaning() -> None:
    for step, code in product(Step, range(400, 600)):
        outcome = classify(step, code, "alice@example.test said no").outcome
        assert isinstance(outcome, Deferred if code < 500 else Deferred | Rejected), (step, code)
        assert outcome.reason == f"smtp_{code}", step


@pytest.mark.parametrize(("code", "is_sent"), [(200, True), (250, True), (299, True), (300, False)])
def test_each_2xx_after_the_body_is_an_acceptance(code: int, is_sent: bool) -> None:
    assert isinstance(classify(BODY, code, "2.0.0 Ok").outcome, Sent) is is_sent


@pytest.mark.parametrize("step", list(Step))
def test_a_lost_reply_is_unknown_only_after_the_final_dot(step: Step) -> None:
    result = classify_no_reply(step, "disconnected")
    outcome = Unknown if step is BODY else Deferred
    assert result == SendResult(
        outcome(f"smtp_disconnected_{step}"), provider_failed=True, keep_connection=False
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.0.0 Ok: queued as 4bXk5d0Wz9z1", "4bXk5d0Wz9z1"),
        ("OK id=1r5JkP-0001Ab-2x", "1r5JkP-0001Ab-2x"),
        ("Ok 0102018c1f5e-4a6b-000000", "0102018c1f5e-4a6b-000000"),
        ("2.0.0 OK  1700000000 d9443c01a7336-1cc5.20 - gsmtp", "d9443c01a7336-1cc5.20"),
        ("2.6.0 <abc.1@host.test> Queued mail\nfor delivery", None),
        ("accepted for alice1@example.test", None),
        ("queued as 4bXk5d0Wz9z1\nBye", None),
        ("OK", None),
        ("", None),
        ("2.0.0 accepted\x07\x00", None),
        ("queued as " + "a1" * 100, None),
    ],
)
def test_the_queue_id_is_taken_where_there_is_one(text: str, expected: str | None) -> None:
    assert queue_id(text) == expected
