"""The digest: one mail that says what happened in a day or a week, grouped by category."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from msgspec import Struct

from tocsin.engine.language import Language, language_of
from tocsin.engine.links import Links
from tocsin.engine.mail_context import frame, inbox_url, reason_of, words_of
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
# More of one category than this are counted, not shown.
SHOWN = 15
EXCERPT_CHARACTERS = 200


class _Size(Struct, frozen=True):
    """How much a digest shows."""

    full: int  # entries with an excerpt,
    shown: int  # and with those that are one line
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_SIZES = (
    _Size(full=10, shown=30, title=SUBJECT_CHARACTERS),
    _Size(full=10, shown=20, title=100),
    _Size(full=0, shown=10, title=60),
)


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
        "inbox_url": inbox_url(claimed, links, templates.brand.inbox),
        "unsubscribe_url": unsubscribe_url,
    }
    context["text"] = " · ".join(_counts(entries, language))
    context |= words_of(templates.said([f"{_NAME}.words.txt"], context), context)
    text, html = _parts(entries, language, context, links, now, templates)
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


def _parts(
    entries: Sequence[Entry],
    language: Language,
    context: dict[str, Any],
    links: Links,
    now: datetime,
    templates: Templates,
) -> tuple[str, str]:
    """Text and HTML; by our own templates where a host's write too much whatever is left out."""

    def rendered(size: _Size, by: Templates) -> tuple[str, str]:
        whole = context | {"groups": _groups(entries, language, size, links, now)}
        return by.render([f"{_NAME}.txt"], whole), by.render([f"{_NAME}.html"], whole)

    for size in _SIZES:
        text, html = rendered(size, templates)
        if fits(html, text, templates):
            return text, html
    return rendered(_SIZES[-1], DEFAULT)


def _groups(
    entries: Sequence[Entry], language: Language, size: _Size, links: Links, now: datetime
) -> list[dict[str, Any]]:
    """By category; where there are too many in all, each shows its share."""
    groups = [list(group) for _, group in groupby(entries, key=lambda entry: entry.category)]
    # the largest share of a category with which all fit
    counts = [len(group) for group in groups]
    shares = range(SHOWN, 0, -1)
    share = next((n for n in shares if sum(min(n, count) for count in counts) <= size.shown), 1)
    shown = [_group(group, language, share, size, links, now) for group in groups[: size.shown]]
    for group in groups[size.shown :]:
        shown[-1]["more"] += len(group)
    unread = [entry for group in shown for entry in group["entries"] if not entry["read"]]
    # the newest of each category first, so that none is lines alone while another has room
    in_turn = sorted(unread, key=lambda entry: entry["place"])
    for entry in in_turn[size.full :]:
        entry["brief"] = True
    return shown


def _group(
    entries: list[Entry], language: Language, most: int, size: _Size, links: Links, now: datetime
) -> dict[str, Any]:
    """One category: those unread first to be shown, newest first."""
    shown = sorted(entries, key=lambda entry: entry.read)[:most]
    in_order = sorted(shown, key=lambda entry: entry.created_at, reverse=True)
    return {
        "category": entries[0].category,
        "label": language.label(entries[0].category_label),
        "unread": sum(not entry.read for entry in entries),
        "more": len(entries) - len(shown),
        "entries": [
            _entry(entry, language, links, now, title=size.title) | {"place": place}
            for place, entry in enumerate(in_order)
        ],
    }


def _entry(
    entry: Entry, language: Language, links: Links, now: datetime, *, title: int
) -> dict[str, Any]:
    text = entry.body or to_text(sanitise(entry.body_html or "", base_url=links.public_url))
    leads_somewhere = entry.action_url and links.absolute(entry.action_url)
    return {
        "title": one_line(entry.title or entry.label, title),
        "excerpt": one_line(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
        "label": language.label(entry.label),
        "read": entry.read,
        "brief": False,
        "at": entry.created_at,
        "open_url": links.open(entry.notification_id, entry.recipient_id, now)
        if leads_somewhere
        else None,
    }
