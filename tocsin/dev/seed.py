"""Demo people, their phones and a few days of their notifications; for `make up`, tests and benchmarks."""

from __future__ import annotations

from hashlib import sha256

from tocsin.client import notify, subscribe, upsert_recipient
from tocsin.engine.store.connection import Connection, connect
from tocsin.sql import load

PEOPLE = (
    ("alice", "alice@example.com", "Alice Moreau", "en", "Europe/Paris"),
    ("bob", "bob@example.com", "Bob Okafor", "en", "America/New_York"),
    ("carol", "carol@example.com", "Carol Lindqvist", "en", "Europe/Stockholm"),
    ("dave", None, "Dave Tran", "en", "Asia/Ho_Chi_Minh"),
)

PHONES = (
    ("alice", "ios", "apns", "Alice's iPhone"),
    ("bob", "android", "fcm", "Bob's Pixel"),
    ("carol", "ios", "apns", "Carol's iPhone"),
    ("carol", "android", "fcm", "Carol's tablet"),
)

# Of the topic of the demo's replies.
FOLLOWERS = (
    ("alice", "forum.thread:7", "all"),
    ("bob", "forum.thread:7", "all"),
    ("carol", "forum.thread:7", "mentions"),
)

_EVENTS = (
    (
        "bulletin.new_chapter",
        ["alice", "bob", "carol"],
        "The autumn bulletin is out",
        "Dates, people, and a call for helpers.",
        "/bulletins/41",
        "carol",
    ),
    (
        "forum.new_thread",
        ["alice", "bob", "carol", "dave"],
        "New thread: Spring Formal Planning",
        "Where shall it be this year?",
        "/forums/7",
        "bob",
    ),
    (
        "forum.mention",
        ["alice"],
        "Carol mentioned you in 'Spring Formal Planning'",
        "What does @alice think of the old mill?",
        "/forums/7/posts/9",
        "carol",
    ),
    (
        "election.opened",
        ["alice", "bob", "carol"],
        "The election of the board is open",
        "Vote until Sunday evening.",
        "/elections/3",
        None,
    ),
    (
        "recognition.received",
        ["bob"],
        "Alice thanked you",
        "For staying to fold all those chairs.",
        "/recognition/18",
        "alice",
    ),
    (
        "approval.requested",
        ["carol"],
        "Bob asks for your approval",
        "Reimbursement of 84.50 for paint.",
        "/approvals/12",
        "bob",
    ),
)


def seed(dsn: str, *, again: bool = False, phones: bool = True) -> str:
    """Adds them where the database is empty, or `again`; returns what it did, in one line.

    `phones`: with device tokens that only the far ends of `tocsin up` accept.
    """
    with connect(dsn) as connection:
        known = connection.execute("select exists (select from tocsin.recipient)").fetchone()
        if known == (True,) and not again:
            return "Demo people are there already."
        for id_, email, name, locale, timezone in PEOPLE:
            upsert_recipient(
                connection, id_, email=email, name=name, locale=locale, timezone=timezone
            )
        for follower in FOLLOWERS:
            subscribe(connection, *follower)
        if phones:
            _register_phones(connection)
        for event_type, recipients, title, body, action_url, initiator in _EVENTS:
            notify(
                connection,
                recipient=recipients,
                event_type=event_type,
                title=title,
                body=body,
                action_url=action_url,
                initiator=initiator,
            )
    return f"{len(PEOPLE)} people and {len(_EVENTS)} events."


def _register_phones(connection: Connection) -> None:
    """Registers them before the first event, so that it reaches them."""
    register = load("recipient")["register_device"]
    for recipient_id, platform, provider, label in PHONES:
        owned = {"recipient_id": recipient_id, "platform": platform, "provider": provider}
        token = sha256(f"{recipient_id}'s {platform} phone".encode()).hexdigest()
        connection.execute(
            register, owned | {"token": token, "environment": "production", "label": label}
        )
