"""The one form of an address in which two spellings are compared: case, Unicode, and both ways to write a domain."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import idna
import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tocsin.engine.explain.why import mask

Db = psycopg.Connection[Any]

# The database is the same for all examples: only immutable functions are called.
SHARED = settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
# Letters of living scripts; unassigned ones differ between Unicode's versions, as do Python's and PostgreSQL's.
BLOCKS = [
    (0xC0, 0x24F),
    (0x1E00, 0x1EFF),
    (0x388, 0x3CE),
    (0x400, 0x52F),
    (0x531, 0x587),
    (0x5D0, 0x5EA),
    (0x620, 0x64A),
    (0x905, 0x939),
    (0xE01, 0xE30),
    (0x10D0, 0x10FA),
    (0x3041, 0x3096),
    (0x4E00, 0x4FFF),
    (0xAC00, 0xADFF),
    (0xFF21, 0xFF3A),
]
letters = st.one_of(
    st.sampled_from("abcXYZ019"),
    *(
        st.characters(min_codepoint=low, max_codepoint=high, exclude_categories=["Cn"])
        for low, high in BLOCKS
    ),
)
labels = st.text(letters, min_size=1, max_size=12)


def compared(db: Db, address: str) -> str:
    return str(value(db, "select tocsin.compared_address(%s)", address))


def value(db: Db, statement: str, *arguments: Any) -> Any:
    row = db.execute(statement, arguments).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice@Example.COM", "alice@example.com"),
        ("zoe@BÜCHER.example", "zoe@xn--bcher-kva.example"),
        ("zoe@XN--BCHER-KVA.example", "zoe@bücher.example"),
        ("Zoë@example.com", "zoe\u0308@EXAMPLE.com"),
        ("ΟΔΟΣ@παράδειγμα.ελ", "οδοσ@ΠΑΡΆΔΕΙΓΜΑ.xn--qxam"),
        ("ИВАН@пример.рф", "иван@xn--e1afmkfd.xn--p1ai"),
        ("用户@例子。中国", "用户@xn--fsqu00a.xn--fiqs8s"),
        ("x@ｅｘａｍｐｌｅ．com", "x@example.com"),
        ("x@straße.de", "x@xn--strae-oqa.de"),
        ("x@bü\u00adcher.example", "x@bücher.example"),
        ("x@क्षि.भारत", "x@xn--11b2eya8c.xn--h2brj9c"),
    ],
)
def test_spellings_of_one_address_are_one(db: Db, one: str, other: str) -> None:
    assert compared(db, one) == compared(db, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.b@example.com", "ab@example.com"),
        ("a+tag@example.com", "a@example.com"),
        (" a@example.com", "a@example.com"),
        ("mİke@example.com", "mike@example.com"),
        ("mıke@example.com", "mike@example.com"),
        ("x@straße.de", "x@strasse.de"),
        ("straße@example.com", "strasse@example.com"),
        ("zoë@example.com", "zoe@example.com"),
        ("а@example.com", "a@example.com"),  # a Cyrillic one
        ("ｘ@example.com", "x@example.com"),
    ],
)
def test_addresses_of_two_mailboxes_are_two(db: Db, one: str, other: str) -> None:
    assert compared(db, one) != compared(db, other)


@given(st.lists(labels, min_size=1, max_size=3))
@SHARED
def test_domains_are_as_uts_46_and_dns_have_them(db: Db, parts: list[str]) -> None:
    domain = ".".join(parts)
    try:
        mapped = idna.uts46_remap(domain)
    except idna.IDNAError:
        assume(False)
    expected = ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode()
        for label in mapped.split(".")
    )
    assert value(db, "select tocsin.compared_domain(%s)", domain) == expected
    assert value(db, "select tocsin.compared_domain(%s)", expected) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], min_codepoint=1), min_size=1, max_size=60))
@SHARED
def test_punycode_is_that_of_rfc_3492(db: Db, label: str) -> None:
    assert value(db, "select tocsin.punycode(%s)", label) == label.encode("punycode").decode()


@given(st.text(letters, min_size=1, max_size=20))
@SHARED
def test_local_parts_ignore_case_and_the_way_to_write_an_accent(db: Db, local: str) -> None:
    form = compared(db, f"{local}@example.com")
    assert form == compared(db, form)
    for same in (unicodedata.normalize("NFD", local), unicodedata.normalize("NFC", local)):
        assert compared(db, f"{same}@EXAMPLE.com") == form
    lowered = "".join(char.lower() for char in unicodedata.normalize("NFC", local))
    lowered = lowered.replace("ς", "σ")  # the same letter at a word's end
    assert form == f"{unicodedata.normalize('NFC', lowered)}@example.com"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="its Unicode has letters that are newer")
def test_every_letter_that_has_a_lower_case_gets_it(db: Db) -> None:
    capitals = [
        char
        for char in map(chr, range(1, sys.maxunicode + 1))
        if char.lower() != char and unicodedata.is_normalized("NFC", char)
    ]
    lowered = value(
        db, "select array(select tocsin.lower_case(c) from unnest(%s::text[]) c)", capitals
    )
    assert lowered == [char.lower() for char in capitals]


def test_a_recipient_keeps_the_form_whichever_way_they_are_written(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('a', 'A@Bücher.example')")
    db.execute('select tocsin.create_missing_recipients(\'[{"id": "b", "email": "B@X.example"}]\')')
    db.execute(
        "insert into tocsin.recipient (recipient_id, email) values ('c', 'C@x.example'), ('d', null)"
    )
    rows = db.execute("select address from tocsin.recipient order by recipient_id").fetchall()
    assert rows == [("a@xn--bcher-kva.example",), ("b@x.example",), ("c@x.example",), (None,)]
    db.execute("select tocsin.upsert_recipient('a', 'New@x.example')")
    assert (
        value(db, "select address from tocsin.recipient where recipient_id = 'a'")
        == "new@x.example"
    )


def test_a_suppressed_address_is_in_each_spelling(db: Db) -> None:
    db.execute(
        "insert into tocsin.suppression (address, reason) values ('zoe@xn--bcher-kva.example', 'smtp_550_5.1.1')"
    )
    db.execute("select tocsin.upsert_recipient('zoe', 'Zoe@BÜCHER.example')")
    db.execute("select tocsin.notify('forum.new_reply', array['zoe'], 'x')")
    decided = value(db, "select decisions -> 'email' from tocsin.notification")
    assert decided == ["off", "suppressed"]


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.com",
        "ian@example.com",
        "jo@example.com",
        "x@example.com",
        '"a@b"@example.com',
        "a1b2c3" * 4,
        "short",
    ],
)
def test_sql_and_python_mask_an_address_alike(db: Db, address: str) -> None:
    assert db.execute("select tocsin.mask(%s)", (address,)).fetchone() == (mask(address),)


def test_an_app_reads_the_reasons_with_masked_addresses(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('ian', 'ian@example.com')")
    db.execute("select tocsin.notify('forum.new_reply', array['ian'], 'Hi')")
    db.execute("update tocsin.delivery set address = 'ian@example.com'")
    found = db.execute("select deliveries from tocsin.why('ian') where channel = 'email'")
    assert [each["address"] for ((each,),) in found.fetchall()] == ["i***n@example.com"]
