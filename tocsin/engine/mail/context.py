"""What a mail's templates may use. The names are the contract of overriding templates: docs/mail.md lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from tocsin.engine.mail.language import (
    VALUE_CHARACTERS,
    Language,
    Words,
    language_of,
    voice,
    zone_of,
)
from tocsin.engine.mail.links import Links
from tocsin.engine.model import Claimed
from tocsin.engine.text import CONTROL, one_line, sanitise, shortened_bytes, shortened_html, to_text

# Why a mail came, as its footer says it in its reader's language.


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


def why(claimed: Claimed) -> str:
    """The strongest cause that is known, as one word for templates."""
    if claimed.mandatory:
        return "mandatory"
    if claimed.recipient_id is None:
        return "invited"
    cause = claimed.because or claimed.reason
    return cause if cause in _SENTENCES else "on"


def because(
    why: str, language: Language, *, labels: str, service: str, topic: str | None = None
) -> str:
    """The sentence; `labels` and `topic` are quoted by then."""
    sentence = (_NAMED.get(why) if topic else None) or _SENTENCES[why]
    values = {"labels": labels, "service": service, "topic": topic}
    return language.catalogue.gettext(sentence) % values


PREHEADER_CHARACTERS = 140
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")


def context_of(
    claimed: Claimed,
    links: Links,
    service: str,
    now: datetime,
    words: Words | None = None,
    *,
    inbox: str = "/",
) -> dict[str, Any]:
    """All but the words that a template sets itself; `inbox` is where the app shows the inbox."""
    html = sanitise(claimed.body_html, base_url=links.public_url) if claimed.body_html else ""
    body = CONTROL.sub("", _LINE_END.sub("\n", claimed.body)).strip()
    text = body or to_text(html)
    return frame(claimed, service, words) | {
        "title": one_line(claimed.title),
        "text": text,
        "paragraphs": _paragraphs(body),
        "body_html": Markup(html),  # noqa: S704 - sanitised above
        "open_url": _open_url(claimed, links, now),
        "inbox_url": inbox_url(claimed, links, inbox),
        "event_type": claimed.event_type,
        "category": claimed.category,
        "metadata": claimed.metadata,
        "initiator": claimed.initiator,
        "created_at": claimed.created_at,
    }


def frame(claimed: Claimed, service: str, words: Words | None = None) -> dict[str, Any]:
    """What the layout needs around any content."""
    label = _label(claimed.label, claimed.locale, words) if claimed.label else ""
    return {
        **voice(claimed.locale, claimed.zone or zone_of(claimed.timezone), words),
        **reason_of(why(claimed), [label], claimed, service, words),
        "mandatory": claimed.mandatory,
        "invited": claimed.recipient_id is None,
        "mute_url": None,
        "label": label,
        "name": claimed.name,
        "service": _isolated(service, claimed.locale, words),
    }


def reason_of(
    why: str,
    labels: Iterable[str],
    claimed: Claimed,
    service: str,
    words: Words | None = None,
) -> dict[str, str]:
    """Why it came, as a word and as a sentence."""
    topic = claimed.metadata.get("topic_title")
    named = one_line(topic, VALUE_CHARACTERS) if isinstance(topic, str) else ""
    names = tuple(dict.fromkeys(labels))
    sentence = _because(why, names, named, service, claimed.locale, words)
    return {"why": why, "because": sentence}


@lru_cache(maxsize=4096)
def _because(
    why: str,
    labels: tuple[str, ...],
    topic: str,
    service: str,
    locale: str | None,
    words: Words | None,
) -> str:
    language = language_of(locale, words)
    return because(
        why,
        language,
        labels=_quoted(labels, language),
        service=language.isolated(service),
        topic=_quoted([topic], language) if topic else None,
    )


@lru_cache(maxsize=1024)
def _isolated(service: str, locale: str | None, words: Words | None) -> str:
    return language_of(locale, words).isolated(service)


@lru_cache(maxsize=1024)
def _label(label: str, locale: str | None, words: Words | None) -> str:
    return language_of(locale, words).label(one_line(label))


def _quoted(names: Iterable[str], language: Language) -> str:
    """Names as a sentence has them."""
    quote = language.catalogue.gettext("“%(name)s”")
    separator = language.catalogue.pgettext("between names", ", ")
    return separator.join(quote % {"name": language.isolated(name)} for name in names)


def words_of(said: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """What a `words.txt` says; of what it does not say, that which does for any mail."""
    words: dict[str, Any] = {
        "subject": context["title"] or context["label"],
        "preheader": "",
        "button": "",
        "highlight": "",
        "facts": [],
    }
    words |= said
    words["facts"] = [(name, value) for name, value in words["facts"] if value]
    preheader = words["preheader"] or _preheader(words, context)
    words["preheader"] = one_line(preheader, PREHEADER_CHARACTERS)
    return words


def inbox_url(claimed: Claimed, links: Links, inbox: str) -> str | None:
    """Where the person reads all; somebody without an account has no inbox."""
    return None if claimed.recipient_id is None else links.absolute(inbox)


def body_bytes(context: Mapping[str, Any]) -> int:
    """The larger of a body's two forms."""
    return max(len(str(context[key]).encode("utf-8", "replace")) for key in ("text", "body_html"))


def with_shorter_body(
    context: Mapping[str, Any], most: int, claimed: Claimed, words: Words | None
) -> dict[str, Any]:
    """The context with its body cut to so many bytes, and a link to the whole; as it was where it is no longer."""
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
    """What the list view shows after the subject: what matters most, then how the text begins."""
    facts = [f"{name}: {value}" for name, value in words["facts"]]
    parts = [words["highlight"], *facts, context["text"][: 4 * PREHEADER_CHARACTERS]]
    return " · ".join(part for part in parts if part) or context["label"]


def _paragraphs(body: str) -> list[list[str]]:
    return [part.strip().split("\n") for part in _EMPTY_LINE.split(body) if part.strip()]


def _open_url(claimed: Claimed, links: Links, now: datetime) -> str | None:
    """The click-through; without an account there is nothing to mark read, and it leads where it leads."""
    target = links.absolute(claimed.action_url) if claimed.action_url else None
    if target is None or claimed.recipient_id is None:
        return target
    return links.open(claimed.notification_id or 0, claimed.recipient_id, now)
