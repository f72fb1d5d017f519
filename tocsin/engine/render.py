"""From a claimed delivery to the message that its actor sends: Jinja templates, a text and an HTML part."""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Sequence
from datetime import datetime
from email.utils import parseaddr
from functools import cache
from pathlib import Path
from typing import Any

import idna
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup
from msgspec import Struct

from tocsin.engine.inline_css import InliningLoader
from tocsin.engine.links import Links
from tocsin.engine.model import Claimed, Mail, Message
from tocsin.engine.sanitise import sanitise, to_text

TEMPLATES = Path(__file__).parent / "templates"
SUBJECT_CHARACTERS = 200
PREHEADER_CHARACTERS = 140

_RIGHT_TO_LEFT = frozenset(
    {"ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"}
)
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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


def render_mail(claimed: Claimed, *, links: Links, sender: Sender, now: datetime) -> Message:
    """The mail of one delivery; the same delivery gets the same Message-ID at each attempt."""
    unsubscribe_url = unsubscribe_url_of([claimed], links, now)
    context = context_of(claimed, links, sender, now) | {
        "unsubscribe_url": unsubscribe_url,
        "mute_url": mute_url_of([claimed], unsubscribe_url),
    }
    mail = Mail(
        message_id=message_id(claimed, links, sender),
        subject=one_line(claimed.title or claimed.label, SUBJECT_CHARACTERS) or sender.name,
        text=_template(claimed.event_type, "txt").render(context).strip() + "\n",
        html=_template(claimed.event_type, "html").render(context),
        headers=headers(
            claimed.event_type,
            claimed.category,
            sender,
            None if claimed.mandatory else unsubscribe_url,
        ),
    )
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, mail)


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


def frame(claimed: Claimed, sender: Sender) -> dict[str, Any]:
    """What the layout needs around any content."""
    language = _language(claimed.locale)
    return {
        "mandatory": claimed.mandatory,
        "invited": claimed.recipient_id is None,
        "mute_url": None,
        "label": one_line(claimed.label),
        "name": claimed.name,
        "service": sender.name,
        "lang": language,
        "dir": "rtl" if language.partition("-")[0].lower() in _RIGHT_TO_LEFT else "ltr",
        "words": _words(),
    }


def context_of(claimed: Claimed, links: Links, sender: Sender, now: datetime) -> dict[str, Any]:
    """What a template may use; the names are the contract of overriding templates."""
    html = sanitise(claimed.body_html, base_url=links.public_url) if claimed.body_html else ""
    body = _CONTROL.sub("", claimed.body.replace("\r\n", "\n").replace("\r", "\n")).strip()
    text = body or to_text(html)
    return frame(claimed, sender) | {
        "title": one_line(claimed.title),
        "text": text,
        "paragraphs": [
            part.strip().split("\n") for part in re.split(r"\n[ \t]*\n", body) if part.strip()
        ],
        "body_html": Markup(html),  # noqa: S704 - sanitised above
        "preheader": one_line(text, PREHEADER_CHARACTERS),
        "open_url": _open_url(claimed, links, now),
        "event_type": claimed.event_type,
        "category": claimed.category,
        "metadata": claimed.metadata,
        "initiator": claimed.initiator,
        "created_at": claimed.created_at,
    }


def _open_url(claimed: Claimed, links: Links, now: datetime) -> str | None:
    """The click-through; without an account there is nothing to mark read, and it leads where it leads."""
    target = links.absolute(claimed.action_url) if claimed.action_url else None
    if target is None or claimed.recipient_id is None:
        return target
    return links.open(claimed.notification_id or 0, claimed.recipient_id, now)


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


def one_line(text: str, most: int | None = None) -> str:
    """Without line breaks and control characters, cut at a number of characters."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if most is None or len(line) <= most else line[: most - 1].rstrip() + "…"


def _language(locale: str | None) -> str:
    """The language tag (BCP 47) of a locale such as `de_DE.UTF-8`; English where there is none."""
    tag = (locale or "").partition(".")[0].partition("@")[0].replace("_", "-")
    return tag if _LANGUAGE_TAG.fullmatch(tag) else "en"


@cache
def _words() -> dict[str, str]:
    return {
        key: str(word)
        for key, word in tomllib.loads((TEMPLATES / "en.toml").read_text("utf-8")).items()
    }


@cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(
        loader=InliningLoader(TEMPLATES, "notifications/email.css"),
        autoescape=lambda name: name is None or not name.endswith(".txt"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@cache
def _template(event_type: str, kind: str) -> Template:
    """The template of this event type, or the one for all (`notifications/<category>/<name>.html`)."""
    category, _, name = event_type.partition(".")
    own = f"notifications/{category}/{name}.{kind}"
    return _environment().select_template([own, f"notifications/email.{kind}"])


@cache
def shared_template(name: str) -> Template:
    """One that no event type has of its own."""
    return _environment().get_template(f"notifications/{name}")
