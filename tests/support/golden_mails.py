"""One mail of each kind, as its golden file and its screenshots show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tocsin.engine.mail.context import Rendering
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates
from tocsin.engine.mail.render import render_burst, render_digest
from tocsin.engine.mail.render_single import render_mail, to_sender
from tocsin.engine.model import Channel, Claimed, Entry, Mail, Message, Priority
from tocsin.engine.store.catalogue_file import default_catalogue

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LINKS = Links("https://app.example.test", bytes(range(32)))
SENDER = to_sender("Acme <hello@acme.test>")

_LABELS = {name: each.label for name, each in default_catalogue().event_types.items()}
_CATEGORIES = default_catalogue().categories


def claimed(**changes: Any) -> Claimed:
    """Returns the delivery of a reply in a thread, with these changes."""
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
        "expires_at": NOW,
        "mandatory": False,
        "event_type": "forum.new_reply",
        "label": "New reply",
        "category": "forum",
        "title": "Bob replied to “Garden plans”",
        "body": "The roses came.\nBoth boxes.\n\nShall we plant on Saturday?",
        "body_html": None,
        "action_url": "/forum/threads/42#reply-7",
        "initiator": "bob",
        "name": "Alice",
        "locale": "en",
        "timezone": "Europe/Berlin",
        "created_at": NOW,
        "reason": "default",
    }
    return Claimed(**(content | changes))


def of_type(event_type: str, title: str, body: str = "", **changes: Any) -> Claimed:
    """Returns a delivery of an event type of the default catalogue."""
    return claimed(
        event_type=event_type,
        category=event_type.partition(".")[0],
        label=_LABELS[event_type],
        title=title,
        body=body,
        **changes,
    )


def content(message: Message) -> Mail:
    assert isinstance(message.content, Mail)
    return message.content


def one(message: Claimed, templates: Templates = DEFAULT) -> Mail:
    return content(render_mail(message, Rendering(LINKS, SENDER, NOW, templates)))


def burst(*together: Claimed) -> Mail:
    numbered = [
        claimed_again(each, delivery_id=7 + i, notification_id=42 + i)
        for i, each in enumerate(together)
    ]
    return content(render_burst(numbered, Rendering(LINKS, SENDER, NOW)))


def digest(*entries: Entry, **changes: Any) -> Mail:
    delivery = claimed(digest_id=1, notification_id=None, event_id=None, label="", **changes)
    return content(render_digest(delivery, entries, Rendering(LINKS, SENDER, NOW)))


def claimed_again(of: Claimed, **changes: Any) -> Claimed:
    return Claimed(**({name: getattr(of, name) for name in of.__struct_fields__} | changes))


def entry(
    event_type: str, title: str, body: str = "", *, read: bool = False, ago: int = 1
) -> Entry:
    """Returns an entry of a digest, some hours old."""
    category = event_type.partition(".")[0]
    return Entry(
        digest_id=1,
        recipient_id="alice",
        notification_id=100 + ago,
        event_type=event_type,
        created_at=NOW - timedelta(hours=ago),
        read=read,
        title=title,
        body=body,
        body_html=None,
        action_url="/somewhere",
        label=_LABELS[event_type],
        category=category,
        category_label=_CATEGORIES[category],
    )


def samples() -> Mapping[str, Mail]:
    """Returns the samples by name; in English but where the name ends otherwise."""
    return {name: one(message) for name, message in _ONES.items()} | {
        "burst": burst(*_BURST),
        "digest": digest(*_DIGEST),
        "digest_ar": digest(*_DIGEST_AR, locale="ar", timezone="Asia/Riyadh"),
    }


_BULLETIN = """<p>Dear all,</p><p>autumn is here, and with it <strong>three evenings</strong> worth coming out for.</p>
<h2>Dates</h2><ul><li>12 November: the general assembly</li><li>26 November: mending evening</li>
<li>5 December: St Nicholas for the children</li></ul><p>Who can help? <a href="/helpers">Put your name down</a>.</p>"""

_ONES = {
    "default": claimed(
        event_type="shop.order_sent",
        category="shop",
        label="Order sent",
        title="Your order 1042 is on its way",
        body="Two boxes, by bicycle. They should be with you tomorrow.",
        action_url="https://shop.example/orders/1042",
    ),
    "actions": of_type(
        "event.invited",
        "Will you run the tombola at the summer fair?",
        "Saturday, 4 July, from 2 to 6 in the afternoon.",
        metadata={"starts_at": "2026-07-04T12:00:00Z", "location": "The garden"},
        actions=[
            {"key": "accept", "label": "Accept", "style": "primary"},
            {"key": "decline", "label": "Decline", "style": "danger"},
        ],
    ),
    "bulletin": of_type(
        "bulletin.new_chapter",
        "The autumn bulletin is out",
        body_html=_BULLETIN,
        reason="preference",
    ),
    "forum": claimed(
        topic="forum.thread:42", because="replied", metadata={"topic_title": "Garden plans"}
    ),
    "election": of_type(
        "election.opened",
        "The election of the board is open",
        "Four people stand for three seats. It takes two minutes, and your vote is secret.",
        metadata={"closes_at": "2026-11-08T18:00:00+01:00"},
    ),
    "billing": of_type(
        "billing.payment_due",
        "Your membership fee is due",
        "Please pay by bank transfer or card. If you have paid in the last days, there is nothing to do.",
        metadata={
            "amount": 84.5,
            "currency": "EUR",
            "due_at": "2026-11-12",
            "invoice_number": "2026-0042",
        },
    ),
    "billing_de": of_type(
        "billing.payment_due",
        "Ihr Mitgliedsbeitrag ist fällig",
        "Bitte überweisen Sie den Betrag oder zahlen Sie mit Karte. Wenn Sie in den letzten Tagen gezahlt haben,"
        " ist nichts weiter zu tun.",
        metadata={
            "amount": 1084.5,
            "currency": "EUR",
            "due_at": "2026-11-12",
            "invoice_number": "2026-0042",
        },
        locale="de-AT",
    ),
    "approval": of_type(
        "approval.requested",
        "Bob asks for your approval",
        "Paint and brushes for the club room.",
        metadata={"amount": "€84.50"},
    ),
    "event": of_type(
        "event.invited",
        "You are invited: mending evening",
        "Bring what is broken. Tools, tea and patience are there.",
        metadata={
            "starts_at": "2026-11-26T19:30:00+01:00",
            "location": "The old mill, Mill Lane 4",
        },
    ),
    "learning": of_type(
        "learning.due_soon",
        "“First aid” is due in three days",
        "You have finished 4 of 6 lessons.",
        metadata={"due_at": "2026-11-04"},
    ),
    "compliance": of_type(
        "compliance.overdue",
        "Fire safety training is overdue",
        body_html="<p>Without it you can’t keep the keys of the <b>workshop</b>.</p>",
        metadata={"due_at": "2026-10-01"},
        mandatory=True,
    ),
    "recognition": of_type(
        "recognition.received", "Carol thanked you", "For staying to fold all those chairs."
    ),
    "messages": of_type(
        "messages.new_dm",
        "Dave sent you a message",
        "Are you coming tonight?\nI could bring the drill.",
    ),
    "invitation": of_type(
        "event.invited",
        "Alice invites you to the mending evening",
        "Bring what is broken. Tools, tea and patience are there.",
        recipient_id=None,
        invited="zoe@example.com",
        name=None,
        locale=None,
        metadata={
            "starts_at": "2026-11-26T19:30:00+01:00",
            "location": "The old mill, Mill Lane 4",
        },
        timezone=None,
        reason="invited",
    ),
    "forum_ar": claimed(
        title="ردّ سامي على «خطط الحديقة»",
        body="وصلت الورود.\n\nهل نزرعها يوم السبت؟",
        locale="ar-EG",
        topic="forum.thread:42",
        because="replied",
        metadata={"topic_title": "خطط الحديقة"},
    ),
}
_BURST = (
    of_type("bulletin.new_chapter", "The autumn bulletin is out", body_html=_BULLETIN),
    claimed(),
    of_type(
        "event.changed",
        "The mending evening moved",
        "One hour later than planned.",
        metadata={"starts_at": "2026-11-26T20:30:00+01:00"},
    ),
    of_type(
        "approval.requested",
        "Carol asks you to approve two folding tables",
        actions=[{"key": "yes", "label": "Approve"}, {"key": "no", "label": "Reject"}],
    ),
)
_DIGEST = (
    entry("bulletin.new_chapter", "The autumn bulletin is out", "Dates, people, helpers.", ago=20),
    entry(
        "forum.new_reply",
        "Bob replied to “Garden plans”",
        "The roses came. Both boxes. Shall we plant on Saturday?",
    ),
    entry(
        "forum.mention", "Carol mentioned you in “Spring formal”", "What does @alice think?", ago=3
    ),
    entry("forum.new_thread", "New thread: keys of the workshop", ago=5, read=True),
    *(entry("election.opened", f"Election {i} is open", ago=6 + i) for i in range(17)),
)
_DIGEST_AR = (
    entry("forum.new_reply", "ردّ سامي على «خطط الحديقة»", "وصلت الورود. هل نزرعها يوم السبت؟"),
    entry(
        "forum.mention", "Carol mentioned you in “Spring formal”", "What does @alice think?", ago=3
    ),
    entry("event.invited", "دعوة: أمسية الإصلاح", "أحضر ما انكسر.", ago=5),
    *(entry("election.opened", f"الانتخاب {i} مفتوح", ago=6 + i) for i in range(18)),
)
