"""One mail for several deliveries to one person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tocsin.engine.links import Links
from tocsin.engine.model import Claimed, Mail, Message
from tocsin.engine.render import (
    PREHEADER_CHARACTERS,
    SUBJECT_CHARACTERS,
    Sender,
    context_of,
    headers,
    message_id,
    mute_url_of,
    one_line,
    shared_template,
    unsubscribe_url_of,
)


def render_burst(
    together: Sequence[Claimed], *, links: Links, sender: Sender, now: datetime
) -> Message:
    """The newest first; the same deliveries get the same Message-ID at each attempt."""
    first = min(together, key=lambda one: one.delivery_id)
    newest_first = sorted(together, key=lambda one: one.delivery_id, reverse=True)
    items = [context_of(one, links, sender, now) for one in newest_first]
    unsubscribe_url = unsubscribe_url_of(newest_first, links, now)
    words = items[0]["words"]
    context = {
        **items[0],
        "title": words["burst_title"].format(count=len(items), service=sender.name),
        "preheader": one_line(
            " · ".join(item["title"] for item in items[1:]), PREHEADER_CHARACTERS
        ),
        "items": items,
        "label": "”, “".join(dict.fromkeys(item["label"] for item in items)),
        "unsubscribe_url": unsubscribe_url,
        "mute_url": mute_url_of(newest_first, unsubscribe_url),
    }
    mail = Mail(
        message_id=message_id(first, links, sender),
        subject=words["burst_subject"].format(
            title=one_line(items[0]["title"], SUBJECT_CHARACTERS - 40), count=len(items) - 1
        ),
        text=shared_template("burst_email.txt").render(context).strip() + "\n",
        html=shared_template("burst_email.html").render(context),
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
