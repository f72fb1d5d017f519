"""Signed links: a link that was made can be read, and no other text can."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.engine.mail.links import (
    LinkKind,
    Links,
    Open,
    Unsubscribe,
    UnsubscribeAddress,
    UnsubscribeDigest,
    sign,
)
from tocsin.engine.model import NotFound

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LINKS = Links("https://app.example.test/", bytes(range(32)))


def token_of(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[1]


TOKEN = token_of(LINKS.unsubscribe("alice", "forum.new_reply", NOW))


@given(st.text(), st.text(), st.integers(min_value=0, max_value=2**63 - 1))
def test_what_is_signed_is_read_back(recipient_id: str, event_type: str, number: int) -> None:
    url = LINKS.unsubscribe(recipient_id, event_type, NOW)
    assert LINKS.read_unsubscribe(token_of(url), NOW) == Unsubscribe(recipient_id, event_type)
    url = LINKS.open(number, recipient_id, NOW)
    assert LINKS.read_open(token_of(url), NOW) == Open(number, recipient_id)


def test_links_are_short_safe_and_absolute() -> None:
    url = LINKS.unsubscribe("alice/../b?c#d %", "forum.new_reply", NOW)
    assert re.fullmatch(r"https://app\.example\.test/unsubscribe/[A-Za-z0-9_-]{1,100}/", url)
    assert re.fullmatch(
        r"https://app\.example\.test/c/[A-Za-z0-9_-]{1,60}/", LINKS.open(42, "alice", NOW)
    )


def test_a_token_of_one_kind_is_none_of_the_other() -> None:
    with pytest.raises(NotFound):
        LINKS.read_open(TOKEN, NOW)
    with pytest.raises(NotFound):
        LINKS.read_unsubscribe(token_of(LINKS.open(1, "alice", NOW)), NOW)


def test_a_token_of_another_key_is_refused() -> None:
    with pytest.raises(NotFound):
        Links("https://app.example.test", bytes(32)).read_unsubscribe(TOKEN, NOW)


def test_links_hold_for_a_year() -> None:
    LINKS.read_unsubscribe(TOKEN, NOW + timedelta(days=365, seconds=-1))
    with pytest.raises(NotFound, match="expired"):
        LINKS.read_unsubscribe(TOKEN, NOW + timedelta(days=365))


def test_a_link_of_a_mail_that_was_sent_before_a_field_was_added_is_still_valid() -> None:
    old = "AQEAbMhdQJKlYWxpY2WvZm9ydW0ubmV3X3JlcGx53h6r0dr5NAk2Bcic-Po9Ng"
    assert LINKS.read_unsubscribe(old, NOW) == Unsubscribe("alice", "forum.new_reply")


@given(st.text(), st.lists(st.text(max_size=20), max_size=4), st.none() | st.text(min_size=1))
def test_all_that_a_mail_held_is_read_back(
    recipient_id: str, types: list[str], topic: str | None
) -> None:
    url = LINKS.unsubscribe(recipient_id, "a.b", NOW, others=types, topic=topic)
    link = LINKS.read_unsubscribe(token_of(url), NOW)
    assert isinstance(link, Unsubscribe)
    assert (link.recipient_id, link.topic) == (recipient_id, topic)
    assert link.event_types == ("a.b", *types)


@given(st.text())
def test_addresses_and_digests_are_read_back(text: str) -> None:
    url = LINKS.unsubscribe_address(text, "a.b", NOW)
    assert LINKS.read_unsubscribe(token_of(url), NOW) == UnsubscribeAddress(text, "a.b")
    url = LINKS.unsubscribe_digest(text, NOW)
    assert LINKS.read_unsubscribe(token_of(url), NOW) == UnsubscribeDigest(text)


def test_a_link_fits_into_a_header_whatever_a_mail_holds() -> None:
    types = [f"a_long_category.and_an_event_type_{n}" for n in range(50)]
    url = LINKS.unsubscribe("x" * 200, types[0], NOW, others=types[1:], topic="t" * 200)
    assert len(f"List-Unsubscribe: <{url}>") < 998
    link = LINKS.read_unsubscribe(token_of(url), NOW)
    assert isinstance(link, Unsubscribe)
    assert link.event_types == tuple(types[: len(link.event_types)])


tokens = st.sampled_from(
    [
        token_of(LINKS.unsubscribe("alice", "forum.new_reply", NOW)),
        token_of(LINKS.unsubscribe("bob", "forum.new_reply", NOW)),
        token_of(LINKS.unsubscribe("alice", "forum.mention", NOW, others=["a.b"], topic="t:1")),
        token_of(LINKS.unsubscribe_address("zoe@example.com", "event.invited", NOW)),
        token_of(LINKS.unsubscribe_digest("alice", NOW)),
        token_of(LINKS.open(1, "alice", NOW)),
    ]
)


@given(tokens, tokens, st.integers(0, 200), st.integers(0, 200))
def test_no_two_tokens_make_a_third(one: str, other: str, upto: int, since: int) -> None:
    """Head of one, tail of another: one person's, one type's or one kind's turned to another."""
    first, second = (base64.urlsafe_b64decode(each + "==") for each in (one, other))
    spliced = first[: upto % len(first)] + second[since % len(second) :]
    token = base64.urlsafe_b64encode(spliced).rstrip(b"=").decode()
    if token not in (one, other):
        with pytest.raises(NotFound):
            LINKS.read_unsubscribe(token, NOW)


