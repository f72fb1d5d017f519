"""Why a mail came, as its footer says it in its reader's language."""

from __future__ import annotations

from tocsin.engine.language import Language
from tocsin.engine.model import Claimed


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
