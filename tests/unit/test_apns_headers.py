"""The header blocks of pushes: whatever the order of headers and the size of the table, a decoder reads the same."""

from __future__ import annotations

from random import Random

import pytest
from hpack import Decoder, HeaderTuple, NeverIndexedHeaderTuple

from tocsin.engine.actors.apns_connection import HeaderEncoder

NAMES = (b":path", b":method", b"authorization", b"apns-topic", b"apns-id", b"apns-expiration")


def some_headers(random: Random) -> list[HeaderTuple]:
    """Returns headers that are partly the same as before, some of them unique."""
    made = []
    for name in random.choices(NAMES, k=6):
        kind = random.choice((HeaderTuple, HeaderTuple, NeverIndexedHeaderTuple))
        value = b"POST" if name == b":method" else b"%d" % random.randrange(8)
        made.append(kind(name, value * random.choice((1, 5, 200))))
    return made


@pytest.mark.parametrize("seed", range(20))
def test_a_decoder_reads_what_was_encoded(seed: int) -> None:
    random, encoder, decoder = Random(seed), HeaderEncoder(), Decoder()
    decoder.max_allowed_table_size = 4096
    for number in range(200):
        if number % 50 == 25:
            encoder.header_table_size = random.choice((0, 100, 1000, 4096))
        headers = some_headers(random)
        assert decoder.decode(encoder.encode(headers), raw=True) == headers


def test_a_header_that_repeats_is_one_byte_and_a_unique_one_is_never_in_the_table() -> None:
    encoder = HeaderEncoder()
    repeated, unique = (b"authorization", b"bearer x"), NeverIndexedHeaderTuple(b"apns-id", b"1-2")
    first, *others = [encoder.encode([repeated, unique]) for _ in range(4)]
    assert {len(each) for each in others} == {1 + len(first) - len(b"\x57\x08bearer x")}
    assert all(b"apns-id" in each and b"1-2" in each for each in others)
    assert len(encoder.header_table.dynamic_entries) == 1