@given(tokens, st.integers(0, 10_000))
def test_no_bit_of_a_token_can_be_turned(token: str, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(token + "=="))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    with pytest.raises(NotFound):
        LINKS.read_unsubscribe(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), NOW)


def test_an_expiry_may_be_chosen() -> None:
    token = sign(LINKS.key, LinkKind.OPEN, Open(1, "alice"), NOW + timedelta(seconds=10))
    assert LINKS.read_open(token, NOW).notification_id == 1
    with pytest.raises(NotFound):
        LINKS.read_open(token, NOW + timedelta(seconds=10))


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_no_character_can_be_changed(position: int) -> None:
    for other in "ABab01-_":
        if other != TOKEN[position]:
            forged = TOKEN[:position] + other + TOKEN[position + 1 :]
            with pytest.raises(NotFound):
                LINKS.read_unsubscribe(forged, NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "A",
        "AAAA",
        "=",
        TOKEN + "=",
        TOKEN + "==",
        TOKEN[:-1],
        TOKEN[1:],
        TOKEN + "A",
        " " + TOKEN,
        TOKEN + "\n",
        "ü" * 20,
        "A" * 5000,
        TOKEN.replace(TOKEN[3], "!", 1),
        "\x00",
        "..",
        "%2e",
    ],
)
def test_what_is_no_token_is_not_found(token: str) -> None:
    with pytest.raises(NotFound):
        LINKS.read_unsubscribe(token, NOW)


@given(st.binary(max_size=80))
def test_random_bytes_are_not_found(raw: bytes) -> None:
    with pytest.raises(NotFound):
        LINKS.read_open(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), NOW)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Links("https://app.example.test", b"short")


@pytest.mark.parametrize(
    ("action_url", "absolute"),
    [
        ("/forum/42?a=b#c", "https://app.example.test/forum/42?a=b#c"),
        ("/", "https://app.example.test/"),
        ("https://other.test/x", "https://other.test/x"),
        ("http://other.test", "http://other.test"),
        ("HTTPS://other.test/x", "HTTPS://other.test/x"),
        ("//evil.test/x", None),
        ("/\\evil.test", None),
        ("javascript:alert(1)", None),
        ("JaVaScRiPt:alert(1)", None),
        ("java\tscript:alert(1)", None),
        ("data:text/html,<script>", None),
        ("https:///x", None),
        ("https://[bad", None),
        ("/a\r\nb", None),
        ("forum/42", None),
        ("mailto:a@b.test", None),
        ("", None),
    ],
)
def test_action_urls_are_absolute_and_http(action_url: str, absolute: str | None) -> None:
    assert LINKS.absolute(action_url) == absolute


def test_a_link_in_a_push_is_marked_as_one_and_those_in_mails_stay_as_they_were() -> None:
    in_mail, in_push = (LINKS.open(7, "bob", NOW, in_push=each) for each in (False, True))
    assert LINKS.read_open(token_of(in_mail), NOW) == Open(7, "bob")
    assert LINKS.read_open(token_of(in_push), NOW) == Open(7, "bob", in_push=True)
    assert in_mail == LINKS.open(7, "bob", NOW)
