"""The mail of one delivery, and what all mails have in common: Message-ID, headers, links, size."""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from functools import lru_cache
from typing import Any

import idna
from msgspec import Struct

from tocsin.engine.mail.context import (
    Rendering,
    Sender,
    body_bytes,
    notification_context,
    with_defaults,
    with_shorter_body,
)
from tocsin.engine.mail.links import TAG_HEADER, make_tag
from tocsin.engine.mail.loader import DEFAULT, Templates, names_of
from tocsin.engine.mail.precompiled import PrecompiledMails
from tocsin.engine.model import Claimed, Filled, Mail, Message
from tocsin.engine.text import one_line

SUBJECT_CHARACTERS = 200
# Bytes. Gmail shows no more of a mail than the first 102,400 of its HTML.
LARGEST = 100_000
# Bytes of both parts and the logo as they are sent: with its headers a mail has less than 200,000.
LARGEST_ENCODED = 190_000

# A character is at most 4 bytes, each 3 in quoted-printable: with the largest logo, so many characters always fit.
_ALWAYS_FITS = 12_000
# A body is cut to so many bytes, each in turn, until the mail is small enough.
_CUTS = (60_000, 40_000, 25_000, 15_000, 8_000, 4_000, 1_500, 500)
_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9._-]+")


def to_sender(email_from: str) -> Sender:
    """Returns the sender in `Name <name@example.org>`; its domain takes the place of a missing name."""
    name, address = parseaddr(email_from)
    domain = address.rpartition("@")[2] or "localhost"
    return Sender(name or domain, idna.encode(domain, uts46=True).decode("ascii"))


def render_mail(
    claimed: Claimed, by: Rendering, precompiled: PrecompiledMails | None = None
) -> Message:
    """Renders the mail of one delivery, which has the same Message-ID at each attempt."""
    unsubscribe_url = unsubscribe_url_of([claimed], by)
    context = notification_context(claimed, by)
    context["unsubscribe_url"] = unsubscribe_url
    context["mute_url"] = mute_url_of([claimed], unsubscribe_url)
    written = None
    if precompiled is not None:
        written = _filled(claimed, context, by.templates, precompiled)
    if written is None:
        written = _rendered(claimed, context, by.templates)
    return to_message(
        claimed,
        by,
        subject=one_line(context["subject"], SUBJECT_CHARACTERS) or by.sender.name,
        written=written,
        about=(claimed.event_type, claimed.category),
        unsubscribe_url=None if claimed.mandatory else unsubscribe_url,
        thread=thread_headers([claimed], by),
    )


def to_message(
    claimed: Claimed,
    by: Rendering,
    *,
    subject: str,
    written: Written,
    about: tuple[str, str],
    unsubscribe_url: str | None,
    thread: tuple[tuple[str, str], ...] = (),
    others: tuple[int, ...] = (),
    contents: tuple[int, ...] = (),
) -> Message:
    """Returns a rendered mail as its actor gets it; it is `about` an event type and its category."""
    tag = make_tag(by.links.key, claimed.delivery_id)
    mail = Mail(
        message_id=f"<delivery-{tag}@{by.sender.domain}>",
        subject=subject,
        text=written.text.strip() + "\n",
        html=written.html,
        headers=(*headers(*about, by.sender, unsubscribe_url), (TAG_HEADER, tag), *thread),
        filled=written.filled,
        tag=tag,
    )
    return Message(
        claimed.delivery_id,
        claimed.claim,
        claimed.channel,
        claimed.priority,
        mail,
        others,
        contents,
    )


class Written(Struct, frozen=True):
    """Both parts of a mail."""

    text: str
    html: str
    filled: Filled | None = None


def _filled(
    claimed: Claimed, context: dict[str, Any], templates: Templates, precompiled: PrecompiledMails
) -> Written | None:
    """Fills a precompiled mail, if there is one; its words are added to the context."""
    found = precompiled.get(claimed, context, templates)
    if found is None:
        return None
    worded = context | with_defaults(found.words, context)
    if not (worded["subject"] and worded["preheader"]):  # empty values have no placeholder
        return None
    values = found.html.values(worded)
    html = found.html.filled(values)
    text = found.text.filled(found.text.values(worded))
    if not fits(html, text, templates):
        return None
    context |= worded
    return Written(text, html, Filled(found.html.pieces, tuple(values)))


