"""One push for several notifications, where a limit joined them: how many there are, and the newest of them."""

from __future__ import annotations

from collections.abc import Sequence

from tocsin.engine.mail.grouping import by_subject, line_of
from tocsin.engine.mail.language import Language, language_of
from tocsin.engine.mail.render import count_of, first_of
from tocsin.engine.model import Claimed, Message, Push
from tocsin.engine.text import one_line

_SHOWN = 3
_TITLE_CHARACTERS = 100


def render_push_summary(together: Sequence[Claimed]) -> Message:
    """Returns the push of several deliveries; the same ones have the same id at each attempt."""
    first = first_of(together)
    return Message(
        first.delivery_id,
        first.claim,
        first.channel,
        first.priority,
        _summary(sorted(together, key=lambda one: one.delivery_id, reverse=True)),
        tuple(one.delivery_id for one in together if one is not first),
    )


def _summary(newest_first: Sequence[Claimed]) -> Push:
    newest, count = newest_first[0], count_of(newest_first)
    language = language_of(newest.locale)
    more = how_many_more(count, language)
    groups = by_subject(newest_first)
    titles = [_line(group, language) for group in groups[:_SHOWN]]
    shown = sum(len(group) for group in groups[:_SHOWN])
    one_subject = len(groups) == 1 and count == len(groups[0])
    return Push(
        title=titles[0] if one_subject else more,
        body=newest.body if one_subject else " · ".join(titles) + (" …" if shown < count else ""),
        data={"notifications": str(count)},
        thread_id=newest.category,
        expires_at=max(
            (one.expires_at for one in newest_first if one.expires_at is not None), default=None
        ),
    )


def how_many_more(count: int, language: Language) -> str:
    """Returns `12 more notifications` in a person's language."""
    more = language.catalogue.ngettext(
        "%(num)d more notification", "%(num)d more notifications", count
    )
    return more % {"num": count}


def _line(group: Sequence[Claimed], language: Language) -> str:
    """Returns one line for notifications about one subject."""
    line = line_of(group, language.tag)
    return one_line(line or group[0].title or group[0].label, _TITLE_CHARACTERS)
