"""Which mails have a stencil in common: those of one event type and language, or at least those of one event."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tocsin.engine.blank import NotPlain
from tocsin.engine.mail_context import words_of
from tocsin.engine.mail_templates import Templates, names_of
from tocsin.engine.model import Claimed
from tocsin.engine.stencil import Cutter, Pieces, Stencil, probe

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
