"""From a claimed delivery to the message that its actor sends: Jinja templates, a text and an HTML part."""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from email.utils import parseaddr
from typing import Any

import idna
from msgspec import Struct

from tocsin.engine.mail.context import body_bytes, context_of, with_shorter_body, words_of
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates, names_of
from tocsin.engine.mail.precompiled import Cutter, NotPlain, Pieces, Stencil, probe
from tocsin.engine.model import Claimed, Filled, Mail, Message
from tocsin.engine.text import one_line

# Which mails have a stencil in common: those of one event type and language, or at least those of one event.

# One person's own.
_PERSONAL = ("name", "open_url", "unsubscribe_url", "mute_url")
# What an app says of one event.
_SAID = ("title", "text", "body_html", "initiator", "because")
# Of these a template may make anything, so a stencil for many events leaves them out.
_CLOSED = ("metadata", "created_at")
# Of the words; what is said in them depends on the event.
_WORDED = ("subject", "preheader")


def stencil_of(
    claimed: Claimed, context: Mapping[str, Any], templates: Templates
) -> Stencil | None:
    """That of this mail; None where its templates have to be rendered for it alone."""
    stencils = templates.stencils
    if stencils is None:
        return None
    templates.look_again()
    kind = _kind(claimed, context)
    stencil = stencils.get(kind, lambda: _cut(context, templates, one_event=False))
    if stencil is not None or not stencils.refused(kind):
        return stencil
    event = (kind, _event(context))
    return stencils.get(event, lambda: _cut(context, templates, one_event=True))


def _kind(claimed: Claimed, context: Mapping[str, Any]) -> Hashable:
    """All that templates may look at beside the blanks."""
    return (
        claimed.event_type,
        claimed.locale,
        claimed.timezone,
        claimed.zone,
        context["category"],
        context["label"],
        context["service"],
        context["why"],
        context["mandatory"],
        context["invited"],
        *(bool(context[key]) for key in (*_PERSONAL, *_SAID, *_CLOSED)),
        *map(len, context["paragraphs"]),
    )


def _event(context: Mapping[str, Any]) -> Hashable:
    return (*(context[key] for key in _SAID), repr(context["metadata"]), context["created_at"])


def _cut(context: Mapping[str, Any], templates: Templates, *, one_event: bool) -> Stencil:
    """The stencil of mails like this one; raises NotPlain, and whatever its templates do."""
    event_type = context["event_type"]
    keys = _PERSONAL if one_event else (*_PERSONAL, *_SAID)
    cutter = Cutter()
    blanked = cutter.blanked(context, keys, () if one_event else _CLOSED)
    if not one_event:
        blanked["paragraphs"] = cutter.blanked_lines(context["paragraphs"])
    with cutter.cutting():
        said = templates.said(names_of(event_type, "words.txt"), blanked)
    if not _is_plain(said):
        raise NotPlain
    words = words_of(said, context)
    blanked |= words
    if not one_event:
        blanked |= {key: cutter.blank(key) for key in _WORDED}
        keys = (*keys, *_WORDED)
    probed = probe({**context, **words}, keys, lines=not one_event)
    text, html = (
        _pieces(cutter, templates, names_of(event_type, part), blanked, probed)
        for part in ("txt", "html")
    )
    return Stencil(said, text, html)


def _pieces(
    cutter: Cutter,
    templates: Templates,
    names: Sequence[str],
    blanked: Mapping[str, Any],
    probed: Mapping[str, Any],
) -> Pieces:
    """One part's, if they come to what the template writes."""
    with cutter.cutting():
        pieces = cutter.pieces(templates.render(names, blanked))
    if pieces.filled(pieces.values(probed)) != templates.render(names, probed):
        raise NotPlain
    return pieces


def _is_plain(said: object) -> bool:
    """Whether it holds no blank, and nothing that might."""
    if isinstance(said, Mapping):
        return all(map(_is_plain, said.values()))
    if isinstance(said, list | tuple):
        return all(map(_is_plain, said))
    return said is None or isinstance(said, str | int | float)


SUBJECT_CHARACTERS = 200
# Bytes. Gmail shows no more of a mail than the first 102,400 of its HTML.
LARGEST = 100_000
# Bytes of both parts and the logo as they are sent: with its headers a mail has less than 200,000.
LARGEST_ENCODED = 190_000

# A character is at most 4 bytes, each 3 in quoted-printable: with the largest logo, this many characters always fit.
_SURELY = 12_000
# A body is cut to so many bytes, each in turn, until the mail is small enough.
_CUTS = (60_000, 40_000, 25_000, 15_000, 8_000, 4_000, 1_500, 500)
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
    context = context_of(
        claimed, links, sender.name, now, templates.words, inbox=templates.brand.inbox
    )
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
    text = stencil.text.filled(stencil.text.values(worded))
    if not fits(html, text, templates):
        return None
    context |= worded
    return _Written(text, html, Filled(stencil.html.pieces, tuple(values)))


def _rendered(claimed: Claimed, context: dict[str, Any], templates: Templates) -> _Written:
    """By the templates themselves, the body cut where it is too large; their words are added to the context.

    Where that is not enough, a host's templates write too much beside the body: the mail is rendered by ours.
    """
    worded = context | _worded(claimed, context, templates)
    for most in (LARGEST, *_CUTS):
        shorter = with_shorter_body(worded, most, claimed, templates.words)
        # not worth a try: each paragraph has a tag and its style
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
    return words_of(templates.said(names_of(claimed.event_type, "words.txt"), context), context)


def _parts(claimed: Claimed, context: Mapping[str, Any], templates: Templates) -> _Written:
    text = templates.render(names_of(claimed.event_type, "txt"), context)
    return _Written(text, templates.render(names_of(claimed.event_type, "html"), context))


def fits(html: str, text: str, templates: Templates) -> bool:
    """Whether mail clients show all of it, and it is no larger than a mail may be."""
    if len(html) + len(text) <= _SURELY:
        return True
    image = templates.brand.image
    # base64 in lines of 76 characters
    logo = len(image.content) * 4 // 3 * 78 // 76 + 4 if image else 0
    return (
        len(html.encode("utf-8", "replace")) <= LARGEST
        and _encoded_bytes(html) + _encoded_bytes(text) + logo <= LARGEST_ENCODED
    )


def _encoded_bytes(text: str) -> int:
    """In quoted-printable, as actors/mime.py writes it."""
    if len(text) > LARGEST_ENCODED:
        return len(text)
    return len(binascii.b2a_qp(text.replace("\n", "\r\n").encode("utf-8", "replace")))


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
