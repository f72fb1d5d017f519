"""A mail by its stencil says what its templates would, byte by byte; templates that do more get none."""

from __future__ import annotations

import email
import email.policy
import random
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from tests.support.golden_mails import _ONES as KINDS
from tests.support.golden_mails import LINKS, NOW, SENDER, claimed, claimed_again, content
from tocsin.engine.actors.email import mime
from tocsin.engine.mail.loader import Templates
from tocsin.engine.mail.precompiled import CUTTING, Blank, NotPlain
from tocsin.engine.mail.render_single import render_mail
from tocsin.engine.model import Claimed, Filled, Mail

NASTY = "<b>&amp; \"quoted\" 'n' {{ name }} \ue0001:0e\ue001 %s =3D\u2028 . "


def render(message: Claimed, templates: Templates) -> Mail:
    return content(render_mail(message, links=LINKS, sender=SENDER, now=NOW, templates=templates))


def without_stencils(folder: Path | None = None) -> Templates:
    templates = Templates(folder)
    templates.stencils = None
    return templates


def like(message: Claimed, **changes: Any) -> list[Claimed]:
    """Mails of the same kind: to others, about something else, with what has to be escaped."""
    nasty = {
        key: NASTY
        for key in ("title", "initiator", "name", "recipient_id")
        if getattr(message, key)
    }
    return [
        message,
        claimed_again(message, delivery_id=8, notification_id=43, recipient_id="bob", name="Bob"),
        claimed_again(message, **(nasty | {"delivery_id": 9, "notification_id": 44} | changes)),
        claimed_again(message, title="Bob & Alice", body=message.body.replace("e", "<é>")),
        claimed_again(message, title=message.title.upper(), action_url="/x?a=b&c=%22'\""),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_by_its_stencil_is_what_its_templates_write(kind: str) -> None:
    templates, plain = Templates(), without_stencils()
    mails = [render(message, templates) for message in like(KINDS[kind]) * 7]
    for message, mail in zip(like(KINDS[kind]) * 7, mails, strict=True):
        expected = render(message, plain)
        assert (mail.subject, mail.text, mail.html) == (
            expected.subject,
            expected.text,
            expected.html,
        )
        assert mail.headers == expected.headers
    assert mails[-5].filled is not None, "many mails of an event have a stencil"


def test_mails_of_many_events_have_a_stencil_in_common() -> None:
    templates = Templates()
    mails = [
        render(claimed(event_id=n, title=f"Title {n}", metadata={"post_id": n}), templates)
        for n in range(4)
    ]
    assert mails[2].filled is not None
    assert mails[3].filled is not None
    assert mails[2].filled.pieces is mails[3].filled.pieces


MORE = [
    "{{ name|upper }}",
    "{{ name|length }}",
    "{{ name ~ '!' }}",
    "{{ name + '!' }}",
    "{{ 'Hi %s' % name }}",
    "{{ 'Hi {}'.format(name) }}",
    "{{ name[:1] }}",
    "{{ name.upper() }}",
    "{{ name.title }}",
    "{% if name == 'Alice' %}A{% else %}B{% endif %}",
    "{% if name in ['Alice'] %}A{% endif %}",
    "{% if 'l' in name %}A{% endif %}",
    "{% if name is string %}A{% endif %}",
    "{% if name is iterable %}A{% endif %}",
    "{% for letter in name %}{{ letter }}.{% endfor %}",
    "{{ [name] }}",
    "{{ [name]|join(',') }}",
    "{{ {'a': name}|tojson }}",
    "{{ [name, 'Carl']|sort|first }}",
    "{{ _('Open in %(service)s', service=name) }}",
    "{{ plain(name) }}",
    "{{ day(name) }}",
    "{{ dict(a=name)|length }}{{ namespace(a=name).a }}",
    "{% set x %}{{ name }}{% endset %}{{ x|length }}",
    "{% set x %}{{ name }}{% endset %}{{ x }}",
    "{% filter upper %}{{ name }}{% endfilter %}",
    "{% macro m() %}{{ name }}{% endmacro %}{{ m()|length }}",
    "{% macro m() %}{{ name }}{% endmacro %}{{ m() ~ m() }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(name) }}",
    "{% autoescape false %}{{ name }}{% endautoescape %}{{ name|safe }}",
    "{{ open_url|urlencode }}",
    "{{ (name or 'x')|e }}",
    "{{ name if name > 'B' else 'x' }}",
    "{{ name|wordcount }}",
    "{{ unsubscribe_url.split('/')|last }}",
]
AS_IT_IS = [
    "{{ name }}",
    "{{ name or 'you' }}",
    "{% if name %}Hi {{ name }}{% endif %}",
    "{% if name is defined and name is not none %}{{ name }}{% endif %}",
    "{% macro m() %}<i>{{ name }}</i>{% endmacro %}{{ m() }}{{ m() }}",
    "{% autoescape false %}{{ name }}{% endautoescape %}",
    "{% for line in [name, 'x'] %}{{ loop.index }} {{ line }}{% endfor %}",
    "{% set who = name %}{{ who }}",
    "{% with who = name %}{{ who }}{% endwith %}",
    '<a href="{{ open_url }}" title="{{ name }}">{{ title }}</a>',
]


def own(folder: Path, source: str) -> Path:
    place = folder / "notifications" / "forum"
    place.mkdir(parents=True)
    (place / "new_reply.html").write_text(
        '{% extends "notifications/layout.html" %}{% block content %}' + source + "{% endblock %}",
        "utf-8",
    )
    return folder


@pytest.mark.parametrize("source", [*MORE, *AS_IT_IS])
def test_whatever_a_template_does_the_mail_is_the_same(tmp_path: Path, source: str) -> None:
    folder = own(tmp_path, source)
    templates, plain = Templates(folder), without_stencils(folder)
    for name in ("Alice", "Bob", "alice", NASTY, "Z" * 100, "Bob"):
        message = claimed(name=name, recipient_id=name)
        ours = render(message, templates)
        assert ours.html == render(message, plain).html
        assert ours.filled is None or source in AS_IT_IS


@pytest.mark.parametrize("source", AS_IT_IS)
def test_what_is_only_written_has_a_stencil(tmp_path: Path, source: str) -> None:
    templates = Templates(own(tmp_path, source))
    for name in ("Alice", "Carol"):
        render(claimed(name=name), templates)
    assert render(claimed(name="Bob"), templates).filled is not None


def test_chance_is_left_to_each_mail(tmp_path: Path) -> None:
    templates = Templates(own(tmp_path, "{{ [1, 2, 3]|random }}"))
    assert [render(claimed(), templates).filled for _ in range(5)] == [None] * 5


def test_a_mail_that_gets_too_large_is_cut_by_its_templates() -> None:
    templates = Templates()
    for _ in range(3):
        render(claimed(), templates)
    large = claimed(body="x" * 120_000 + "\nTwo\n\nThree")
    assert render(large, templates) == render(large, without_stencils())


def test_a_template_that_changes_has_no_old_stencil(tmp_path: Path) -> None:
    folder = own(tmp_path, "before {{ name }}")
    templates = Templates(folder, reload=True)
    for _ in range(3):
        assert "before" in render(claimed(), templates).html
    (folder / "notifications" / "forum" / "new_reply.html").write_text("after {{ name }}", "utf-8")
    assert "after Alice" in render(claimed(), templates).html


def test_a_blank_is_not_taken_for_a_text() -> None:
    blank: Any = Blank("x")
    uses: list[Callable[[Any], object]] = [
        *(str, repr, hash, len, list, Markup, "{}".format),
        lambda it: it == 1,
        lambda it: it + "a",
        lambda it: it.upper(),
    ]
    for use in uses:
        with pytest.raises((NotPlain, TypeError)):
            use(blank)
    assert blank
    assert CUTTING.get() == ""


TEXT = st.text(st.sampled_from("ab =.\té“\r\n<&") | st.characters(codec="utf-8"), max_size=200)


@given(st.lists(TEXT, min_size=1, max_size=6), st.randoms())
def test_a_filled_text_arrives_as_it_is(pieces: list[str], chance: random.Random) -> None:
    values = [chance.choice(["", ".", "x" * 75, "ü" * 40, "a=b ", *pieces]) for _ in pieces[1:]]
    woven = [each for pair in zip(pieces, [*values, ""], strict=True) for each in pair]
    html = "".join(woven)
    mail = Mail("<1@x.test>", "s", "t", html, filled=Filled(tuple(pieces), tuple(values)))
    told = arrived(mail)
    assert told == arrived(Mail("<1@x.test>", "s", "t", html))


def arrived(mail: Mail) -> object:
    written = mime.draft(mail, sender="a@b.test")
    assert max(map(len, written.split(b"\r\n"))) <= 78
    assert b"\n" not in written.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(written, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    html = parsed.get_body(("html",))
    assert html is not None
    return html.get_payload(decode=True)
