"""Payloads fit 4096 bytes, and no character is cut in two."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.engine.actors.apns import ApnsTooLargeError, collapse_id, draft, with_badge
from tocsin.engine.actors.apns_connection import MAX_PAYLOAD
from tocsin.engine.model import Push, PushKind
from tocsin.engine.text import clip

FAMILY = "👨‍👩‍👧‍👦"
PARTS = [
    FAMILY,
    "🏳️‍🌈",
    "🇫🇷",
    "🇫",
    "👍🏽",
    "é",
    "a\u0323\u0301",
    "क्षि",
    "한국",
    "각",
    "مرحبا",
    "שלום",
    "\u202bعربي\u202c",
    "\r\n",
    "\x01",
    '"',
    "\\",
    "\u200d",
    "\ufe0f",
    "\u0301",
    "…",
    " ",
    "plain words",
    "ไทย",
]
TEXT = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=60).map("".join)
HUGE = 2**63 - 1


def clusters(text: str) -> list[str]:
    return list(regex.findall(r"\X", text))


def size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def loaded(drafted: bytes, badge: int | None = None) -> Any:
    return json.loads(with_badge(drafted, badge))


@settings(deadline=None)
@given(TEXT.filter(str.isprintable), st.integers(0, 400))
def test_a_text_is_cut_between_characters_and_no_earlier_than_needed(text: str, room: int) -> None:
    cut = clip(text, room, size)
    assert size(cut) <= room
    if cut == text:
        return
    assert size(text) > room
    if not cut:
        assert room < size("…")
        return
    kept = cut.removesuffix("…")
    whole = clusters(text)
    count = len(clusters(kept))
    assert text.startswith(kept)
    assert whole[:count] == clusters(kept)
    following = [*whole[count:], ""]
    blanks = next(index for index, each in enumerate(following) if each.strip() or not each)
    longer = "".join([kept, *following[: blanks + 1], "…"])
    assert size(longer) > room or longer == f"{text}…"


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT, st.integers(1, 200), st.integers(0, HUGE), st.sampled_from(PushKind))
def test_every_payload_fits(title: str, body: str, times: int, badge: int, kind: PushKind) -> None:
    drafted = draft(Push(title * times, body * times, {"id": 7}, kind=kind))
    assert len(with_badge(drafted, badge)) <= MAX_PAYLOAD
    assert loaded(drafted, badge)["aps"]["badge"] == badge
    assert loaded(drafted)["id"] == 7


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(PARTS))
def test_a_long_body_fills_the_payload(part: str) -> None:
    drafted = draft(Push("Title", f"x{part}" * 3000))
    assert MAX_PAYLOAD - 120 < len(with_badge(drafted, HUGE)) <= MAX_PAYLOAD


@pytest.mark.parametrize(
    ("text", "room", "cut"),
    [
        ("hello", 5, "hello"),
        ("hello", 4, "h…"),
        ("hello", 3, "…"),
        ("hello", 2, ""),
        ("one two", 7, "one two"),
        ("one two three", 7, "one…"),
        (FAMILY * 2, 27, "…"),
        (FAMILY * 2, 28, f"{FAMILY}…"),
        ("🇫🇷🇩🇪🇫🇷", 12, "🇫🇷…"),
        ("e\u0301e\u0301e\u0301", 8, "e\u0301…"),
        ('""""', 7, '""…'),
        ("a" + "\u0301" * 5000, 100, "…"),
    ],
)
def test_examples(text: str, room: int, cut: str) -> None:
    assert clip(text, room, size) == cut


def test_the_body_goes_before_the_title() -> None:
    aps = loaded(draft(Push("A title", "b" * 9000)))["aps"]
    assert aps["alert"]["title"] == "A title"
    assert aps["alert"]["body"].endswith("b…")


def test_a_title_too_long_is_cut_too() -> None:
    aps = loaded(draft(Push("t" * 9000, "b" * 9000)))["aps"]
    assert aps["alert"]["title"].endswith("t…")


def test_what_the_app_adds_is_never_cut() -> None:
    with pytest.raises(ApnsTooLargeError):
        draft(Push("t", "b", {"x": "y" * 4096}))


def test_an_alert() -> None:
    push = Push("T", "B", {"notification_id": 7, "aps": "no"}, thread_id="forum.thread:42")
    assert loaded(draft(push), 3) == {
        "aps": {
            "badge": 3,
            "alert": {"title": "T", "body": "B"},
            "sound": "default",
            "thread-id": "forum.thread:42",
        },
        "notification_id": 7,
    }


def test_the_buttons_of_an_alert_are_named_by_a_category() -> None:
    push = Push("T", "B", category="tocsin:accept,decline")
    assert loaded(draft(push))["aps"]["category"] == "tocsin:accept,decline"


def test_a_silent_badge_and_a_background_push() -> None:
    assert loaded(draft(Push(kind=PushKind.BADGE)), 0) == {"aps": {"badge": 0}}
    background = draft(Push("T", data={"a": 1}, kind=PushKind.BACKGROUND))
    assert loaded(background) == {"aps": {"content-available": 1}, "a": 1}


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert loaded(draft(Push("\ud83d", "ok")))["aps"]["alert"]["title"] == "\ufffd"


@pytest.mark.parametrize("name", ["x" * 65, "naïve", "a b", "a\r\nb", "", "\ud83d"])
def test_a_collapse_id_that_no_header_can_hold_is_digested(name: str) -> None:
    assert len(collapse_id(name)) == 64
    assert collapse_id(name) == collapse_id(name) != collapse_id(f"{name}!")


def test_a_collapse_id_that_is_fine_stays() -> None:
    assert collapse_id("forum.thread:42") == "forum.thread:42"
