"""One mail of every kind, by the real renderer and the real actor over real SMTP; for all that judges mails."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import tocsin
from tests.support.sending import send_by
from tocsin.dev.mail_catcher import MailCatcher
from tocsin.engine.actors.email import EmailActor
from tocsin.engine.actors.email_mime import Signer
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.render import RenderMail, mail_renderer
from tocsin.engine.model import Channel, CheckResult, Claimed, Entry, Message, Priority, Sent
from tocsin.settings.addresses import SmtpServer

PUBLIC_URL = "https://notify.example.com"
DOMAIN = "example.com"
SENDER = f"Example Club <notifications@{DOMAIN}>"
SELECTOR = "tocsin"
CREATED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)

CATALOGUE = tomllib.loads((Path(tocsin.__file__).parent / "event_types.toml").read_text("utf-8"))

TEXTS = {  # by category: a title and a body as apps write them
    "bulletin": (
        "Chapter bulletin for November",
        "The hall is warm again.\n\nThe next meeting is on Thursday.",
    ),
    "forum": (
        "Bob replied to “Garden plans”",
        "The roses came.\nBoth boxes.\n\nShall we plant on Saturday?",
    ),
    "election": (
        "Voting for the new board has opened",
        "Three people stand. You can vote until 15 November.",
    ),
    "billing": (
        "Invoice 2026-118 is ready",
        "Membership for 2027: 48.00 EUR, to be paid by 30 November.",
    ),
    "approval": (
        "Carol asks you to approve a purchase",
        "Two folding tables for the hall, 120.00 EUR.",
    ),
    "event": (
        "You are invited to the winter concert",
        "Friday, 12 December, at 7 in the evening.\nDoors open at 6:30.",
    ),
    "learning": ("First aid: your certificate is ready", "You passed with 18 of 20 points."),
    "compliance": ("Fire safety training is due", "Please book a date before 1 December."),
    "recognition": ("Dave thanks you for the summer fair", "You kept the tea coming all day."),
    "messages": ("Erin wrote to you", "Do you still have the ladder?"),
}

OF_ALL_SORTS: dict[str, dict[str, Any]] = {
    "mandatory": {
        "event_type": "compliance.overdue",
        "category": "compliance",
        "label": "Requirement overdue",
        "title": "Fire safety training is overdue",
        "mandatory": True,
        "priority": Priority.HIGH,
    },
    "arabic": {
        "title": "ردّ بوب على «خطط الحديقة»",
        "body": "وصلت الورود.\nالصندوقان معًا.\n\nهل نزرعها يوم السبت؟",
        "locale": "ar-EG",
        "name": "ليلى",
    },
    "hebrew": {"title": "בוב השיב לך", "body": "הוורדים הגיעו.", "locale": "he", "mandatory": True},
    "japanese": {"title": "ボブさんから返信", "body": "バラが届きました。\n\n土曜日に植えましょうか。", "locale": "ja"},
    "emoji": {"title": "🎉 Garden day 🌹👩‍🌾", "body": "Bring gloves 🧤\n\n👍🏽👍🏽👍🏽 🇩🇪"},
    "long lines": {
        "title": "The minutes of the meeting, with all that was discussed about roses, boxes, Saturdays and spades" * 2,
        "body": "One line. " * 500 + "\n\n" + "unbroken" * 300 + "\n.\n..\n.hidden dots",
    },
    "body in HTML": {
        "body": "",
        "body_html": (
            "<h2>Agenda</h2><p>We meet at <b>seven</b>; bring <em>ideas</em>.</p>"
            '<ul><li>Roses</li><li><a href="/docs/boxes">Boxes</a></li></ul><ol><li>One</li></ol>'
            '<blockquote>Spades are <a href="https://shop.example.com/?a=1&amp;b=2">here</a>.</blockquote>'
            "<pre><code>spade --deep</code></pre><img src='https://example.com/pixel.gif'><script>x()</script>"
        ),
    },
    "no action URL": {"action_url": None},
    "actions": {
        "actions": [
            {"key": "accept", "label": "Accept", "style": "primary"},
            {"key": "decline", "label": "Decline", "style": "danger"},
            {"key": "later", "label": "Ask me again tomorrow"},
        ]
    },
    "topic": {"topic": "thread:42", "because": "replied"},
    "invitation": {"recipient_id": None, "invited": "new@example.org", "name": None},
    "no body": {"body": "", "name": None, "locale": None},
    "markup in text": {"title": "<b>5 < 6</b> & “more”", "body": "<script>alert(1)</script>\nFrom here on"},
}  # fmt: skip


def claimed(**changes: Any) -> Claimed:
    """Returns a delivery as a claim returns it."""
    content: dict[str, Any] = {
        "delivery_id": 7,
        "claim": UUID(int=7),
        "notification_id": 42,
        "event_id": 3,
        "recipient_id": "alice",
        "channel": Channel.EMAIL,
        "priority": Priority.NORMAL,
        "attempt": 1,
        "max_attempts": 8,
        "expires_at": None,
        "mandatory": False,
        "event_type": "forum.new_reply",
        "label": "New reply",
        "category": "forum",
        "title": TEXTS["forum"][0],
        "body": TEXTS["forum"][1],
        "body_html": None,
        "action_url": "/forum/threads/42#reply-7",
        "initiator": "bob",
        "name": "Alice",
        "locale": "en",
        "timezone": "Europe/Berlin",
        "created_at": CREATED_AT,
    }
    return Claimed(**(content | changes))


def entry(number: int, *, category: str, read: bool = False, **changes: Any) -> Entry:
    """Returns a notification in a digest."""
    title, body = TEXTS[category]
    content: dict[str, Any] = {
        "digest_id": 1,
        "recipient_id": "alice",
        "notification_id": number,
        "event_type": f"{category}.any",
        "created_at": CREATED_AT,
        "read": read,
        "title": title,
        "body": body,
        "body_html": None,
        "action_url": f"/{category}/{number}",
        "label": category.capitalize(),
        "category": category,
        "category_label": CATALOGUE["categories"][category],
    }
    return Entry(**(content | changes))


def sample_messages() -> dict[str, Message]:
    """Every kind of mail by a name for it."""
    render = mail_renderer(Links(PUBLIC_URL, bytes(range(32))), SENDER)
    singles = {
        name: render([claimed(delivery_id=number, **changes)], [])
        for number, (name, changes) in enumerate(_singles(), start=100)
    }
    return singles | {
        "burst": _burst(render),
        "burst of all": _burst_of_all(render),
        "digest": _digest(render),
    }


def _singles() -> Iterator[tuple[str, dict[str, Any]]]:
    for event_type, facts in CATALOGUE["event_types"].items():
        category = event_type.partition(".")[0]
        title, body = TEXTS[category]
        yield (
            event_type,
            {
                "event_type": event_type,
                "category": category,
                "label": facts["label"],
                "title": title,
                "body": body,
                "mandatory": "email" in facts.get("mandatory", []),
            },
        )
    yield from OF_ALL_SORTS.items()


def _burst(render: RenderMail) -> Message:
    return render(
        [claimed(delivery_id=number, notification_id=number) for number in range(200, 205)], []
    )


def _burst_of_all(render: RenderMail) -> Message:
    """Returns a burst with one of each event type, to a person with a long id: the longest mail that there is."""
    return render(
        [
            claimed(delivery_id=number, notification_id=number, recipient_id="a" * 200, **changes)
            for number, (_, changes) in enumerate(_singles(), start=250)
            if not changes.get("mandatory") and changes.get("recipient_id", "alice")
        ],
        [],
    )


def _digest(render: RenderMail) -> Message:
    entries = [
        entry(number, category=category, read=number % 4 == 0)
        for category in sorted(TEXTS)
        for number in range(1, 20 if category == "forum" else 4)
    ]
    digest = claimed(
        delivery_id=300, notification_id=None, event_id=None, digest_id=1, event_type="digest",
        category="digest", label="Digest", title="", body="", action_url=None,
    )  # fmt: skip
    return render([digest], entries)


def private_pem() -> str:
    """Returns a new RSA key."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def received(
    folder: Path,
    messages: dict[str, Message],
    *,
    pem: str | None = None,
    to: str = "alice@example.org",
) -> dict[str, bytes]:
    """Sends all by SMTP and returns each as it arrived; signed where there is a key."""
    return asyncio.run(_received(folder, messages, pem=pem, to=to))


async def _received(
    folder: Path, messages: dict[str, Message], *, pem: str | None, to: str
) -> dict[str, bytes]:
    async def presend_check(some: Sequence[Message]) -> dict[int, CheckResult]:
        now = datetime.now(UTC)
        return {each.delivery_id: CheckResult(each.delivery_id, to, now) for each in some}

    mailbox = MailCatcher(folder)
    await mailbox.start()
    actor = EmailActor(
        presend_check=presend_check,
        sender=SENDER,
        server=SmtpServer(host="127.0.0.1", port=mailbox.port, starttls="never"),
        local_hostname="worker.example.com",
        senders=1,
        signer=None if pem is None else Signer(pem=pem, selector=SELECTOR, domain=DOMAIN),
    )
    await actor.start()
    for message in messages.values():  # one by one, so that files are in this order
        outcome = (await send_by(actor, message)).outcome
        assert isinstance(outcome, Sent), outcome
    await actor.stop()
    await mailbox.stop()
    files = sorted(folder.glob("*.eml"))
    return {name: file.read_bytes() for name, file in zip(messages, files, strict=True)}
