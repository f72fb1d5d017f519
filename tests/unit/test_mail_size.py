"""No mail is clipped by Gmail or larger than 200 kB, whatever is in it and whatever a host's templates write."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypotheses
from hypothesis import strategies as st

from tests.support.golden_mails import LINKS, NOW, SENDER, claimed, content
from tocsin.engine.actors.email_mime import complete, draft, to_address, to_sender
from tocsin.engine.mail.context import Rendering
from tocsin.engine.mail.loader import DEFAULT, Templates
from tocsin.engine.mail.render import render_burst, render_digest
from tocsin.engine.mail.render_single import render_mail
from tocsin.engine.model import Entry, InlineImage, Mail
from tocsin.engine.text import (
    beginning,
    one_line,
    sanitise,
    shortened,
    shortened_bytes,
    shortened_html,
)

CLIP = 102_400
WHOLE = 200_000
LOGO = InlineImage("logo-0", "png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 19_992)
FEW = hypotheses(max_examples=12, deadline=None)

# Worst for one measure or another: bytes, escapes, quoted-printable, tags, one character of many code points.
LETTERS = ["a", "&", '"', "=", "\n", "a\n\n", "é", "語", "😀"]
LETTERS += ["👩‍👩‍👧‍👦", "e\u0301", "\u0301", "\u2028", "\u200b", "<b>", "a " * 50]
HTML = [
    "<p>a</p>",
    "<b>",
    "<p><b><i>",
    "<a href='/a'>b</a>",
    "&lt;",
    "😀",
    "<ul><li>a",
    "</p>",
    "<br>",
    "x" * 999,
]
texts = st.tuples(st.sampled_from(LETTERS), st.integers(0, 100_000)).map(
    lambda drawn: (drawn[0] * drawn[1])[: drawn[1]]
)
htmls = st.tuples(
    st.lists(st.sampled_from(HTML), min_size=1, max_size=4), st.integers(1, 200_000)
).map(lambda drawn: ("".join(drawn[0]) * (drawn[1] // len("".join(drawn[0])) + 1))[: drawn[1]])
titles = st.sampled_from(LETTERS).map(lambda letter: ("x" + letter * 500)[:500])
metadata = st.sampled_from(
    [{}, {"topic_title": "😀" * 30_000, "location": "&" * 60_000, "invoice_number": "x" * 60_000}]
)
contents = st.fixed_dictionaries(
    {
        "title": titles,
        "body": texts,
        "body_html": st.none() | htmls,
        "metadata": metadata,
        "action_url": st.sampled_from(
            [None, "/" + "😀" * 1_999, "https://a.example/" + "&" * 1_900]
        ),
        "label": st.sampled_from(["New reply", "😀" * 100, '"' * 100]),
        "name": st.sampled_from(["Alice", "😀" * 200]),
        "locale": st.sampled_from(["en", "de", "ar"]),
        "event_type": st.sampled_from(
            ["forum.new_reply", "event.invited", "billing.invoice_issued"]
        ),
    }
)


def sized(mail: Mail) -> Mail:
    """Checks a mail as it is sent."""
    assert len(mail.html.encode()) <= CLIP
    _, sender = to_sender(f'"{"😀" * 200}" <notifications@example.com>')
    to = to_address(f"{'a' * 64}@{'.'.join(['b' * 60] * 3)}.com")
    assert len(complete(draft(mail, sender=sender), to=to, now=NOW)) <= WHOLE
    assert mail.html.rstrip().endswith("</html>")
    return mail


def branded(folder: Path, **files: str) -> Templates:
    """Templates of a host, with the largest logo."""
    for name, source in files.items():
        path = folder / "notifications" / name.replace("_html", ".html").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    (folder / "logo.png").write_bytes(LOGO.content)
    (folder / "brand.toml").write_text('name = "Club"\n[logo]\nsrc = "logo.png"\n', "utf-8")
    return Templates(folder)


def single(given: dict[str, Any], templates: Templates = DEFAULT) -> Mail:
    one = claimed(**given, category=given["event_type"].partition(".")[0])
    return content(render_mail(one, Rendering(LINKS, SENDER, NOW, templates)))


def entry(place: int, given: dict[str, Any]) -> Entry:
    return Entry(
        digest_id=1,
        notification_id=place,
        recipient_id="alice",
        event_type=given["event_type"],
        label=given["label"],
        category=f"c{place % 7}",
        category_label=given["label"],
        title=given["title"],
        body=given["body"],
        body_html=given["body_html"],
        action_url=given["action_url"],
        created_at=NOW,
        read=place % 5 == 0,
    )


@FEW
@given(contents)
def test_a_mail_is_small_whatever_its_content(given: dict[str, Any]) -> None:
    sized(single(given))
    sized(single(given | {"recipient_id": None, "invited": "zoe@example.com"}))


@FEW
@given(st.lists(contents, min_size=1, max_size=3), st.integers(2, 140))
def test_a_burst_is_small_whatever_its_content(given: list[dict[str, Any]], count: int) -> None:
    together = [
        claimed(**given[n % len(given)], delivery_id=n + 1, notification_id=n + 1)
        for n in range(count)
    ]
    sized(content(render_burst(together, Rendering(LINKS, SENDER, NOW))))


@FEW
@given(st.lists(contents, min_size=1, max_size=3), st.integers(1, 140))
def test_a_digest_is_small_whatever_its_content(given: list[dict[str, Any]], count: int) -> None:
    entries = sorted(
        (entry(n, given[n % len(given)]) for n in range(count)), key=lambda each: each.category
    )
    digest = claimed(digest_id=1, event_type="digest", category="digest", locale=given[0]["locale"])
    sized(content(render_digest(digest, entries, Rendering(LINKS, SENDER, NOW))))


CONTENT = '{% extends "notifications/layout.html" %}{% block content %}'
WASTEFUL = {
    "email_html": CONTENT + "{{ title * 300 }}{{ body_html }}{% endblock %}",
    "email_txt": "{{ text }}{% for i in range(20000) %}&{{ i }}{% endfor %}",
    "burst_email_html": CONTENT
    + '{% for item in items %}{{ item["title"] * 100 }}{% endfor %}{% endblock %}',
    "digest_email_html": CONTENT + "{% for i in range(30000) %}{{ i }}{% endfor %}{% endblock %}",
}


def test_what_a_hosts_templates_write_too_much_of_is_rendered_by_ours(tmp_path: Path) -> None:
    templates = branded(tmp_path, **WASTEFUL)
    given = {"title": "😀" * 500, "body": "😀" * 100_000, "event_type": "forum.new_reply"}
    assert "Read all" in sized(single(given, templates)).html
    together = [claimed(**given, delivery_id=n + 1, notification_id=n + 1) for n in range(40)]
    by = Rendering(LINKS, SENDER, NOW, templates)
    assert "and 30 more" in sized(content(render_burst(together, by))).html
    full = given | {"label": "L", "body_html": None, "action_url": "/"}
    digest = claimed(digest_id=1, event_type="digest", category="digest")
    assert "more" in sized(content(render_digest(digest, [entry(1, full)] * 40, by))).html


def test_a_logo_counts(tmp_path: Path) -> None:
    templates = branded(tmp_path)
    given = {"title": "t", "body": "語" * 60_000, "event_type": "forum.new_reply"}
    mail = single(given, templates)
    sized(
        Mail(**{name: getattr(mail, name) for name in mail.__struct_fields__} | {"images": (LOGO,)})
    )


def test_a_burst_shows_ten_in_full_twenty_as_lines_and_a_link_to_the_rest() -> None:
    together = [
        claimed(delivery_id=n, notification_id=n, title=f"Title {n}", body=f"Body {n}.")
        for n in range(1, 131)
    ]
    mail = sized(content(render_burst(together, Rendering(LINKS, SENDER, NOW))))
    assert mail.html.count('class="item"') == 10
    assert mail.html.count('class="line"') == 20
    for n in range(1, 131):
        assert (f"Title {n}<" in mail.html) is (n > 100)
        assert (f"Body {n}." in mail.html) is (n > 120)
        assert (f"Body {n}." in mail.text) is (n > 120)
    assert 'href="https://app.example.test/">and 100 more</a>' in re.sub(
        r' (class|style)="[^"]*"', "", mail.html
    )
    assert "\nand 100 more: https://app.example.test/\n" in mail.text
    assert mail.subject == "Title 130 and 129 more"
    assert "130 new notifications" in mail.html


@pytest.mark.parametrize(("locale", "words"), [("de", "und 100 weitere"), ("ar", "100")])
def test_the_rest_is_counted_in_the_persons_language(locale: str, words: str) -> None:
    together = [claimed(delivery_id=n, notification_id=n, locale=locale) for n in range(1, 131)]
    mail = content(render_burst(together, Rendering(LINKS, SENDER, NOW)))
    (line,) = re.findall(r'class="more"[^>]*><a[^>]*>([^<]*)</a>', mail.html)[-1:]
    assert words in line


def test_the_link_to_the_inbox_is_the_brands(tmp_path: Path) -> None:
    (tmp_path / "brand.toml").write_text('inbox = "/inbox/?all=1"\n', "utf-8")
    together = [claimed(delivery_id=n, notification_id=n) for n in range(1, 40)]
    mail = content(render_burst(together, Rendering(LINKS, SENDER, NOW, Templates(tmp_path))))
    assert "and 9 more: https://app.example.test/inbox/?all=1\n" in mail.text


# What is cut.

GRAPHEMES = ["👩‍👩‍👧‍👦", "🇩🇪", "e\u0301\u0302", "क्षि", "👍🏽", "a", " ", "각"]


@given(st.lists(st.sampled_from(GRAPHEMES), max_size=60), st.integers(1, 80))
def test_no_character_is_cut_in_two(graphemes: list[str], most: int) -> None:
    text = "".join(graphemes)
    whole = {"".join(graphemes[:n]).rstrip() for n in range(len(graphemes) + 1)}
    cut = shortened(text, most + 10)
    assert len(cut) <= most + 10
    assert cut == text or cut[:-1] in whole
    cut = shortened_bytes(text, most + 40)
    assert len(cut.encode()) <= most + 40
    assert cut == text or cut[:-1] in whole


def test_a_single_character_that_is_too_long_is_cut_all_the_same() -> None:
    assert len(beginning("a" + "\u0301" * 500, 50)) == 50
    assert one_line("x" * 300, 200) == "x" * 199 + "…"
    assert one_line("👩‍👩‍👧‍👦" * 100, 20) == "👩‍👩‍👧‍👦👩‍👩‍👧‍👦…"


class Strict(HTMLParser):
    """Fails where a tag is closed that is not the last one open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(htmls.map(lambda html: html[:3_000]) | st.text(max_size=300), st.integers(3, 2_000))
def test_html_that_is_cut_stays_well_formed(html: str, most: int) -> None:
    safe = sanitise(html)
    cut = shortened_html(safe, most)
    assert len(cut.encode()) <= max(most, 3)
    reader = Strict()
    reader.feed(cut)
    reader.close()
    assert reader.open == []
    assert sanitise(cut) == cut or cut == safe
    assert cut == safe or "…" in cut
