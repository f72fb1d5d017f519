"""Rendered mails: their content, what they escape, their headers; and the sanitiser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from tests.support.golden_mails import LINKS, NOW, SENDER, claimed, one
from tocsin.engine.mail.context import Rendering
from tocsin.engine.mail.links import OptOutLink, Unsubscribe, UnsubscribeAddress
from tocsin.engine.mail.loader import Templates, inline_css
from tocsin.engine.mail.render import render_burst
from tocsin.engine.mail.render_push import render_push
from tocsin.engine.model import Mail, Push
from tocsin.engine.text import sanitise, to_text


def render(**changes: Any) -> Mail:
    return one(claimed(**changes))


def headers(mail: Mail) -> dict[str, str]:
    return dict(mail.headers)


# The content.


def test_the_text_part_reads_from_title_to_way_out() -> None:
    lines = render().text.split("\n")
    assert lines[0] == "Bob replied to “Garden plans”"
    assert lines[2:6] == ["The roses came.", "Both boxes.", "", "Shall we plant on Saturday?"]
    assert lines[7].startswith("Read the reply: https://app.example.test/c/")
    assert lines[9] == "-- "
    assert lines[11].startswith("Turn these emails off: https://app.example.test/unsubscribe/")


def test_paragraphs_and_lines_are_kept() -> None:
    html = render(body="one\ntwo\r\n\r\nthree\n \nfour").html
    assert re.findall(r'<p class="paragraph"[^>]*>(.*?)</p>', html) == [
        "one<br>two",
        "three",
        "four",
    ]


def test_links_lead_to_this_delivery() -> None:
    html = render().html
    token = re.search(r"/c/([\w-]+)/", html)
    assert token is not None
    assert LINKS.read_open(token[1], NOW).notification_id == 42
    token = re.search(r"/unsubscribe/([\w-]+)/", html)
    assert token is not None
    assert LINKS.read_unsubscribe(token[1], NOW) == Unsubscribe("alice", "forum.new_reply")


@pytest.mark.parametrize("action_url", [None, "", "javascript:alert(1)", "//evil.test"])
def test_no_button_without_somewhere_to_go(action_url: str | None) -> None:
    mail = render(action_url=action_url)
    assert 'class="button"' not in mail.html
    assert "/c/" not in mail.text + mail.html


def test_mandatory_mail_gives_its_reason_and_has_no_unsubscribe_link() -> None:
    mail = render(mandatory=True)
    assert "unsubscribe" not in (mail.html + mail.text).lower()
    assert "can’t be turned off" in mail.html
    assert "can’t be turned off" in mail.text
    assert "List-Unsubscribe" not in headers(mail)
    assert "List-Unsubscribe-Post" not in headers(mail)


@pytest.mark.parametrize(
    ("locale", "lang", "direction"),
    [
        ("de", "de", "ltr"),
        ("de_DE.UTF-8", "de-DE", "ltr"),
        ("ar-EG", "ar-EG", "rtl"),
        ("he", "he", "rtl"),
        (None, "en", "ltr"),
        ('"><script>', "en", "ltr"),
    ],
)
def test_language_and_direction_follow_the_locale(
    locale: str | None, lang: str, direction: str
) -> None:
    html = render(locale=locale).html
    assert f'<html lang="{lang}" dir="{direction}">' in html
    words = "de" if lang.startswith("de") else "ar" if lang.startswith("ar") else "en"
    footer = f'class="footer" dir="{direction if words != "en" else "ltr"}" lang="{words}"'
    assert footer in html


def test_a_body_in_html_has_a_text_too() -> None:
    mail = render(body="", body_html='<p>See <a href="/x">this</a></p><ul><li>one</li></ul>')
    assert "See this (https://app.example.test/x)\n\n- one" in mail.text
    assert (
        'See <a href="https://app.example.test/x" rel="noopener noreferrer">this</a>' in mail.html
    )


def test_the_frame_is_for_light_and_dark_and_outlook() -> None:
    html = render().html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "prefers-color-scheme: dark" in html
    assert '<!--[if mso]><table role="presentation"' in html
    assert "max-width: 600px" in html
    assert "{{" not in html
    assert "jinja" not in html


def test_an_event_type_may_have_its_own_template(tmp_path: Path) -> None:
    own = (
        '{% extends "notifications/layout.html" %}{% block content %}Own {{ title }}{% endblock %}'
    )
    (tmp_path / "notifications/forum").mkdir(parents=True)
    (tmp_path / "notifications/forum/new_reply.html").write_text(own)
    templates = Templates(tmp_path)
    assert "Own Bob replied" in one(claimed(), templates).html
    assert "Own" not in one(claimed(event_type="forum.mention"), templates).html


# Escaping and injection.

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}"


@pytest.mark.parametrize("field", ["title", "body", "label", "name"])
def test_markup_in_any_field_is_text(field: str) -> None:
    mail = render(**{field: NASTY})
    assert "<script" not in mail.html
    assert "<img" not in mail.html
    if field != "name":
        assert "{{ 7*7 }}" in mail.html
        assert NASTY in mail.text


@given(title=st.text(max_size=400), label=st.text(max_size=50), recipient=st.text(max_size=50))
def test_no_header_can_be_injected(title: str, label: str, recipient: str) -> None:
    mail = render(title=title, label=label, recipient_id=recipient)
    for value in (mail.subject.replace("\u2028", ""), mail.message_id, *headers(mail).values()):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", value)
    assert len(mail.subject) <= 200


def test_the_subject_is_the_title_in_one_line() -> None:
    assert render(title="a\r\nBcc: eve@evil.test\n\tb").subject == "a Bcc: eve@evil.test b"
    assert render(title="x" * 300).subject == "x" * 199 + "…"
    assert render(title="").subject == "New reply"
    assert render(title=" \n ").subject == "New reply"
    assert render(title=" \n ", label="").subject == "Acme"


# Ways out.


def unsubscribe_link(mail: Mail) -> OptOutLink:
    token = headers(mail)["List-Unsubscribe"].strip("<>").rstrip("/").rsplit("/", 1)[1]
    assert token in mail.html
    assert token in mail.text
    return LINKS.read_unsubscribe(token, NOW)


def test_one_mail_of_several_types_names_and_ends_all_of_them() -> None:
    together = [
        claimed(topic="t:1"),
        claimed(delivery_id=8, event_type="forum.mention", label="Mention", topic="t:2"),
        claimed(delivery_id=9, topic="t:1"),
    ]
    mail = render_burst(together, Rendering(LINKS, SENDER, NOW)).content
    assert isinstance(mail, Mail)
    link = unsubscribe_link(mail)
    assert link == Unsubscribe("alice", "forum.new_reply", ("forum.mention",))
    assert "emails for “New reply”, “Mention” are on for you" in mail.text
    assert "Mute" not in mail.text + mail.html


def test_a_mail_about_a_topic_can_mute_it() -> None:
    mail = render(topic="forum.thread:42")
    link = unsubscribe_link(mail)
    assert link == Unsubscribe("alice", "forum.new_reply", topic="forum.thread:42")
    assert re.search(r"Mute this thread: https://\S+/unsubscribe/[\w-]+/\?scope=topic", mail.text)
    assert mail.html.count("?scope=topic") == 1


def test_an_invitation_leads_straight_to_where_it_leads() -> None:
    mail = render(recipient_id=None, invited="zoe@example.com", name=None, locale=None)
    target = "https://app.example.test/forum/threads/42#reply-7"
    assert f"Read the reply: {target}\n" in mail.text
    assert mail.html.count(f'href="{target}"') == 1
    assert "/c/" not in mail.html + mail.text
    assert unsubscribe_link(mail) == UnsubscribeAddress("zoe@example.com", "forum.new_reply")
    assert "which has no account there" in mail.text
    assert "No more emails to this address: https://" in mail.text
    assert "zoe" not in mail.html


# Headers.


def test_headers_state_what_it_is() -> None:
    mail = render()
    found = headers(mail)
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["List-Id"] == "forum <forum.acme.test>"
    assert found["Feedback-ID"] == "forum.new_reply:forum:notification:tocsin"
    assert found["X-Tocsin-Event"] == "forum.new_reply"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert re.fullmatch(
        r"<https://app\.example\.test/unsubscribe/[\w-]+/>", found["List-Unsubscribe"]
    )


def test_the_message_id_is_the_deliverys_own_and_stays() -> None:
    first = render().message_id
    assert re.fullmatch(r"<delivery-7\.[0-9a-f]{12}@acme\.test>", first)
    assert render(attempt=2, title="other").message_id == first
    assert render(delivery_id=8).message_id != first


# CSS.


def test_css_is_inlined_around_jinja() -> None:
    css = ".a { color: red } td { padding: 0 }"
    source = (
        '<!doctype html><html lang="{{ lang }}"><head><title>{{ t }}</title></head><body>'
        '{# note #}<!--[if mso]>{{ mso }}<![endif]--><table>{% for x in xs %}<tr><td class="a">'
        '<a href="{{ x["url"] }}" title="{{ x.t|upper }} & {{ "a" > "b" }}">{{ x.t }}</a></td></tr>{% endfor %}'
        "</table></body></html>"
    )
    inlined = inline_css(source, css)
    for tag in re.findall(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", source):
        assert tag in inlined
    xs = [{"url": "/1", "t": "one"}, {"url": "/2", "t": "two"}]
    html = (
        Environment(autoescape=True).from_string(inlined).render(lang="en", t="T", mso="M", xs=xs)
    )
    assert html.count('<td class="a" style="padding: 0;color: red;">') == 2
    assert html.index("one") < html.index("two") < html.index("</table>")
    assert "<!--[if mso]>M<![endif]-->" in html


def test_a_jinja_tag_where_it_cannot_be_kept_is_an_error_at_load() -> None:
    with pytest.raises(ValueError, match="Jinja"):
        inline_css('<a href="{{ a }}" href="{{ b }}">x</a>', "a { color: red }")


# The sanitiser.

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '<a href="javascript:alert(1)">x</a>',
    '<a href=" javascript:alert(1)">x</a>',
    '<a href="java&#10;script:alert(1)">x</a>',
    '<a href="JaVaScRiPt:alert(1)">x</a>',
    '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    '<a href="vbscript:alert(1)">x</a>',
    '<p onclick="alert(1)">x</p>',
    '<p style="background:url(javascript:alert(1))">x</p>',
    "<style>*{background:url(//evil)}</style>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<form action=//evil><input name=password><button>Log in</button></form>",
    "<base href=//evil>",
    "<meta http-equiv=refresh content=0;url=//evil>",
    "<link rel=stylesheet href=//evil>",
    "<object data=//evil></object><embed src=//evil>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<p><a href='https://ok.test' onmouseover=alert(1) target=_top>x</a>",
    "<template><script>alert(1)</script></template>",
    "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
]
SAFE_TAG = re.compile(
    r"</?(?:p|br|strong|em|b|i|ul|ol|li|blockquote|code|pre|h[1-4]|a)>"
    r'|<a(?: href="(?:https?://|mailto:)[^"<>]*")? rel="noopener noreferrer">'
)


@pytest.mark.parametrize("html", XSS)
def test_nothing_of_an_attack_stays(html: str) -> None:
    rest = SAFE_TAG.sub("", sanitise(html))
    assert "<" not in rest


@given(st.text(alphabet=st.sampled_from("<>/\"'= \nabipscriptonx:&;#!-"), max_size=80))
def test_whatever_comes_only_safe_tags_stay(html: str) -> None:
    assert "<" not in SAFE_TAG.sub("", sanitise(html))


def test_structure_and_links_stay() -> None:
    html = (
        "<h2>T</h2><p>a<br><strong>b</strong> <em>c</em> <b>d</b> <i>e</i></p><ul><li>f</li></ul>"
        "<ol><li>g</li></ol><blockquote>h</blockquote><pre><code>i</code></pre>"
    )
    assert sanitise(html) == html
    assert sanitise('<a href="mailto:a@b.test">m</a>').startswith('<a href="mailto:a@b.test"')


def test_relative_links_become_absolute_in_mails_and_stay_in_inboxes() -> None:
    assert 'href="https://app.test/x"' in sanitise(
        '<a href="/x">x</a>', base_url="https://app.test"
    )
    assert 'href="/x"' in sanitise('<a href="/x">x</a>')


def test_html_reads_as_text() -> None:
    html = '<h1>T</h1><p>a &amp; b<br>c</p><ul><li>one</li><li>two</li></ul><a href="https://x.test">x</a>'
    assert to_text(html) == "T\n\na & b\nc\n\n- one\n- two\n\nx (https://x.test)"


# Threads, and what a phone gets.


def test_mails_about_one_subject_to_one_person_are_a_thread() -> None:
    first = headers(render(subject="forum.thread:42"))
    assert first["In-Reply-To"] == first["References"]
    assert headers(render(subject="forum.thread:42", delivery_id=99)).items() >= {
        ("References", first["References"])
    }
    assert headers(render(subject="forum.thread:43"))["References"] != first["References"]
    other = headers(render(subject="forum.thread:42", recipient_id="bob"))
    assert other["References"] != first["References"]
    assert "References" not in headers(render())


def test_a_burst_is_part_of_a_thread_if_all_of_it_has_one_subject() -> None:
    def burst(*subjects: str) -> dict[str, str]:
        together = [
            claimed(delivery_id=number, subject=subject)
            for number, subject in enumerate(subjects, 1)
        ]
        mail = render_burst(together, Rendering(LINKS, SENDER, NOW)).content
        assert isinstance(mail, Mail)
        return headers(mail)

    single = headers(render(subject="forum.thread:42"))
    assert burst("forum.thread:42", "forum.thread:42")["References"] == single["References"]
    assert "References" not in burst("forum.thread:42", "forum.thread:43")


def test_a_push_carries_the_data_of_the_app_and_drops_an_address_for_which_there_is_no_room() -> (
    None
):
    def data(**changes: Any) -> dict[str, str]:
        push = render_push(claimed(**changes)).content
        assert isinstance(push, Push)
        return push.data

    assert data(data={"room": "7"}, action_url="/x") == {
        "notification_id": "42",
        "event_id": data()["event_id"],
        "event_type": "forum.new_reply",
        "room": "7",
        "action_url": "/x",
    }
    assert "action_url" not in data(data={"x": "y" * 1900}, action_url="/" + "z" * 1500)
