"""One mail for several deliveries to one person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tocsin.engine.language import Words
from tocsin.engine.links import Links
from tocsin.engine.mail_context import (
    PREHEADER_CHARACTERS,
    context_of,
    frame,
    reason_of,
    shortened,
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
# Of one among many.
_MOST_CHARACTERS = 4_000
# Each one's text and title are cut to so many characters, each in turn, until the mail is small enough.
_CUTS = ((1_000, 200), (250, 100), (0, 60))


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
    items = [_item(one, links, sender, now, templates) for one in newest_first]
    unsubscribe_url = unsubscribe_url_of(newest_first, links, now)
    titles = [one_line(item["title"] or item["label"], SUBJECT_CHARACTERS - 40) for item in items]
    context = frame(newest_first[0], sender.name, templates.words)
    context |= {
        **_reason(newest_first, items, sender, templates.words),
        "title": "",
        "newest": titles[0],
        "items": items,
        "text": " · ".join(titles[1:]),
        "unsubscribe_url": unsubscribe_url,
        "mute_url": mute_url_of(newest_first, unsubscribe_url),
    }
    context |= words_of(templates.said([f"{_NAME}.words.txt"], context), context)
    mail = Mail(
        message_id=message_id(first, links, sender),
        subject=one_line(context["subject"], SUBJECT_CHARACTERS + PREHEADER_CHARACTERS),
        text=templates.render([f"{_NAME}.txt"], context).strip() + "\n",
        html=_html(templates, context),
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
    context = context_of(one, links, sender.name, now, templates.words)
    if max(len(context["text"]), len(context["body_html"]) // 2) > _MOST_CHARACTERS:
        context |= shortened(context["text"], _MOST_CHARACTERS)
    return context | words_of(
        templates.said(names_of(one.event_type, "words.txt"), context), context
    )


def _reason(
    together: Sequence[Claimed],
    items: Sequence[dict[str, Any]],
    sender: Sender,
    words: Words | None,
) -> dict[str, str]:
    """The one that all of them have; of several, that mails of these types are on."""
    causes = {(item["why"], one.topic) for one, item in zip(together, items, strict=True)}
    why = items[0]["why"] if len(causes) == 1 else "on"
    labels = [item["label"] for item in items]
    return reason_of(why, labels, together[0], sender.name, words)


def _html(templates: Templates, context: dict[str, Any]) -> str:
    names = [f"{_NAME}.html"]
    html = templates.render(names, context)
    for text, title in _CUTS:
        if fits(html):
            break
        cut = [
            item | shortened(item["text"], text) | {"title": one_line(item["title"], title)}
            for item in context["items"]
        ]
        html = templates.render(names, context | {"items": cut})
    return html
