"""The digest: one mail that says what happened in a day or a week, grouped by category."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

from tocsin.engine.links import Links
from tocsin.engine.model import Claimed, Entry, Mail, Message
from tocsin.engine.render import (
    PREHEADER_CHARACTERS,
    Sender,
    frame,
    headers,
    message_id,
    one_line,
    shared_template,
)
from tocsin.engine.sanitise import sanitise, to_text

# More of one category than this are counted, not shown: mail clients clip long mails.
SHOWN = 15
EXCERPT_CHARACTERS = 200


def render_digest(
    claimed: Claimed, entries: Sequence[Entry], *, links: Links, sender: Sender, now: datetime
) -> Message:
    """The mail of one digest; the same at each attempt, unless something in it was taken back since."""
    unsubscribe_url = links.unsubscribe_digest(claimed.recipient_id or "", now)
    unread = [entry for entry in entries if not entry.read]
    context = frame(claimed, sender)
    words = context["words"]
    groups = [
        _group(list(group), claimed, links, now)
        for _, group in groupby(entries, key=lambda entry: entry.category)
    ]
    newest = max(unread or entries, key=lambda entry: (entry.created_at, entry.notification_id))
    subject = words["digest_subject_one" if len(unread) == 1 else "digest_subject"]
    context |= {
        "title": words["digest_title"].format(service=sender.name),
        "preheader": one_line(
            " · ".join(
                f"{group['label']}: {group['unread']}" for group in groups if group["unread"]
            ),
            PREHEADER_CHARACTERS,
        ),
        "groups": groups,
        "unsubscribe_url": unsubscribe_url,
    }
    mail = Mail(
        message_id=message_id(claimed, links, sender),
        subject=subject.format(title=one_line(newest.title, 120), count=len(unread) - 1),
        text=shared_template("digest_email.txt").render(context).strip() + "\n",
        html=shared_template("digest_email.html").render(context),
        headers=headers("digest", "digest", sender, unsubscribe_url),
    )
    return Message(
        claimed.delivery_id,
        claimed.claim,
        claimed.channel,
        claimed.priority,
        mail,
        contents=tuple(sorted(entry.notification_id for entry in entries)),
    )


def _group(entries: list[Entry], claimed: Claimed, links: Links, now: datetime) -> dict[str, Any]:
    """One category: those unread first to be shown, newest first."""
    shown = sorted(entries, key=lambda entry: entry.read)[:SHOWN]
    return {
        "category": entries[0].category,
        "label": entries[0].category_label,
        "unread": sum(not entry.read for entry in entries),
        "more": len(entries) - len(shown),
        "entries": [
            _entry(entry, claimed, links, now)
            for entry in sorted(shown, key=lambda entry: entry.created_at, reverse=True)
        ],
    }


def _entry(entry: Entry, claimed: Claimed, links: Links, now: datetime) -> dict[str, Any]:
    text = entry.body or to_text(sanitise(entry.body_html or "", base_url=links.public_url))
    leads_somewhere = entry.action_url and links.absolute(entry.action_url)
    at = entry.created_at.astimezone(ZoneInfo(claimed.timezone or "UTC"))
    return {
        "title": one_line(entry.title),
        "excerpt": one_line(text, EXCERPT_CHARACTERS),
        "label": entry.label,
        "read": entry.read,
        "at": at,
        "open_url": links.open(entry.notification_id, entry.recipient_id, now)
        if leads_somewhere
        else None,
    }
