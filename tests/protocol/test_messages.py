"""Whole messages: CRC-32, COBS, a closing zero; and finding one's feet after any loss."""

from __future__ import annotations

import tracemalloc
import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.splits import byte_by_byte, cut, cuts, every_cut_in_two
from triorelay.protocol import (
    DEFAULT_MESSAGE_LIMIT,
    LocalProtocolError,
    MessageReader,
    address_frames,
    encode_message,
    frame_sealed,
    seal_message,
    stuff_sealed,
)

payloads = st.one_of(
    st.binary(max_size=20),
    st.lists(st.integers(0, 300).map(lambda size: b"\xff" * size), max_size=8).map(b"\0".join),
    st.integers(245, 520).map(bytes),
    st.integers(245, 520).map(lambda size: b"\x01" * size),
)


def read(pieces: list[bytes], limit: int = DEFAULT_MESSAGE_LIMIT) -> tuple[list[bytes], int]:
    """Return the messages that a reader finds, and how many blocks it discarded."""
    reader = MessageReader(limit=limit)
    found = [payload for piece in pieces for payload in reader.feed(piece)]
    return found, reader.discarded


def unstuff(block: bytes) -> bytes:
    """Undo COBS as its authors describe it: each code byte tells how far the next zero is."""
    plain = bytearray()
    while block:
        code, block = block[0], block[1:]
        plain += block[: code - 1]
        block = block[code - 1 :]
        if code < 255 and block:
            plain.append(0)
    return bytes(plain)


# -- on the wire


def test_a_message_as_the_protocol_shows_it() -> None:
    assert zlib.crc32(b"\0") == 0xD202EF8D
    assert encode_message(b"\0") == b"\x01\x05\xd2\x02\xef\x8d\0"


@given(payloads)
def test_a_message_is_its_payload_and_its_checksum_stuffed_and_ended_by_zero(payload: bytes) -> None:
    encoded = encode_message(payload)
    assert encoded[-1:] == b"\0"
    assert b"\0" not in encoded[:-1]
    assert unstuff(encoded[:-1]) == payload + zlib.crc32(payload).to_bytes(4, "big")


@given(st.integers(1, 255), payloads)
def test_the_frames_of_a_message_are_a_zero_and_the_message_one_frame_a_byte(id: int, payload: bytes) -> None:
    assert frame_sealed(id, seal_message(payload)) == address_frames(id, b"\0" + encode_message(payload))
    assert stuff_sealed(seal_message(payload)) == b"\0" + encode_message(payload)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_encoded(kind: type[bytes]) -> None:
    assert encode_message(kind(b"a\0b")) == encode_message(b"a\0b")
    assert seal_message(kind(b"a\0b")) == seal_message(b"a\0b")


def test_a_payload_over_the_limit_is_refused_with_advice() -> None:
    assert read([encode_message(bytes(5), limit=5)]) == ([bytes(5)], 0)
    with pytest.raises(LocalProtocolError, match="at most 5 bytes, not 6: split it, or raise the limit on both sides"):
        encode_message(bytes(6), limit=5)


def test_items_that_are_wider_than_a_byte_count_as_their_bytes() -> None:
    wide = memoryview(array("I", [1, 2, 3]))
    with pytest.raises(LocalProtocolError, match=f"at most 3 bytes, not {wide.nbytes}"):
        encode_message(wide, limit=3)
    assert read([encode_message(wide, limit=wide.nbytes)]) == ([wide.tobytes()], 0)


@pytest.mark.parametrize("payload", ["text", 5, None, [1], array("I", [1])], ids=repr)
def test_what_is_not_bytes_is_refused_with_advice(payload: object) -> None:
    with pytest.raises(TypeError, match=r"payload must be bytes, bytearray or memoryview, not .*: encode text first"):
        encode_message(payload)  # type: ignore[arg-type]


def test_the_default_limit_is_a_mebibyte() -> None:
    payload = b"\x01" * DEFAULT_MESSAGE_LIMIT
    assert len(payload) == 1024 * 1024
    assert read([encode_message(payload)]) == ([payload], 0)
    with pytest.raises(LocalProtocolError):
        encode_message(payload + b"\x01")


# -- in any split


@given(st.lists(payloads, max_size=4), cuts)
def test_no_split_changes_what_is_read(messages: list[bytes], places: list[int]) -> None:
    data = b"\0" + b"".join(map(encode_message, messages))
    for pieces in ([data], byte_by_byte(data), cut(data, places)):
        assert read(pieces) == (messages, 0)


