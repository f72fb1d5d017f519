"""One mail for several deliveries to one person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from msgspec import Struct

from tocsin.engine.mail.context import (
    PREHEADER_CHARACTERS,
    context_of,
    frame,
    inbox_url,
    reason_of,
    why,
    with_shorter_body,
    words_of,
)
from tocsin.engine.mail.language import Language, Words, language_of
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates, names_of
from tocsin.engine.mail.render_single import (
    SUBJECT_CHARACTERS,
    Sender,
    fits,
    headers,
    message_id,
    mute_url_of,
    unsubscribe_url_of,
)
from tocsin.engine.model import Claimed, Entry, Mail, Message
from tocsin.engine.text import one_line, sanitise, to_text

# The digest: one mail that says what happened in a day or a week, grouped by category.

_DIGEST_TEMPLATE = "notifications/digest_email"
# More of one category than this are counted, not shown.
SHOWN = 15
EXCERPT_CHARACTERS = 200


class _DigestSize(Struct, frozen=True):
    """How much a digest shows."""

    full: int  # entries with an excerpt,
    shown: int  # and with those that are one line
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_DIGEST_SIZES = (
    _DigestSize(full=10, shown=30, title=SUBJECT_CHARACTERS),
    _DigestSize(full=10, shown=20, title=100),
    _DigestSize(full=0, shown=10, title=60),
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
    context |= words_of(templates.said([f"{_DIGEST_TEMPLATE}.words.txt"], context), context)
    text, html = _digest_parts(entries, language, context, links, now, templates)
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


def _digest_parts(
    entries: Sequence[Entry],
    language: Language,
    context: dict[str, Any],
    links: Links,
    now: datetime,
    templates: Templates,
) -> tuple[str, str]:
    """Text and HTML; by our own templates where a host's write too much whatever is left out."""

    def rendered(size: _DigestSize, by: Templates) -> tuple[str, str]:
        whole = context | {"groups": _groups(entries, language, size, links, now)}
        return by.render([f"{_DIGEST_TEMPLATE}.txt"], whole), by.render(
            [f"{_DIGEST_TEMPLATE}.html"], whole
        )

    for size in _DIGEST_SIZES:
        text, html = rendered(size, templates)
        if fits(html, text, templates):
            return text, html
    return rendered(_DIGEST_SIZES[-1], DEFAULT)


def _groups(
    entries: Sequence[Entry], language: Language, size: _DigestSize, links: Links, now: datetime
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
    entries: list[Entry],
    language: Language,
    most: int,
    size: _DigestSize,
    links: Links,
    now: datetime,
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


_BURST_TEMPLATE = "notifications/burst_email"


class _BurstSize(Struct, frozen=True):
    """How much of a burst its mail shows."""

    full: int  # notifications with their body,
    shown: int  # and with those that are one line
    body: int  # bytes of one
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_BURST_SIZES = (
    _BurstSize(full=10, shown=30, body=4_000, title=SUBJECT_CHARACTERS),
    _BurstSize(full=10, shown=30, body=1_000, title=SUBJECT_CHARACTERS),
    _BurstSize(full=10, shown=30, body=250, title=100),
    _BurstSize(full=5, shown=20, body=250, title=60),
    _BurstSize(full=0, shown=10, body=0, title=60),
)


def render_burst(
    together: Sequence[Claimed],
    *,
    links: Links,
    sender: Sender,
    now: datetime,
    templates: Templates = DEFAULT,
) -> Message:
    """The newest first; the same deliveries get the same Message-ID at each attempt."""
    first = min(together, key=lambda one: one.delivery_id)
    newest_first = sorted(together, key=lambda one: one.delivery_id, reverse=True)
    shown = newest_first[: _BURST_SIZES[0].shown]
    items = [_item(one, links, sender, now, templates) for one in shown]
    unsubscribe_url = unsubscribe_url_of(newest_first, links, now)
    titles = [one_line(item["title"] or item["label"], SUBJECT_CHARACTERS - 40) for item in items]
    context = frame(newest_first[0], sender.name, templates.words)
    context |= {
        **_reason(newest_first, items, sender, templates.words),
        "title": "",
        "newest": titles[0],
        "items": items,
        "count": len(together),
        "more": len(together) - len(items),
        "inbox_url": inbox_url(first, links, templates.brand.inbox),
        "text": " · ".join(titles[1:]),
        "unsubscribe_url": unsubscribe_url,
        "mute_url": mute_url_of(newest_first, unsubscribe_url),
    }
    context |= words_of(templates.said([f"{_BURST_TEMPLATE}.words.txt"], context), context)
    text, html = _burst_parts(shown, context, templates)
    mail = Mail(
        message_id=message_id(first, links, sender),
        subject=one_line(context["subject"], SUBJECT_CHARACTERS + PREHEADER_CHARACTERS),
        text=text.strip() + "\n",
        html=html,
        headers=headers(first.event_type, first.category, sender, unsubscribe_url),
    )
    return Message(
        first.delivery_id,
        first.claim,
        first.channel,
        first.priority,
        mail,
        others=tuple(one.delivery_id for one in together if one is not first),
    )


def _item(
    one: Claimed, links: Links, sender: Sender, now: datetime, templates: Templates
) -> dict[str, Any]:
    inbox = templates.brand.inbox
    context = context_of(one, links, sender.name, now, templates.words, inbox=inbox)
    said = templates.said(names_of(one.event_type, "words.txt"), context)
    return context | words_of(said, context)


def _reason(
    together: Sequence[Claimed],
    items: Sequence[dict[str, Any]],
    sender: Sender,
    words: Words | None,
) -> dict[str, str]:
    """The one that all of them have; of several, that mails of the types shown are on."""
    causes = {(why(one), one.topic) for one in together}
    cause = why(together[0]) if len(causes) == 1 else "on"
    labels = [item["label"] for item in items]
    return reason_of(cause, labels, together[0], sender.name, words)


def _burst_parts(
    shown: Sequence[Claimed], context: dict[str, Any], templates: Templates
) -> tuple[str, str]:
    """Text and HTML; by our own templates where a host's write too much whatever is left out."""
    for size in _BURST_SIZES:
        text, html = _rendered(shown, context, size, templates)
        if fits(html, text, templates):
            return text, html
    return _rendered(shown, context, _BURST_SIZES[-1], DEFAULT)


def _rendered(
    shown: Sequence[Claimed], context: dict[str, Any], size: _BurstSize, templates: Templates
) -> tuple[str, str]:
    items = [
        {
            **with_shorter_body(item, size.body if place < size.full else 0, one, templates.words),
            "title": one_line(item["title"], size.title),
            "brief": place >= size.full,
        }
        for place, (one, item) in enumerate(zip(shown, context["items"], strict=True))
    ][: size.shown]
    cut = context | {"items": items, "more": context["count"] - len(items)}
    return templates.render([f"{_BURST_TEMPLATE}.txt"], cut), templates.render(
        [f"{_BURST_TEMPLATE}.html"], cut
    )
