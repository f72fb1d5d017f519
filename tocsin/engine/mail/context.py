"""The variables of a mail's templates. Their names are public, for templates of host apps: docs/mail.md lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup
from msgspec import Struct

from tocsin.engine.mail.language import (
    VALUE_CHARACTERS,
    Language,
    Words,
    language_of,
    template_functions,
    zone_of,
)
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates
from tocsin.engine.model import Claimed, Entry
from tocsin.engine.text import CONTROL, one_line, sanitise, shortened_bytes, shortened_html, to_text

PREHEADER_CHARACTERS = 140
_NO_HTML = Markup()
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")


class Sender(Struct, frozen=True):
    """The service's name and its mail domain."""

    name: str
    domain: str


class Rendering(Struct, frozen=True):
    """What the mails of one service have in common at one time."""

    links: Links
    sender: Sender
    now: datetime
    templates: Templates = DEFAULT

    @property
    def words(self) -> Words | None:
        """The host's own catalogues."""
        return self.templates.words


def notification_context(claimed: Claimed, by: Rendering) -> dict[str, Any]:
    """Returns the variables of one notification's mail, except those that its `words.txt` sets."""
    html = ""
    if claimed.body_html:
        html = sanitise(claimed.body_html, base_url=by.links.public_url)
    body = CONTROL.sub("", _LINE_END.sub("\n", claimed.body)).strip()
    text = body or to_text(html)
    return layout_context(claimed, by) | {
        "title": one_line(claimed.title),
        "text": text,
        "paragraphs": _paragraphs(body),
        "body_html": Markup(html) if html else _NO_HTML,  # noqa: S704 - sanitised above
        "open_url": _open_url(claimed, by),
        **actions_variables(claimed, by),
        "inbox_url": inbox_url(claimed, by),
        "event_type": claimed.event_type,
        "category": claimed.category,
        "metadata": claimed.metadata,
        "initiator": claimed.initiator,
        "created_at": claimed.created_at,
    }


def actions_variables(of: Claimed | Entry, by: Rendering) -> dict[str, Any]:
    """Returns the actions and the address of their page; none without an account, for which nobody can press one."""
    if not of.actions or of.recipient_id is None or of.notification_id is None:
        return {"actions": [], "actions_url": None}
    return {
        "actions": [
            {"key": each["key"], "label": one_line(each["label"]), "style": each.get("style") or ""}
            for each in of.actions
        ],
        "actions_url": by.links.choose(of.notification_id, of.recipient_id, by.now),
    }


def layout_context(claimed: Claimed, by: Rendering) -> dict[str, Any]:
    """Returns the variables of the layout around any content."""
    words = by.words
    label = _label(claimed.label, claimed.locale, words) if claimed.label else ""
    return {
        **template_functions(claimed.locale, claimed.zone or zone_of(claimed.timezone), words),
        **reason_variables(reason_code(claimed), [label], claimed, by),
        "mandatory": claimed.mandatory,
        "invited": claimed.recipient_id is None,
        "mute_url": None,
        "label": label,
        "name": claimed.name,
        "service": _isolated(by.sender.name, claimed.locale, words),
    }


