"""From claimed deliveries to the mail that an actor sends: of one, of several, or of a digest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar

from msgspec import Struct, structs

from tocsin.engine.mail.brand import Brand
from tocsin.engine.mail.context import (
    PREHEADER_CHARACTERS,
    Rendering,
    actions_variables,
    inbox_url,
    layout_context,
    notification_context,
    reason_code,
    reason_variables,
    with_defaults,
    with_shorter_body,
)
from tocsin.engine.mail.language import Language, Words, language_of
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates, names_of
from tocsin.engine.mail.precompiled import PrecompiledMails
from tocsin.engine.mail.render_single import (
    SUBJECT_CHARACTERS,
    Written,
    fits,
    mute_url_of,
    render_mail,
    thread_headers,
    to_message,
    to_sender,
    unsubscribe_url_of,
)
from tocsin.engine.model import Claimed, Entry, Mail, Message
from tocsin.engine.text import GroupFacts, about_of, group_title, one_line, sanitise, to_text

RenderMail = Callable[[Sequence[Claimed], Sequence[Entry]], Message]
Size = TypeVar("Size")


def mail_renderer(
    links: Links, email_from: str, templates: Templates = DEFAULT, *, precompile: bool = True
) -> RenderMail:
    """Returns a function that renders the mails of one service, at the present time."""
    from_header = to_sender(email_from)
    precompiled = PrecompiledMails() if precompile else None

    def render(together: Sequence[Claimed], entries: Sequence[Entry]) -> Message:
        first = together[0]
        sender = structs.replace(from_header, name=templates.brand.name or from_header.name)
        by = Rendering(links, sender, datetime.now(UTC), templates)
        if first.digest_id is not None:
            message = render_digest(first, entries, by)
        elif len(together) > 1 or first.counted:
            message = render_burst(together, by)
        else:
            message = render_mail(first, by, precompiled)
        return _with_brand(message, templates.brand)

    return render


def _with_brand(message: Message, brand: Brand) -> Message:
    """Adds the logo, if the mail shows it, and the address for replies."""
    mail = message.content
    assert isinstance(mail, Mail)
    if brand.image and f"cid:{brand.image.content_id}" in mail.html:
        mail = structs.replace(mail, images=(brand.image,))
    if brand.reply_to:
        mail = structs.replace(mail, headers=(*mail.headers, ("Reply-To", brand.reply_to)))
    return message if mail is message.content else structs.replace(message, content=mail)


def _first_that_fits(
    sizes: Sequence[Size], render: Callable[[Size, Templates], Written], templates: Templates
) -> Written:
    """Renders with less and less; with the shipped templates if a host's write too much at every size."""
    for size in sizes:
        written = render(size, templates)
        if fits(written.html, written.text, templates):
            return written
    return render(sizes[-1], DEFAULT)


# A digest: one mail about what happened in a day or a week, grouped by category.

_DIGEST_TEMPLATE = "notifications/digest_email"
# More of one category than this are counted, not shown.
SHOWN = 15
EXCERPT_CHARACTERS = 200


class _DigestSize(Struct, frozen=True):
    """How much a digest shows."""

    full: int  # entries with an excerpt,
    shown: int  # and with those that are one line
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_DIGEST_SIZES = (
    _DigestSize(full=10, shown=30, title=SUBJECT_CHARACTERS),
    _DigestSize(full=10, shown=20, title=100),
    _DigestSize(full=0, shown=10, title=60),
)


def render_digest(claimed: Claimed, entries: Sequence[Entry], by: Rendering) -> Message:
    """Renders one digest; the same at each attempt, unless something in it was cancelled since."""
    unsubscribe_url = by.links.unsubscribe_digest(claimed.recipient_id or "", by.now)
    merged = merged_entries(entries, claimed.locale)
    unread = [entry for entry in merged if not entry.read]
    newest = max(unread or merged, key=lambda entry: (entry.created_at, entry.notification_id))
    count = sum(entry.count for entry in unread)
    language = language_of(claimed.locale, by.words)
    context = layout_context(claimed, by) | {
        **reason_variables("digest", [], claimed, by),
        "title": "",
        "text": " · ".join(_counts(entries, language)),
        "newest": one_line(newest.title or newest.label, 120),
        "unread": count,
        "rest": max(count - newest.count, 0),
        "inbox_url": inbox_url(claimed, by),
        "unsubscribe_url": unsubscribe_url,
    }
    context |= _words(_DIGEST_TEMPLATE, context, by.templates)

    def rendered(size: _DigestSize, templates: Templates) -> Written:
        groups = _groups(merged, language, size, by)
        return _parts(_DIGEST_TEMPLATE, context | {"groups": groups}, templates)

    return to_message(
        claimed,
        by,
        subject=one_line(context["subject"], SUBJECT_CHARACTERS),
        written=_first_that_fits(_DIGEST_SIZES, rendered, by.templates),
        about=("digest", "digest"),
        unsubscribe_url=unsubscribe_url,
        contents=tuple(sorted(entry.notification_id for entry in entries)),
    )