def _rendered(claimed: Claimed, context: dict[str, Any], templates: Templates) -> Written:
    """Renders the templates, with a shorter body if the mail is too large; their words are added to the context.

    If that is not enough, a host's templates write too much beside the body: the shipped ones are used.
    """
    worded = context | _worded(claimed, context, templates)
    for most in (LARGEST, *_CUTS):
        shorter = with_shorter_body(worded, most, claimed, templates.words)
        # too large in any case: each paragraph has a tag and its style
        if most > _CUTS[-1] and len(shorter["paragraphs"]) * 40 > LARGEST - len(shorter["text"]):
            continue
        written = _parts(claimed, shorter, templates)
        if fits(written.html, written.text, templates):
            context |= worded
            return written
        if body_bytes(worded) <= _CUTS[-1]:
            break
    context |= _worded(claimed, context, DEFAULT)
    return _parts(claimed, with_shorter_body(context, _CUTS[-1], claimed, None), DEFAULT)


def _worded(claimed: Claimed, context: Mapping[str, Any], templates: Templates) -> dict[str, Any]:
    variables = templates.variables(names_of(claimed.event_type, "words.txt"), context)
    return with_defaults(variables, context)


def _parts(claimed: Claimed, context: Mapping[str, Any], templates: Templates) -> Written:
    text = templates.render(names_of(claimed.event_type, "txt"), context)
    return Written(text, templates.render(names_of(claimed.event_type, "html"), context))


def fits(html: str, text: str, templates: Templates) -> bool:
    """Returns whether mail clients show all of it, and it is not larger than a mail may be."""
    if len(html) + len(text) <= _ALWAYS_FITS:
        return True
    image = templates.brand.image
    # base64 in lines of 76 characters
    logo = len(image.content) * 4 // 3 * 78 // 76 + 4 if image else 0
    return (
        len(html.encode("utf-8", "replace")) <= LARGEST
        and _encoded_bytes(html) + _encoded_bytes(text) + logo <= LARGEST_ENCODED
    )


def _encoded_bytes(text: str) -> int:
    """Returns the size in quoted-printable, as actors/email_mime.py writes it."""
    if len(text) > LARGEST_ENCODED:
        return len(text)
    return len(binascii.b2a_qp(text.replace("\n", "\r\n").encode("utf-8", "replace")))


def unsubscribe_url_of(together: Sequence[Claimed], by: Rendering) -> str:
    """Returns the link to turn off the email of all that one mail holds."""
    first = together[0]
    if first.recipient_id is None:
        return by.links.unsubscribe_address(first.invited or "", first.event_type, by.now)
    event_type, *others = dict.fromkeys(one.event_type for one in together)
    return by.links.unsubscribe(
        first.recipient_id, event_type, by.now, others=others, topic=_topic(together)
    )


def mute_url_of(together: Sequence[Claimed], unsubscribe_url: str) -> str | None:
    """Returns the same page with the topic selected, if the mail is about one."""
    return f"{unsubscribe_url}?scope=topic" if _topic(together) else None


def _topic(together: Sequence[Claimed]) -> str | None:
    topics = {one.topic for one in together}
    return topics.pop() if len(topics) == 1 else None


def headers(
    event_type: str, category: str, sender: Sender, unsubscribe_url: str | None
) -> tuple[tuple[str, str], ...]:
    """Returns the headers for mail systems: what this is, and how to unsubscribe, if the reader may."""
    found = _headers_of_type(event_type, category, sender.domain)
    if unsubscribe_url is None:
        return found
    return (
        *found,
        ("List-Unsubscribe", f"<{unsubscribe_url}>"),  # RFC 2369
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),  # RFC 8058
    )


@lru_cache(maxsize=256)
def _headers_of_type(event_type: str, category: str, domain: str) -> tuple[tuple[str, str], ...]:
    category = _NOT_IN_A_TOKEN.sub("-", category)
    token = _NOT_IN_A_TOKEN.sub("-", event_type)
    return (
        ("Auto-Submitted", "auto-generated"),  # RFC 3834
        ("List-Id", f"{category} <{category}.{domain}>"),  # RFC 2919
        ("Feedback-ID", f"{token}:{category}:notification:tocsin"),  # Gmail: four, sender last
        ("X-Tocsin-Event", event_type),
    )


def thread_headers(together: Sequence[Claimed], by: Rendering) -> tuple[tuple[str, str], ...]:
    """Returns the headers by which mail clients show all mails about one subject to one person as a thread."""
    subjects = {one.subject for one in together}
    if len(subjects) != 1 or None in subjects:
        return ()
    first = together[0]
    identity = repr(("thread", first.recipient_id or first.invited, first.subject)).encode()
    proof = hmac.digest(by.links.key, identity, "sha256").hex()[:24]
    thread = f"<thread-{proof}@{by.sender.domain}>"
    return (("In-Reply-To", thread), ("References", thread))
