"""A precompiled mail equals what its templates write, byte by byte; templates that do more are not precompiled."""

from __future__ import annotations

import email
import email.policy
import random
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from tests.support.golden_mails import _ONES as KINDS
from tests.support.golden_mails import LINKS, NOW, SENDER, claimed, claimed_again, content
from tocsin.engine.actors import email_mime as mime
from tocsin.engine.mail.context import Rendering
from tocsin.engine.mail.loader import Templates
from tocsin.engine.mail.precompiled import PrecompiledMails
from tocsin.engine.mail.render_single import render_mail
from tocsin.engine.mail.sandbox import NotPrecompilable, Placeholder
from tocsin.engine.model import Claimed, Filled, Mail

NASTY = "<b>&amp; \"quoted\" 'n' {{ name }} \ue0001:0e\ue001 %s =3D\u2028 . "


class Renderer:
    """Renders single mails, precompiled or not."""

    def __init__(
        self, folder: Path | None = None, *, precompile: bool = True, reload: bool = False
    ) -> None:
        self._templates = Templates(folder, reload=reload)
        self._precompiled = PrecompiledMails() if precompile else None

    def render(self, message: Claimed) -> Mail:
        return content(
            render_mail(
                message,
                Rendering(LINKS, SENDER, NOW, self._templates),
                self._precompiled,
            )
        )


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
def test_a_precompiled_mail_equals_what_its_templates_write(kind: str) -> None:
    precompiling, plain = Renderer(), Renderer(precompile=False)
    mails = [precompiling.render(message) for message in like(KINDS[kind]) * 7]
    for message, mail in zip(like(KINDS[kind]) * 7, mails, strict=True):
        expected = plain.render(message)
        assert (mail.subject, mail.text, mail.html) == (
            expected.subject,
            expected.text,
            expected.html,
        )
        assert mail.headers == expected.headers
    assert mails[-5].filled is not None, "many mails of an event are precompiled"


def test_mails_of_many_events_share_one() -> None:
    precompiling = Renderer()
    mails = [
        precompiling.render(claimed(event_id=n, title=f"Title {n}", metadata={"post_id": n}))
        for n in range(4)
    ]
    assert mails[2].filled is not None
    assert mails[3].filled is not None
    assert mails[2].filled.pieces is mails[3].filled.pieces


COMPUTING = [
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
WRITING = [
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


@pytest.mark.parametrize("source", [*COMPUTING, *WRITING])
def test_whatever_a_template_does_the_mail_is_the_same(tmp_path: Path, source: str) -> None:
    folder = own(tmp_path, source)
    precompiling, plain = Renderer(folder), Renderer(folder, precompile=False)
    for name in ("Alice", "Bob", "alice", NASTY, "Z" * 100, "Bob"):
        message = claimed(name=name, recipient_id=name)
        ours = precompiling.render(message)
        assert ours.html == plain.render(message).html
        assert ours.filled is None or source in WRITING


@pytest.mark.parametrize("source", WRITING)
def test_a_template_that_only_writes_values_is_precompiled(tmp_path: Path, source: str) -> None:
    precompiling = Renderer(own(tmp_path, source))
    for name in ("Alice", "Carol"):
        precompiling.render(claimed(name=name))
    assert precompiling.render(claimed(name="Bob")).filled is not None


def test_a_template_with_random_values_is_not_precompiled(tmp_path: Path) -> None:
    precompiling = Renderer(own(tmp_path, "{{ [1, 2, 3]|random }}"))
    assert [precompiling.render(claimed()).filled for _ in range(5)] == [None] * 5


def test_a_mail_that_gets_too_large_is_cut_by_its_templates() -> None:
    precompiling = Renderer()
    for _ in range(3):
        precompiling.render(claimed())
    large = claimed(body="x" * 120_000 + "\nTwo\n\nThree")
    assert precompiling.render(large) == Renderer(precompile=False).render(large)


def test_a_template_that_changes_is_precompiled_again(tmp_path: Path) -> None:
    folder = own(tmp_path, "before {{ name }}")
    precompiling = Renderer(folder, reload=True)
    for _ in range(3):
        assert "before" in precompiling.render(claimed()).html
    (folder / "notifications" / "forum" / "new_reply.html").write_text("after {{ name }}", "utf-8")
    assert "after Alice" in precompiling.render(claimed()).html


def test_a_placeholder_can_not_be_used_as_a_text() -> None:
    placeholder: Any = Placeholder("x")
    uses: list[Callable[[Any], object]] = [
        *(str, repr, hash, len, list, Markup, "{}".format),
        lambda it: it == 1,
        lambda it: it + "a",
        lambda it: it.upper(),
    ]
    for use in uses:
        with pytest.raises((NotPrecompilable, TypeError)):
            use(placeholder)
    assert placeholder


TEXT = st.text(st.sampled_from("ab =.\té“\r\n<&") | st.characters(codec="utf-8"), max_size=200)


@given(st.lists(TEXT, min_size=1, max_size=6), st.randoms())
@example(["\r", ""], random.Random(0))
def test_a_filled_text_arrives_as_it_is(pieces: list[str], chance: random.Random) -> None:
    values = [chance.choice(["", ".", "x" * 75, "ü" * 40, "a=b ", *pieces]) for _ in pieces[1:]]
    woven = [each for pair in zip(pieces, [*values, ""], strict=True) for each in pair]
    html = "".join(woven)
    mail = Mail("<1@x.test>", "s", "t", html, filled=Filled(tuple(pieces), tuple(values)))
    found = arrived(mail)
    assert found == arrived(Mail("<1@x.test>", "s", "t", html))


def arrived(mail: Mail) -> bytes:
    """Returns the HTML that arrives, without blank lines at its end, which mean nothing in HTML."""
    written = mime.draft(mail, sender="a@b.test")
    assert max(map(len, written.split(b"\r\n"))) <= 78
    assert b"\n" not in written.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(written, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    html = parsed.get_body(("html",))
    assert html is not None
    content = html.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.rstrip(b"\r\n")