def _counts(entries: Sequence[Entry], language: Language) -> list[str]:
    """Returns how many are unread in each category that has some."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.category_label] = counts.get(entry.category_label, 0) + (not entry.read)
    return [f"{language.label(category)}: {count}" for category, count in counts.items() if count]


def _words(template: str, context: dict[str, Any], templates: Templates) -> dict[str, Any]:
    return with_defaults(templates.variables([f"{template}.words.txt"], context), context)


def _parts(template: str, context: dict[str, Any], templates: Templates) -> Written:
    text = templates.render([f"{template}.txt"], context)
    return Written(text, templates.render([f"{template}.html"], context))


def _groups(
    entries: Sequence[Entry], language: Language, size: _DigestSize, by: Rendering
) -> list[dict[str, Any]]:
    """Returns the groups by category; if there are too many entries in all, each shows its share."""
    groups = [list(group) for _, group in groupby(entries, key=lambda entry: entry.category)]
    # the largest share of a category with which all fit
    counts = [len(group) for group in groups]
    shares = range(SHOWN, 0, -1)
    share = next((n for n in shares if sum(min(n, count) for count in counts) <= size.shown), 1)
    shown = [_group(group, language, share, size, by) for group in groups[: size.shown]]
    for group in groups[size.shown :]:
        shown[-1]["more"] += sum(entry.count for entry in group)
    unread = [entry for group in shown for entry in group["entries"] if not entry["read"]]
    # the newest of each category first, so that each category has some in full
    in_turn = sorted(unread, key=lambda entry: entry["place"])
    for entry in in_turn[size.full :]:
        entry["brief"] = True
    return shown


def _group(
    entries: list[Entry], language: Language, most: int, size: _DigestSize, by: Rendering
) -> dict[str, Any]:
    """Returns one category. Unread entries are chosen before read ones, and shown newest first."""
    shown = sorted(entries, key=lambda entry: entry.read)[:most]
    in_order = sorted(shown, key=lambda entry: entry.created_at, reverse=True)
    return {
        "category": entries[0].category,
        "label": language.label(entries[0].category_label),
        "unread": sum(entry.count for entry in entries if not entry.read),
        "more": sum(entry.count for entry in entries) - sum(entry.count for entry in shown),
        "entries": [
            _entry(entry, language, size, by) | {"place": place}
            for place, entry in enumerate(in_order)
        ],
    }


def _entry(entry: Entry, language: Language, size: _DigestSize, by: Rendering) -> dict[str, Any]:
    text = entry.body or to_text(sanitise(entry.body_html or "", base_url=by.links.public_url))
    has_target = entry.action_url and by.links.absolute(entry.action_url)
    return {
        "title": one_line(entry.title or entry.label, size.title),
        "excerpt": one_line(text[: 4 * EXCERPT_CHARACTERS], EXCERPT_CHARACTERS),
        "label": language.label(entry.label),
        "read": entry.read,
        "brief": False,
        "at": entry.created_at,
        "open_url": by.links.open(entry.notification_id, entry.recipient_id, by.now)
        if has_target
        else None,
        **actions_variables(entry, by),
    }


# A burst: one mail for several deliveries to one person that are due together.

_BURST_TEMPLATE = "notifications/burst_email"


class _BurstSize(Struct, frozen=True):
    """How much of a burst its mail shows."""

    full: int  # notifications with their body,
    shown: int  # and with those that are one line
    body: int  # bytes of one
    title: int  # characters of one


# Each in turn, until the mail is small enough.
_BURST_SIZES = (
    _BurstSize(full=10, shown=30, body=4_000, title=SUBJECT_CHARACTERS),
    _BurstSize(full=10, shown=30, body=1_000, title=SUBJECT_CHARACTERS),
    _BurstSize(full=10, shown=30, body=250, title=100),
    _BurstSize(full=5, shown=20, body=250, title=60),
    _BurstSize(full=0, shown=10, body=0, title=60),
)


def render_burst(together: Sequence[Claimed], by: Rendering) -> Message:
    """Renders several, the newest first; the same deliveries get the same Message-ID at each attempt."""
    first, count = first_of(together), count_of(together)
    newest_first = sorted(together, key=lambda one: one.delivery_id, reverse=True)
    groups = by_subject(newest_first)
    line = line_of(groups[0], first.locale)
    shown = [one for group in groups for one in group][: _BURST_SIZES[0].shown]
    items = [_item(one, by) for one in shown]
    unsubscribe_url = unsubscribe_url_of(newest_first, by)
    context = _burst_context(newest_first, items, by) | {
        "newest": one_line(
            line or groups[0][0].title or groups[0][0].label, SUBJECT_CHARACTERS - 40
        ),
        "count": count,
        "rest": count - (len(groups[0]) if line else 1),
        "inbox_url": inbox_url(first, by),
        "unsubscribe_url": unsubscribe_url,
        "mute_url": mute_url_of(newest_first, unsubscribe_url),
    }
    context |= _words(_BURST_TEMPLATE, context, by.templates)

    def rendered(size: _BurstSize, templates: Templates) -> Written:
        cut = _shortened_items(shown, items, size, templates.words)
        more = count - len(cut)
        return _parts(_BURST_TEMPLATE, context | {"items": cut, "more": more}, templates)

    return to_message(
        first,
        by,
        subject=one_line(context["subject"], SUBJECT_CHARACTERS + PREHEADER_CHARACTERS),
        written=_first_that_fits(_BURST_SIZES, rendered, by.templates),
        about=(first.event_type, first.category),
        unsubscribe_url=None if all(one.mandatory for one in together) else unsubscribe_url,
        thread=thread_headers(together, by),
        others=tuple(one.delivery_id for one in together if one is not first),
    )


def first_of(together: Sequence[Claimed]) -> Claimed:
    """Returns the delivery whose id the message has at each attempt."""
    return min(together, key=lambda one: (one.delivery_id != one.burst_id, one.delivery_id))


def count_of(together: Sequence[Claimed]) -> int:
    """Returns how many notifications a message is about, with those that it only counts."""
    return len(together) + sum(len(one.counted or ()) for one in together)


def _item(one: Claimed, by: Rendering) -> dict[str, Any]:
    context = notification_context(one, by)
    variables = by.templates.variables(names_of(one.event_type, "words.txt"), context)
    return context | with_defaults(variables, context)


def _burst_context(
    together: Sequence[Claimed], items: Sequence[dict[str, Any]], by: Rendering
) -> dict[str, Any]:
    """Returns the variables of the layout; its reason is the one that all have, or that mails of the types are on."""
    reasons = {(reason_code(one), one.topic) for one in together}
    code = reason_code(together[0]) if len(reasons) == 1 else "on"
    titles = [one_line(item["title"] or item["label"], SUBJECT_CHARACTERS - 40) for item in items]
    return layout_context(together[0], by) | {
        **reason_variables(code, [item["label"] for item in items], together[0], by),
        "title": "",
        "items": items,
        "text": " · ".join(titles[1:]),
    }


def _shortened_items(
    shown: Sequence[Claimed], items: Iterable[dict[str, Any]], size: _BurstSize, words: Words | None
) -> list[dict[str, Any]]:
    return [
        {
            **with_shorter_body(item, size.body if place < size.full else 0, one, words),
            "title": one_line(item["title"], size.title),
            "brief": place >= size.full,
        }
        for place, (one, item) in enumerate(zip(shown, items, strict=True))
    ][: size.shown]


def merged_entries(entries: Sequence[Entry], locale: str | None) -> list[Entry]:
    """Returns unread entries of one type and subject as one where there is a line for all of them."""
    groups: dict[Hashable, list[Entry]] = {}
    for place, entry in enumerate(entries):
        groups.setdefault(_key(entry, place, alone=entry.read), []).append(entry)
    return [entry for group in groups.values() for entry in _merged(group, locale)]


def by_subject(newest_first: Sequence[Claimed]) -> list[list[Claimed]]:
    """Returns the deliveries of a mail in groups of one type and subject, the group with the newest first."""
    groups: dict[Hashable, list[Claimed]] = {}
    for place, one in enumerate(newest_first):
        groups.setdefault(_key(one, place, alone=one.title_many is None), []).append(one)
    return list(groups.values())


def line_of(newest_first: Sequence[Claimed] | Sequence[Entry], locale: str | None) -> str | None:
    """Returns one line for several, such as "Alice and 4 others replied"; None if there is none."""
    newest = newest_first[0]
    people = {one.initiator for one in newest_first if one.initiator is not None}
    about = about_of(newest.metadata) if isinstance(newest, Claimed) else newest.about
    facts = GroupFacts(
        len(newest_first),
        newest.title or newest.label,
        newest.initiator_name,
        len(people - {newest.initiator}),
        about,
    )
    line = group_title(newest.title_many, locale, facts)
    return None if line == facts.title else line


def _key(one: Claimed | Entry, place: int, *, alone: bool) -> Hashable:
    if alone or one.subject is None:
        return place
    return one.event_type, one.subject


def _merged(group: Sequence[Entry], locale: str | None) -> Sequence[Entry]:
    newest_first = sorted(
        group, key=lambda one: (one.created_at, one.notification_id), reverse=True
    )
    line = line_of(newest_first, locale)
    if line is None:
        return group
    return [structs.replace(newest_first[0], title=line, actions=None, count=len(group))]