def with_defaults(variables: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a `words.txt` sets, with defaults for what it does not set."""
    words: dict[str, Any] = {
        "subject": context["title"] or context["label"],
        "preheader": "",
        "button": "",
        "highlight": "",
        "facts": [],
    }
    words |= variables
    words["facts"] = [(name, value) for name, value in words["facts"] if value]
    preheader = words["preheader"] or _preheader(words, context)
    words["preheader"] = one_line(preheader, PREHEADER_CHARACTERS)
    return words


def inbox_url(claimed: Claimed, by: Rendering) -> str | None:
    """Returns the address of the person's inbox in the app; None without an account."""
    return None if claimed.recipient_id is None else by.links.absolute(by.templates.brand.inbox)


def body_bytes(context: Mapping[str, Any]) -> int:
    """Returns the size of a body, in its larger form."""
    return max(len(str(context[key]).encode("utf-8", "replace")) for key in ("text", "body_html"))


def with_shorter_body(
    context: Mapping[str, Any], most: int, claimed: Claimed, words: Words | None
) -> dict[str, Any]:
    """Returns the context with its body cut to so many bytes, and a link to the whole; unchanged if it is shorter."""
    if body_bytes(context) <= most:
        return dict(context)
    url = context["open_url"] or context["inbox_url"]
    label = language_of(claimed.locale, words).catalogue.gettext("Read all")
    link = Markup('<a href="{}">{}</a>').format(url, label) if url else Markup()
    html = shortened_html(context["body_html"], most)
    text = shortened_bytes(context["text"], most)
    paragraphs = [] if html else _paragraphs(text) + ([[link]] if url else [])
    return {
        **context,
        "text": f"{text}\n\n{label}: {url}" if url else text,
        "paragraphs": paragraphs,
        "body_html": Markup(html) + (Markup("<p>{}</p>").format(link) if html and url else ""),  # noqa: S704 - sanitised
    }


def _preheader(words: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Returns what an inbox shows after the subject: the highlight, the facts, and the beginning of the text."""
    facts = [f"{name}: {value}" for name, value in words["facts"]]
    parts = [words["highlight"], *facts, context["text"][: 4 * PREHEADER_CHARACTERS]]
    return " · ".join(part for part in parts if part) or context["label"]


def _paragraphs(body: str) -> list[list[str]]:
    return [part.strip().split("\n") for part in _EMPTY_LINE.split(body) if part.strip()]


def _open_url(claimed: Claimed, by: Rendering) -> str | None:
    """Returns the click-through; without an account, where nothing can be marked read, the action URL itself."""
    target = by.links.absolute(claimed.action_url) if claimed.action_url else None
    if target is None or claimed.recipient_id is None:
        return target
    return by.links.open(claimed.notification_id or 0, claimed.recipient_id, by.now)


# Why a person gets the mail, in its footer.


def _(message: str) -> str:
    """Marks a sentence for the catalogues."""
    return message


_SENTENCES = {
    "mandatory": _(
        "Emails for %(labels)s can’t be turned off: %(service)s has to be able to reach you about this."  # noqa: RUF001
    ),
    "invited": _(
        "You get this because %(service)s was asked to write to this address, which has no account there."
    ),
    "replied": _("You get this because you replied in this thread."),
    "mentioned": _("You get this because you were mentioned in this thread."),
    "followed": _("You get this because you follow this thread."),
    "default": _("You get this because emails for %(labels)s are on by default."),
    "preference": _("You get this because you turned emails for %(labels)s on."),
    "on": _("You get this because emails for %(labels)s are on for you."),
    "digest": _("You get this in place of single emails, as you chose."),
}
_NAMED = {
    "replied": _("You get this because you replied in %(topic)s."),
    "mentioned": _("You get this because you were mentioned in %(topic)s."),
    "followed": _("You get this because you follow %(topic)s."),
}


def reason_code(claimed: Claimed) -> str:
    """Returns the strongest reason that is known, as a word for templates."""
    if claimed.mandatory:
        return "mandatory"
    if claimed.recipient_id is None:
        return "invited"
    reason = claimed.because or claimed.reason
    return reason if reason in _SENTENCES else "on"


def reason_variables(
    code: str, labels: Iterable[str], claimed: Claimed, by: Rendering
) -> dict[str, str]:
    """Returns the reason as a word and as a sentence."""
    topic = claimed.metadata.get("topic_title")
    named = one_line(topic, VALUE_CHARACTERS) if isinstance(topic, str) else ""
    names = tuple(dict.fromkeys(labels))
    sentence = footer_reason(code, names, named, by.sender.name, claimed.locale, by.words)
    return {"why": code, "because": sentence}


@lru_cache(maxsize=4096)
def footer_reason(
    code: str,
    labels: tuple[str, ...],
    topic: str,
    service: str,
    locale: str | None,
    words: Words | None,
) -> str:
    """Returns the sentence in the reader's language."""
    language = language_of(locale, words)
    sentence = (_NAMED.get(code) if topic else None) or _SENTENCES[code]
    return language.catalogue.gettext(sentence) % {
        "labels": _quoted(labels, language),
        "service": language.isolated(service),
        "topic": _quoted([topic], language) if topic else None,
    }


@lru_cache(maxsize=1024)
def _isolated(service: str, locale: str | None, words: Words | None) -> str:
    return language_of(locale, words).isolated(service)


@lru_cache(maxsize=1024)
def _label(label: str, locale: str | None, words: Words | None) -> str:
    return language_of(locale, words).label(one_line(label))


def _quoted(names: Iterable[str], language: Language) -> str:
    """Returns names in quotation marks, for a sentence."""
    quote = language.catalogue.gettext("“%(name)s”")
    separator = language.catalogue.pgettext("between names", ", ")
    return separator.join(quote % {"name": language.isolated(name)} for name in names)
