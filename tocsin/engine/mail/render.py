"""From claimed deliveries to the message that an actor sends: a mail of one, of several or of a digest, or a push."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar

import msgspec
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
from tocsin.engine.mail.grouping import by_subject, line_of, merged_entries
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
from tocsin.engine.model import Claimed, Entry, Mail, Message, Push, PushButton, PushKind
from tocsin.engine.text import one_line, sanitise, to_text

RenderMail = Callable[[Sequence[Claimed], Sequence[Entry]], Message]
Size = TypeVar("Size")

# Of several badge pushes that wait for a device that is off, the last one is enough.
# Bytes of what a push carries for the app: of the 4096, some are left for its texts.
_LARGEST_PUSH_DATA = 3_000
_BADGE_COLLAPSE_ID = "tocsin-badge"
_FOR_APPS = frozenset({"actions", "actions_path"})  # what an app on a phone needs for its buttons


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


def render_push(claimed: Claimed) -> Message:
    """Returns the push of one delivery; one without an event corrects the badge."""
    if claimed.event_id is None:  # nothing but the number, which is read right before sending
        push = Push(
            kind=PushKind.BADGE, collapse_id=_BADGE_COLLAPSE_ID, expires_at=claimed.expires_at
        )
    else:
        push = _alert(claimed)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, push)


def with_link(message: Message, claimed: Claimed | None, links: Links, inbox: str) -> Message:
    """Returns a push to a browser with the address that it opens: of its notification, or the inbox for several."""
    push, link, now = message.content, links.absolute(inbox), datetime.now(UTC)
    assert isinstance(push, Push)
    if claimed is not None and claimed.notification_id is not None and claimed.recipient_id:
        of = (claimed.notification_id, claimed.recipient_id, now)
        link = links.open(*of, in_push=True)
        push = _with_buttons(push, claimed.actions or (), links.choose(*of))
    return structs.replace(message, content=structs.replace(push, link=link))


def _with_buttons(push: Push, actions: Sequence[Mapping[str, Any]], page: str) -> Push:
    """Returns a push with buttons that lead to the page of the actions, which presses one only if it is asked to."""
    buttons = tuple(
        PushButton(each["key"], each["label"], f"{page}?key={each['key']}") for each in actions
    )
    data = {name: each for name, each in push.data.items() if name not in _FOR_APPS}
    return structs.replace(push, buttons=buttons, data=data)


def render_chat(claimed: Claimed, links: Links) -> Message:
    """Returns what a chat shows of one delivery: its texts, and where it leads."""
    link = links.absolute(claimed.action_url) if claimed.action_url else None
    text = Push(title=claimed.title, body=claimed.body, link=link, expires_at=claimed.expires_at)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, text)


def _alert(claimed: Claimed) -> Push:
    """Returns what people see; `data` has what an app needs to open it."""
    data = {
        "notification_id": str(claimed.notification_id),
        "event_id": str(claimed.event_id),
        "event_type": claimed.event_type,
    }
    data |= claimed.data or {}
    if claimed.actions:
        data |= _actions_data(claimed.actions, claimed.notification_id)
    if (url := claimed.action_url) and _bytes(data) + len(url.encode()) <= _LARGEST_PUSH_DATA:
        data["action_url"] = url  # else the app finds it by the notification's id
    return Push(
        title=claimed.title,
        body=claimed.body,
        data=data,
        thread_id=claimed.category,
        collapse_id=claimed.subject if claimed.replaces else None,
        category=_actions_category(claimed.actions) if claimed.actions else None,
        expires_at=claimed.expires_at,
    )


def _actions_data(
    actions: Sequence[Mapping[str, Any]], notification_id: int | None
) -> dict[str, str]:
    """Returns what an app needs to show the buttons and to press one; at most 1,000 bytes."""
    shown = [{"key": each["key"], "label": each["label"]} for each in actions]
    return {
        "actions": msgspec.json.encode(shown).decode(),
        "actions_path": f"/api/notifications/{notification_id}/actions/",
    }


def _actions_category(actions: Sequence[Mapping[str, Any]]) -> str:
    """Returns a name for these buttons in this order, by which an iOS app registers them."""
    return f"tocsin:{','.join(each['key'] for each in actions)}"


def _bytes(data: dict[str, str]) -> int:
    return len(msgspec.json.encode(data))


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