@given(st.lists(st.sampled_from([0, 5, 1015, 1025, 3000]), max_size=8), cuts)
def test_no_split_changes_what_is_read_of_long_messages(sizes: list[int], places: list[int]) -> None:
    messages = [bytes((size % 250 + 1,)) * size for size in sizes]
    pieces = cut(b"".join(map(encode_message, messages)), [11 * place for place in places])
    assert read(pieces) == (messages, 0)


def test_every_cut_in_two_gives_the_same() -> None:
    messages = [b"", b"one", b"\0\0", b"\x01" * 300]
    for pieces in every_cut_in_two(b"".join(map(encode_message, messages))):
        assert read(pieces) == (messages, 0)


def test_empty_blocks_mean_nothing() -> None:
    assert read([b"\0\0\0" + encode_message(b"1") + b"\0\0" + encode_message(b"2") + b"\0"]) == ([b"1", b"2"], 0)


def test_a_message_has_begun_until_its_zero() -> None:
    reader = MessageReader()
    assert reader.begun == b""
    for byte in (b"\x03", b"\x01"):
        reader.feed(byte)
    assert reader.begun == b"\x03\x01"
    reader.feed(b"\0")
    assert reader.begun == b""


def test_a_message_that_is_abandoned_is_discarded_once_and_the_next_is_read() -> None:
    reader = MessageReader()
    reader.feed(encode_message(b"cut")[:3])
    reader.abandon()
    reader.abandon()
    assert not reader.begun
    assert reader.discarded == 1
    assert reader.feed(encode_message(b"next")) == [b"next"]


# -- after a loss


@given(st.binary(), st.lists(payloads, min_size=1, max_size=3))
def test_after_garbage_and_a_zero_everything_is_found(garbage: bytes, messages: list[bytes]) -> None:
    found, _ = read([garbage + b"\0" + b"".join(map(encode_message, messages))])
    assert found[-len(messages) :] == messages


@given(payloads, st.data())
def test_a_message_that_lost_bytes_is_discarded(payload: bytes, data: st.DataObject) -> None:
    encoded = encode_message(payload)
    start = data.draw(st.integers(0, len(encoded) - 2))
    end = data.draw(st.integers(start + 1, len(encoded) - 1))
    found, discarded = read([encoded[:start] + encoded[end:] + encode_message(b"next")])
    # Losing all of it but the zero leaves an empty block, which is nothing at all.
    assert (found, discarded) == ([b"next"], 0 if end - start == len(encoded) - 1 else 1)


@given(payloads, st.data())
def test_a_message_with_a_wrong_byte_is_discarded(payload: bytes, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(payload))
    place = data.draw(st.integers(0, len(encoded) - 2))
    encoded[place] ^= data.draw(st.integers(1, 255).filter(lambda change: change != encoded[place]))
    assert read([bytes(encoded) + b"\0" + encode_message(b"next")]) == ([b"next"], 1)


@pytest.mark.parametrize("block", [b"\x01", b"\x04abc", b"\x05abcd", b"\xff"], ids=repr)
def test_blocks_that_cannot_be_messages_are_discarded(block: bytes) -> None:
    assert read([block + b"\0" + encode_message(b"next")]) == ([b"next"], 1)


# -- over the limit


@pytest.mark.parametrize("size", [11, 12, 300, 5000])
def test_a_message_over_the_limit_is_discarded_and_the_next_is_read(size: int) -> None:
    data = encode_message(bytes(size)) + encode_message(bytes(10))
    for pieces in ([data], byte_by_byte(data)):
        assert read(pieces, limit=10) == ([bytes(10)], 1)


@given(st.integers(0, 2000), st.sampled_from([b"\0", b"\x01"]))
def test_a_message_of_exactly_the_limit_is_read(size: int, byte: bytes) -> None:
    assert read([encode_message(byte * size)], limit=size) == ([byte * size], 0)


def test_an_endless_message_takes_no_more_memory_than_the_limit() -> None:
    reader = MessageReader(limit=1000)
    tracemalloc.start()
    for _ in range(1000):
        assert reader.feed(b"\x01" * 10_000) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert reader.feed(b"\0" + encode_message(b"next")) == [b"next"]
    assert reader.discarded == 1


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_garbage_is_read_without_an_error(pieces: list[bytes]) -> None:
    found, _ = read(pieces)
    assert all(isinstance(payload, bytes) for payload in found)
