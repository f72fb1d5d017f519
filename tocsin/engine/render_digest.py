"""The digest: one mail that says what happened in a day or a week, grouped by category."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from tocsin.engine.language import Language, language_of
from tocsin.engine.links import Links
from tocsin.engine.mail_context import frame, reason_of, words_of
from tocsin.engine.mail_templates import DEFAULT, Templates
from tocsin.engine.model import Claimed, Entry, Mail, Message
from tocsin.engine.one_line import one_line
from tocsin.engine.render import (
    SUBJECT_CHARACTERS,
    Sender,
    fits,
    headers,
    message_id,
)
from tocsin.engine.sanitise import sanitise, to_text

_NAME = "notifications/digest_email"
# More of one category than this are counted, not shown; fewer of all, each in turn, until clients don't clip the mail.
SHOWN = 15
_SHOWN_OF_ALL = (80, 40, 20, 10)
EXCERPT_CHARACTERS = 200


def render_digest(
    claimed: Claimed,
    entries: Sequence[Entry],
    *,
    links: Links,
    sender: Sender,
    now: datetime,
    templates: Templates = DEFAULT,
) -> Message:
    """The mail of one digest; the same at each attempt, unless something in it was taken back since."""
    unsubscribe_url = links.unsubscribe_digest(claimed.recipient_id or "", now)
    unread = [entry for entry in entries if not entry.read]
    newest = max(unread or entries, key=lambda entry: (entry.created_at, entry.notification_id))
    language = language_of(claimed.locale, templates.words)
    context = frame(claimed, sender.name, templates.words)
    context |= {
        **reason_of("digest", [], claimed, sender.name, templates.words),
        "title": "",
        "text": "",
        "newest": one_line(newest.title or newest.label, 120),
        "unread": len(unread),
        "unsubscribe_url": unsubscribe_url,
    }
    context["text"] = " · ".join(_counts(entries, language))
    context |= words_of(templates.said([f"{_NAME}.words.txt"], context), context)
    html, groups = _html(entries, language, context, links, now, templates)
    text = templates.render([f"{_NAME}.txt"], context | {"groups": groups})
    mail = Mail(
        message_id=message_id(claimed, links, sender),
        subject=one_line(context["subject"], SUBJECT_CHARACTERS),
        text=text.strip() + "\n",
        html=html,
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


def _counts(entries: Sequence[Entry], language: Language) -> list[str]:
    """How many are unread in each category that has some."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.category_label] = counts.get(entry.category_label, 0) + (not entry.read)
    return [f"{language.label(category)}: {count}" for category, count in counts.items() if count]


def _html(
    entries: Sequence[Entry],
    language: Language,
    context: dict[str, Any],
    links: Links,
    now: datetime,
    templates: Templates,
) -> tuple[str, list[dict[str, Any]]]:
    """The HTML part, and what it shows: as many entries as a mail client does."""
    html, groups = "", list[dict[str, Any]]()
    for most in _SHOWN_OF_ALL:
        groups = _groups(entries, language, most, links, now)
        html = templates.render([f"{_NAME}.html"], context | {"groups": groups})
        if fits(html):
            break
    return html, groups


def _groups(
    entries: Sequence[Entry], language: Language, most: int, links: Links, now: datetime
) -> list[dict[str, Any]]:
    """By category; where there are too many in all, each shows its share."""
    groups = [list(group) for _, group in groupby(entries, key=lambda entry: entry.category)]
    share = min(SHOWN, max(1, most // len(groups)))
    shown = [_group(group, language, share, links, now) for group in groups[:most]]
    for group in groups[most:]:
        shown[-1]["more"] += len(group)
    return shown


def _group(
    entries: list[Entry], language: Language, most: int, links: Links, now: datetime
) -> dict[str, Any]:
    """One category: those unread first to be shown, newest first."""
    shown = sorted(entries, key=lambda entry: entry.read)[:most]
    return {
        "category": entries[0].category,
        "label": language.label(entries[0].category_label),
        "unread": sum(not entry.read for entry in entries),
        "more": len(entries) - len(shown),
        "entries": [
            _entry(entry, language, links, now)
            for entry in sorted(shown, key=lambda entry: entry.created_at, reverse=True)
        ],
    }


def _entry(entry: Entry, language: Language, links: Links, now: datetime) -> dict[str, Any]:
    text = entry.body or to_text(sanitise(entry.body_html or "", base_url=links.public_url))
    leads_somewhere = entry.action_url and links.absolute(entry.action_url)
    return {
        "title": one_line(entry.title or entry.label, SUBJECT_CHARACTERS),
        "excerpt": one_line(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
        "label": language.label(entry.label),
        "read": entry.read,
        "at": entry.created_at,
        "open_url": links.open(entry.notification_id, entry.recipient_id, now)
        if leads_somewhere
        else None,
    }
