"""The cursor of a list and the position in a stream, which clients store without parsing them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tocsin.engine.model import Invalid
from tocsin.engine.store import pagination
from tocsin.engine.store.group import GroupCursor, parse_group_cursor, parse_group_key
from tocsin.engine.store.pagination import (
    OWN_NODE,
    Cursor,
    Position,
    covers,
    from_opaque,
    is_ahead,
    is_snapshot,
    page,
    parse_cursor,
    read_as_of,
    read_nodes,
    read_position,
    read_seen,
    to_opaque,
    write_as_of,
    write_nodes,
)

SNAPSHOT = "10:20:11,14"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Row(Struct, frozen=True):
    """A row of a list."""

    id: int
    created_at: datetime = NOW


# Cursors.


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(5138, 1, 1)),  # noqa: DTZ001
    st.integers(0, 2**63 - 1),
    st.booleans(),
)
def test_a_cursor_is_read_back(at: datetime, id_: int, newer: bool) -> None:
    cursor = Cursor(at.replace(tzinfo=UTC), id_, newer)
    assert parse_cursor(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "x", "o1.1", "=", "é", "bzE", "1bzE", str(Cursor(NOW, 1)) + "A"]
)
def test_a_cursor_that_is_none_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_cursor(text)
    assert str(refused.value) == "cursor is not one of this list"
    assert refused.value.fields == (
        (
            "cursor",
            "Use a page's next or previous link as it is, or leave cursor out for the first page.",
        ),
    )


def test_the_largest_id_is_a_bigints_and_no_larger_one_is_asked_for() -> None:
    assert parse_cursor(str(Cursor(NOW, 2**63 - 1))).id == 2**63 - 1
    with pytest.raises(Invalid):
        parse_cursor(str(Cursor(NOW, 2**63)))


def rows(*ids: int) -> list[Row]:
    return [Row(each) for each in ids]


@pytest.mark.parametrize(
    ("found", "cursor", "ids", "older", "newer"),
    [
        ([], None, [], None, None),
        ([3, 2, 1], None, [3, 2, 1], None, None),
        ([4, 3, 2, 1], None, [4, 3, 2], 2, None),
        ([3, 2], Cursor(NOW, 4), [3, 2], None, 3),
        ([5, 4, 3, 2], Cursor(NOW, 6), [5, 4, 3], 3, 5),
        ([], Cursor(NOW, 1), [], None, None),
        ([7, 8], Cursor(NOW, 6, newer=True), [8, 7], 7, None),
        ([7, 8, 9, 10], Cursor(NOW, 6, newer=True), [9, 8, 7], 7, 9),
        ([], Cursor(NOW, 6, newer=True), [], None, None),
    ],
)
def test_a_page_has_its_rows_newest_first_and_the_places_beside_it(
    found: list[int], cursor: Cursor | None, ids: list[int], older: int | None, newer: int | None
) -> None:
    made = page(rows(*found), cursor, 3)
    assert [row.id for row in made.results] == ids
    assert made.next == (None if older is None else Cursor(NOW, older))
    assert made.previous == (None if newer is None else Cursor(NOW, newer, newer=True))


def test_a_cursor_has_no_padding_whatever_its_length() -> None:
    texts = [str(Cursor(NOW, 10**digits)) for digits in range(19)]
    assert [text for text in texts if "=" in text or not text.isascii()] == []
    assert [parse_cursor(text).id for text in texts] == [10**digits for digits in range(19)]


# Positions.


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1:1:", True),
        ("1:2:1", True),
        ("2:5:2,4", True),
        (f"1:{2**63 - 1}:", True),
        ("0:1:", False),
        ("2:1:", False),
        (f"1:{2**63}:", False),
        ("2:5:1", False),
        ("2:5:5", False),
        ("2:9:4,3", False),
        ("2:9:3,3", False),
        ("2:5", False),
        ("a:b:", False),
        ("", False),
    ],
)
def test_a_snapshot_is_one_by_postgresqls_rules(text: str, is_one: bool) -> None:
    assert is_snapshot(text) is is_one


@pytest.mark.parametrize(
    ("snapshot", "other", "has_all"),
    [
        ("10:20:", "10:20:", True),
        ("10:20:11,14", "10:20:11,14", True),
        ("10:20:11,14", "10:20:11,14,15", True),
        ("10:20:11,14", "10:20:14", False),
        ("10:20:11", "10:11:", True),
        ("10:20:11", "11:11:", True),
        ("10:20:11", "12:12:", False),
        ("10:20:", "10:21:", False),
        ("30:30:", "10:21:", True),
    ],
)
def test_a_snapshot_covers_what_another_one_has(snapshot: str, other: str, has_all: bool) -> None:
    assert covers(snapshot, other) is has_all


def test_what_was_seen_is_read_from_each_kind_of_position() -> None:
    assert read_seen(write_as_of(SNAPSHOT)) == SNAPSHOT
    assert read_seen(Position(SNAPSHOT).token()) == SNAPSHOT
    assert read_seen(Position(SNAPSHOT, "10:21:11", 7).token()) == "10:21:11"
    assert read_seen(str(GroupCursor(Cursor(NOW, 1), SNAPSHOT))) == SNAPSHOT
    assert [read_seen(text) for text in ("", "zz", str(Cursor(NOW, 1)))] == [None] * 3


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=200))
def test_an_opaque_text_is_read_back_and_has_no_padding(text: str) -> None:
    assert "=" not in to_opaque(text)
    assert from_opaque(to_opaque(text)) == text


def test_an_opaque_text_may_end_in_any_letter() -> None:
    assert to_opaque("abW") == "1YWJX"
    assert from_opaque("1YWJX") == "abW"


@pytest.mark.parametrize("text", ["1A", "1\u00e9", "1w6k", "1" + "A" * 8000, "YWJX", "2YWJX"])
def test_what_is_no_opaque_text_is_empty(text: str) -> None:
    assert from_opaque(text) == ""


@pytest.mark.parametrize("upto", [None, "10:21:11"])
def test_a_position_is_read_back(upto: str | None) -> None:
    position = Position(SNAPSHOT, upto, 7)
    assert read_position(position.token()) == position


NODES = [
    {OWN_NODE: Position("1234567890:1234567901:1234567890,1234567895")},
    {OWN_NODE: Position(SNAPSHOT, "10:21:11", 7), 2: Position("5:5:"), 31: Position("5:6:5")},
]


@pytest.mark.parametrize("nodes", NODES, ids=["one", "several"])
def test_positions_of_several_nodes_are_read_back(nodes: dict[int, Position]) -> None:
    assert read_nodes(write_nodes(nodes)) == nodes
    assert read_as_of(to_opaque(write_nodes(nodes))) == nodes[OWN_NODE].snapshot


def test_a_position_is_short_and_fits_into_a_url() -> None:
    as_of = write_as_of("1234567890:1234567901:1234567890,1234567895")
    assert as_of == "1MTIzNDU2Nzg5MCsxMSswLDU"
    assert read_as_of(as_of) == "1234567890:1234567901:1234567890,1234567895"


@pytest.mark.parametrize(
    "nodes", ["", "5", "5+0", "5+0+|", "0=5+0+", "5+0+|2=x", "5+0+~x~1", "5+9+9", "5:5:"]
)
def test_what_is_no_position_is_refused(nodes: str) -> None:
    with pytest.raises(Invalid, match="as_of is not one of a list's"):
        read_as_of(to_opaque(nodes))
    assert read_position(opaque(int(time.time()), nodes)) is None


def test_a_position_of_other_nodes_alone_is_refused() -> None:
    with pytest.raises(Invalid, match="as_of is not one of a list's"):
        read_as_of(to_opaque(write_nodes({2: Position(SNAPSHOT)})))


@pytest.mark.parametrize("read", [read_as_of, parse_cursor, parse_group_cursor, parse_group_key])
def test_a_text_of_another_version_is_refused_with_the_cure(read: Callable[[str], object]) -> None:
    with pytest.raises(Invalid, match="is of another version of Tocsin") as refused:
        read("2NzUxKzAr")
    ((_, cure),) = refused.value.fields
    assert cure.startswith("Read the list again from its first page")


def opaque(*parts: object) -> str:
    return to_opaque("/".join(map(str, parts)))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        opaque("10+10+1,4"),
        opaque("", "10+10+1,4"),
        opaque("now", "10+10+1,4"),
        opaque("9" * 19, "10+10+1,4"),
        opaque(int(time.time()), "10+10+1,4", ""),
        opaque(int(time.time()), "10+10+1,4~10+10+1,4~-7"),
        opaque(int(time.time()), "10+10+1,4~10+10+1,4~" + "9" * 19),
        "2" + opaque(int(time.time()), "10+10+1,4")[1:],
    ],
    ids=range(10),
)
def test_a_position_that_is_none_is_not_read(token: str) -> None:
    assert read_position(token) is None


def test_a_position_is_good_for_less_than_the_hour_that_changes_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = Position(SNAPSHOT, None, 7).token()
    made = time.time()
    monkeypatch.setattr(time, "time", lambda: made + 3290)
    assert read_position(token) is not None
    monkeypatch.setattr(time, "time", lambda: made + 3310)
    assert read_position(token) is None


def test_a_position_of_another_cluster_is_ahead() -> None:
    position = Position("10:20:", None, 0)
    assert not is_ahead(position, "10:20:")
    assert not is_ahead(position, "20:21:")
    assert is_ahead(position, "10:19:")
    assert timedelta(0) < timedelta(seconds=pagination._GOOD_FOR) < timedelta(hours=1)
