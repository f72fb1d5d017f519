"""One mail for several deliveries to one person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from tocsin.engine.because import why
from tocsin.engine.language import Words
from tocsin.engine.links import Links
from tocsin.engine.mail_context import (
    PREHEADER_CHARACTERS,
    context_of,
    frame,
    inbox_url,
    reason_of,
    with_shorter_body,
    words_of,
)
from tocsin.engine.mail_templates import DEFAULT, Templates, names_of
from tocsin.engine.model import Claimed, Mail, Message
from tocsin.engine.one_line import one_line
from tocsin.engine.render import (
    SUBJECT_CHARACTERS,
    Sender,
    fits,
    headers,
    message_id,
    mute_url_of,
    unsubscribe_url_of,
)

_NAME = "notifications/burst_email"


class _Size(Struct, frozen=True):
    """How much of a burst its mail shows."""

    full: int  # notifications with their body,
    shown: int  # and with those that are one line
    body: int  # bytes of one
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_SIZES = (
    _Size(full=10, shown=30, body=4_000, title=SUBJECT_CHARACTERS),
    _Size(full=10, shown=30, body=1_000, title=SUBJECT_CHARACTERS),
    _Size(full=10, shown=30, body=250, title=100),
    _Size(full=5, shown=20, body=250, title=60),
    _Size(full=0, shown=10, body=0, title=60),
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
    shown = newest_first[: _SIZES[0].shown]
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
    context |= words_of(templates.said([f"{_NAME}.words.txt"], context), context)
    text, html = _parts(shown, context, templates)
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


def _parts(
    shown: Sequence[Claimed], context: dict[str, Any], templates: Templates
) -> tuple[str, str]:
    """Text and HTML; by our own templates where a host's write too much whatever is left out."""
    for size in _SIZES:
        text, html = _rendered(shown, context, size, templates)
        if fits(html, text, templates):
            return text, html
    return _rendered(shown, context, _SIZES[-1], DEFAULT)


def _rendered(
    shown: Sequence[Claimed], context: dict[str, Any], size: _Size, templates: Templates
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
    return templates.render([f"{_NAME}.txt"], cut), templates.render([f"{_NAME}.html"], cut)
