"""From a claimed delivery to the message that its actor sends: Jinja templates, a text and an HTML part."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from email.utils import parseaddr
from typing import Any

import idna
from msgspec import Struct

from tocsin.engine.links import Links
from tocsin.engine.mail_context import context_of, shortened, words_of
from tocsin.engine.mail_stencils import stencil_of
from tocsin.engine.mail_templates import DEFAULT, Templates, names_of
from tocsin.engine.model import Claimed, Filled, Mail, Message
from tocsin.engine.one_line import one_line

SUBJECT_CHARACTERS = 200
# Gmail shows no more of a mail than its first 102 kB; this is bytes.
LARGEST = 100_000

# Texts are cut to so many characters, each in turn, until the mail is small enough.
_CUTS = (30_000, 8_000, 2_000, 500)
_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9._-]+")


class Sender(Struct, frozen=True):
    """Who the mails are from: the service's name and its mail domain."""

    name: str
    domain: str


def to_sender(email_from: str) -> Sender:
    """The sender in `Name <name@example.org>`; without a name, the domain stands for it."""
    name, address = parseaddr(email_from)
    domain = address.rpartition("@")[2] or "localhost"
    return Sender(name or domain, idna.encode(domain, uts46=True).decode("ascii"))


def render_mail(
    claimed: Claimed,
    *,
    links: Links,
    sender: Sender,
    now: datetime,
    templates: Templates = DEFAULT,
) -> Message:
    """The mail of one delivery; the same delivery gets the same Message-ID at each attempt."""
    unsubscribe_url = unsubscribe_url_of([claimed], links, now)
    context = context_of(claimed, links, sender.name, now, templates.words)
    context["unsubscribe_url"] = unsubscribe_url
    context["mute_url"] = mute_url_of([claimed], unsubscribe_url)
    written = _filled(claimed, context, templates) or _rendered(claimed, context, templates)
    mail = Mail(
        message_id=message_id(claimed, links, sender),
        subject=one_line(context["subject"], SUBJECT_CHARACTERS) or sender.name,
        text=written.text.strip() + "\n",
        html=written.html,
        headers=headers(
            claimed.event_type,
            claimed.category,
            sender,
            None if claimed.mandatory else unsubscribe_url,
        ),
        filled=written.filled,
    )
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, mail)


class _Written(Struct, frozen=True):
    """Both parts of a mail."""

    text: str
    html: str
    filled: Filled | None = None


def _filled(claimed: Claimed, context: dict[str, Any], templates: Templates) -> _Written | None:
    """By the stencil of such mails, where there is one; its words are added to the context."""
    stencil = stencil_of(claimed, context, templates)
    if stencil is None:
        return None
    worded = context | words_of(stencil.said, context)
    if not (worded["subject"] and worded["preheader"]):  # a stencil has no blank for what is empty
        return None
    values = stencil.html.values(worded)
    html = stencil.html.filled(values)
    if not fits(html):
        return None
    context |= worded
    text = stencil.text.filled(stencil.text.values(worded))
    return _Written(text, html, Filled(stencil.html.pieces, tuple(values)))


def _rendered(claimed: Claimed, context: dict[str, Any], templates: Templates) -> _Written:
    """By the templates themselves; their words are added to the context."""
    said = templates.said(names_of(claimed.event_type, "words.txt"), context)
    context |= words_of(said, context)
    text = templates.render(names_of(claimed.event_type, "txt"), context)
    return _Written(text, _html(templates, claimed.event_type, context))


def _html(templates: Templates, event_type: str, context: dict[str, Any]) -> str:
    """The HTML part, its text cut where mail clients would clip it."""
    names = names_of(event_type, "html")
    html = templates.render(names, context)
    for most in _CUTS:
        if fits(html):
            break
        html = templates.render(names, context | shortened(context["text"], most))
    return html


def fits(html: str) -> bool:
    """Whether mail clients show all of it."""
    return len(html) <= LARGEST and len(html.encode()) <= LARGEST


def unsubscribe_url_of(together: Sequence[Claimed], links: Links, now: datetime) -> str:
    """The way to have less of all that one mail holds."""
    first = together[0]
    if first.recipient_id is None:
        return links.unsubscribe_address(first.invited or "", first.event_type, now)
    event_type, *others = dict.fromkeys(one.event_type for one in together)
    return links.unsubscribe(
        first.recipient_id, event_type, now, others=others, topic=_topic(together)
    )


def mute_url_of(together: Sequence[Claimed], unsubscribe_url: str) -> str | None:
    """The same page with the thread chosen, where the mail is about one."""
    return f"{unsubscribe_url}?scope=topic" if _topic(together) else None


def _topic(together: Sequence[Claimed]) -> str | None:
    topics = {one.topic for one in together}
    return topics.pop() if len(topics) == 1 else None


def headers(
    event_type: str, category: str, sender: Sender, unsubscribe_url: str | None
) -> tuple[tuple[str, str], ...]:
    """What tells mail systems what this is, and how its reader can have less of it, where that is theirs to choose."""
    category = _NOT_IN_A_TOKEN.sub("-", category)
    token = _NOT_IN_A_TOKEN.sub("-", event_type)
    found = [
        ("Auto-Submitted", "auto-generated"),  # RFC 3834
        ("List-Id", f"{category} <{category}.{sender.domain}>"),  # RFC 2919
        ("Feedback-ID", f"{token}:{category}:notification:tocsin"),  # Gmail: four, sender last
        ("X-Tocsin-Event", event_type),
    ]
    if unsubscribe_url is not None:
        found += [
            ("List-Unsubscribe", f"<{unsubscribe_url}>"),  # RFC 2369
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),  # RFC 8058
        ]
    return tuple(found)


def message_id(claimed: Claimed, links: Links, sender: Sender) -> str:
    """The same for each attempt, and nothing that others could guess for a delivery."""
    identity = f"message-id {claimed.delivery_id}".encode()
    proof = hmac.digest(links.key, identity, "sha256").hex()[:12]
    return f"<delivery-{claimed.delivery_id}.{proof}@{sender.domain}>"
