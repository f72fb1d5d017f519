"""Golden files of each kind of mail, their size and colours, and that they load nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.golden_mails import burst, claimed, digest, entry, of_type, one, samples
from tocsin.engine.mail.language import catalogues
from tocsin.engine.mail.loader import SHIPPED as TEMPLATES
from tocsin.engine.mail.render_single import LARGEST
from tocsin.engine.model import Entry, Mail
from tocsin.engine.store.catalogue_file import default_catalogue

GOLDEN = Path(__file__).parent.parent / "golden"
SAMPLES = samples()
TYPES = default_catalogue().event_types


@pytest.mark.parametrize("name", SAMPLES)
def test_mails_are_as_reviewed(name: str) -> None:
    mail = SAMPLES[name]
    parts = {"html": mail.html, "txt": f"Subject: {mail.subject}\n\n{mail.text}"}
    for kind, rendered in parts.items():
        path = GOLDEN / f"{name}.{kind}"
        if os.environ.get("GOLDEN") == "rewrite":
            path.write_text(rendered, "utf-8")
        assert rendered == path.read_text("utf-8"), "make golden, and look at the difference"


def test_each_golden_file_is_of_a_mail() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SAMPLES)


# The content of each kind.


@pytest.mark.parametrize("category", default_catalogue().categories)
def test_each_category_has_words_of_its_own_for_each_of_its_types(category: str) -> None:
    assert (TEMPLATES / f"notifications/{category}/email.words.txt").exists()
    for event_type in (*TYPES, f"{category}.something_of_an_app"):
        if event_type.startswith(f"{category}."):
            text = one(claimed(event_type=event_type, category=category)).text
            assert re.search(r"^(?!Open in)\S.+: https://app\.example\.test/c/", text, re.MULTILINE)


def test_a_mail_has_one_button_labelled_with_what_it_does() -> None:
    buttons = {
        name: mail.html.count('class="button"')
        for name, mail in SAMPLES.items()
        if not name.startswith(("actions", "burst", "digest"))
    }
    assert len(buttons) > 10
    assert {name: count for name, count in buttons.items() if count != 1} == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reason": "default"}, "emails for “New reply” are on by default."),
        ({"reason": "preference"}, "you turned emails for “New reply” on."),
        ({"reason": None}, "emails for “New reply” are on for you."),
        ({"because": "replied"}, "you replied in this thread."),
        ({"because": "followed", "metadata": {"topic_title": "A <b>"}}, "you follow “A <b>”."),
        ({"because": "mentioned", "metadata": {"topic_title": ["x"]}}, "mentioned in this thread."),
        ({"mandatory": True, "because": "replied"}, "can’t be turned off"),
        ({"recipient_id": None, "invited": "z@example.com"}, "which has no account there."),
    ],
)
def test_a_mail_gives_its_reason(changes: dict[str, object], sentence: str) -> None:
    mail = one(claimed(**changes))
    assert sentence in mail.text
    assert sentence.replace("<", "&lt;").replace(">", "&gt;") in mail.html


def test_the_list_view_has_what_matters_most() -> None:
    def preheader(mail: Mail) -> str:
        found = re.search(r'<div class="preheader"[^>]*>(.*?)[<&\u2007]', mail.html)
        assert found is not None
        return found[1]

    assert preheader(SAMPLES["billing"]).startswith("€84.50 · Due: 12 November 2026 · Invoice: ")
    assert preheader(SAMPLES["forum"]).startswith("The roses came. Both boxes.")
    assert preheader(one(claimed(body=""))) == "New reply"
    assert preheader(SAMPLES["digest"]) == "Bulletins: 1 · Forum: 2 · Elections: 17"
    assert len(preheader(one(claimed(body="word " * 200)))) <= 140


def test_what_an_app_did_not_send_leaves_no_gap() -> None:
    mail = one(of_type("billing.payment_due", "Due"))
    assert "fact" not in mail.html.partition("<body")[2]
    assert "highlight" not in mail.html.partition("<body")[2]
    assert mail.text.startswith("Due\n\nView and pay: https://")


def test_a_mail_without_a_title_is_headed_by_its_label() -> None:
    mail = one(claimed(title=""))
    assert mail.subject == "New reply"
    assert mail.text.startswith("New reply\n")


def test_the_times_of_the_digest_are_in_its_persons_zone() -> None:
    late = entry("forum.mention", "Late", ago=0)
    assert "1 Nov, 13:00" in digest(late, timezone="Europe/Berlin").text
    assert "Nov 1, 7:00\u202fAM" in digest(late, timezone="America/New_York", locale="en-US").text
    assert "1. Nov., 12:00" in digest(late, timezone=None, locale="de").text


# What mail clients do.


def test_no_mail_loads_anything_from_anywhere() -> None:
    for mail in SAMPLES.values():
        assert not re.search(r"<(img|link|script|iframe|video|object|svg)\b", mail.html)
        assert not re.search(r"url\(|@import|@font-face|\ssrc=|\sbackground=", mail.html)


def many(count: int, title: str, body: str, *, categories: int) -> Iterator[Entry]:
    names = sorted(default_catalogue().categories)
    types = {name: next(each for each in TYPES if each.startswith(f"{name}.")) for name in names}
    for place in range(categories):
        for number in range(count):
            yield entry(types[names[place % len(names)]], title, body, ago=number)


@pytest.mark.parametrize("letter", ["a", "é", "&", '"', "😀", "語"])
@pytest.mark.parametrize("locale", sorted(catalogues()))
def test_the_largest_digest_is_not_clipped(letter: str, locale: str) -> None:
    mail = digest(*many(60, letter * 500, letter * 3000, categories=10), locale=locale)
    assert len(mail.html.encode()) <= LARGEST
    assert mail.html.endswith("</html>")
    shown = mail.html.count('class="item"') + mail.html.count('class="line"')
    assert shown >= 10
    assert mail.text.count("\n* ") == shown


@pytest.mark.parametrize("letter", ["a", "\n\n", "&", "😀"])
def test_the_largest_burst_is_not_clipped(letter: str) -> None:
    together = [claimed(title="&" * 500, body=f"x{letter}" * 50_000) for _ in range(51)]
    mail = burst(*together)
    assert len(mail.html.encode()) <= LARGEST
    shown = mail.html.count('class="item"') + mail.html.count('class="line"')
    assert shown >= 10
    assert f">and {51 - shown} more</a>" in mail.html


@pytest.mark.parametrize("body", ["a\n\n" * 33_000, "&" * 100_000, "😀" * 100_000])
def test_the_longest_body_is_cut_with_a_link_to_the_whole(body: str) -> None:
    mail = one(claimed(body=body))
    assert len(mail.html.encode()) <= LARGEST
    opened = re.search(r"https://app.example.test/c/[\w-]+/", mail.html)
    assert opened is not None
    assert f'<a href="{opened[0]}">Read all</a>' in mail.html
    assert f"…\n\nRead all: {opened[0]}\n" in mail.text
    assert len(mail.text) > 500
    assert 'class="button"' in mail.html


def test_the_longest_body_html_is_cut_too() -> None:
    mail = one(claimed(body="", body_html="<p>a <b>b</b></p>" * 12_000))
    assert len(mail.html.encode()) <= LARGEST
    assert 'class="button"' in mail.html


def test_ordinary_mails_are_small() -> None:
    for name, mail in SAMPLES.items():
        assert len(mail.html.encode()) < (
            25_000 if name.startswith(("burst", "digest")) else 12_000
        )


def test_gmail_keeps_the_style_of_the_head() -> None:
    (styles,) = {
        match
        for mail in SAMPLES.values()
        for match in re.findall(r"-->\s*<style>(.*?)</style>", mail.html, re.DOTALL)
    }
    assert len(styles) < 8192  # beyond it Gmail drops all of it


def test_outlook_gets_a_width_a_font_and_a_padded_button() -> None:
    html = SAMPLES["forum"].html
    assert '<!--[if mso]><table role="presentation" align="center"' in html
    assert "mso-padding-alt: 13px 26px" in html
    assert html.count("<!--[if mso]>") == html.count("<![endif]-->") == 3
    for colour in ("#f3f4f6", "#ffffff", "#1d4ed8"):
        assert f'bgcolor="{colour}"' in html


def test_right_to_left_is_marked_for_clients_that_drop_the_html_element() -> None:
    html = SAMPLES["forum_ar"].html
    assert '<html lang="ar-EG" dir="rtl">' in html
    assert re.search(r'<table [^>]*class="outer"[^>]* dir="rtl"', html)
    assert re.search(r'<td class="footer" dir="rtl" lang="ar"', html)
    assert re.search(r'<h1 class="title" dir="auto"', html)


# Colours.


def rules(css: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for names, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
        pairs = dict(re.findall(r"([\w-]+):\s*(#[0-9a-f]{6})", body))
        for name in names.split(","):
            found[name.strip()] = found.get(name.strip(), {}) | pairs
    return found


def contrast(one: str, other: str) -> float:
    """Of WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((light(one), light(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_that_is_read_stands_out(dark: bool) -> None:
    folder = TEMPLATES / "notifications"
    colours = rules((folder / "email.css").read_text("utf-8").partition("*/")[2])
    head = (folder / "layout.html").read_text("utf-8")
    if dark:
        for name, pairs in rules(head.partition("(prefers-color-scheme: dark) {")[2]).items():
            colours[name] = colours.get(name, {}) | pairs
    else:
        colours[".body a"] = rules(head.partition("@media")[0])[".body a"]
    on = {
        ".card": [
            ".inner",
            ".title",
            ".label",
            ".highlight",
            ".fact",
            ".fact-name",
            ".group",
            ".when",
            ".read-title",
            ".item-title",
            ".item-link",
            ".more-link",
            ".body a",
        ],
        ".shade": [".inner", ".body a"],
        ".outer": [".brand", ".footer", ".footer-link"],
        ".button-cell": [".button"],
    }
    for ground, names in on.items():
        for name in names:
            found = contrast(colours[name]["color"], colours[ground]["background-color"])
            assert found >= 4.5, f"{name} on {ground}: {found:.2f}"


def test_old_and_new_differ_in_the_digest() -> None:
    mail = digest(
        entry("forum.mention", "Old", read=True, ago=30), entry("forum.new_reply", "New", ago=2)
    )
    assert mail.subject == "New"
    assert "- Old (read)" in mail.text
    assert "* New" in mail.text
