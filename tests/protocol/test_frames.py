"""Frames: building them, taking chunks of them apart; compiled and interpreted, the same."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.interpreted import interpreted
from triorelay.protocol import LARGE_CHUNK, _frames, address_frames, regroup, runs, source_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from triorelay.protocol._frames import Pieces

INTERPRETED = interpreted("triorelay.protocol._frames")
ALL_FRAMES = b"".join(bytes((id, data)) for id in range(256) for data in range(256))

frames = st.binary(max_size=400).map(lambda data: data[: len(data) & ~1])
# Few ids, so that runs and repeated destinations are common.
crowded = st.lists(st.tuples(st.sampled_from(b"\0AB\xff"), st.integers(0, 255)), max_size=200).map(
    lambda pairs: bytes(byte for pair in pairs for byte in pair)
)
sources = st.integers(0, 255)


def shuffled_frames(destinations: int, count: int, seed: int = 1) -> bytes:
    """Return `count` frames to that many destinations, and unlike any other seed's."""
    chosen = random.Random(seed)
    ids = chosen.sample(range(256), destinations)
    return bytes(byte for _ in range(count) for byte in (chosen.choice(ids), chosen.randrange(256)))


def regroup_one_by_one(frames: bytes, source: int) -> Pieces:
    """The plainest way to do what `regroup` does."""
    pieces: dict[int, bytearray] = {}
    for at in range(0, len(frames), 2):
        pieces.setdefault(frames[at], bytearray()).extend((source, frames[at + 1]))
    return list(pieces.items())


@given(id=sources, data=st.binary(max_size=300))
@example(id=255, data=bytes(LARGE_CHUNK))
def test_addressing_makes_one_frame_a_byte(id: int, data: bytes) -> None:
    addressed = address_frames(id, data)
    assert type(addressed) is bytearray
    assert addressed[1::2] == data
    assert addressed[0::2] == bytes((id,)) * len(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_data_of_any_kind_is_addressed(kind: Callable[[bytes], bytes]) -> None:
    assert address_frames(65, kind(b"12")) == b"A1A2"


def test_all_65536_frames_arrive_as_they_were_sent_with_the_source_in_place_of_the_destination() -> None:
    for source in (0, 1, 65, 128, 255):
        for at in range(0, len(ALL_FRAMES), 2):
            frame = ALL_FRAMES[at : at + 2]
            assert regroup(frame, source) == [(frame[0], bytearray((source, frame[1])))]
            assert runs(frame) == [(frame[0], frame[1:])]


def test_all_65536_frames_in_one_chunk_arrive_too() -> None:
    assert regroup(ALL_FRAMES, 65) == [(id, address_frames(65, bytes(range(256)))) for id in range(256)]


@given(frames=st.one_of(frames, crowded), source=sources)
def test_regrouping_keeps_each_destination_in_order_and_adds_nothing(frames: bytes, source: int) -> None:
    assert regroup(frames, source) == regroup_one_by_one(frames, source)


@given(frames=st.one_of(frames, crowded), source=sources, place=st.integers(0, 200))
def test_regrouping_a_chunk_in_two_parts_gives_each_destination_the_same_bytes(
    frames: bytes, source: int, place: int
) -> None:
    received: dict[int, bytes] = {}
    for part in (frames[: 2 * place], frames[2 * place :]):
        for destination, piece in regroup(part, source):
            received[destination] = received.get(destination, b"") + piece
    assert received == dict(regroup(frames, source))


def test_every_cut_of_a_mixed_chunk_gives_each_destination_the_same_bytes() -> None:
    frames = shuffled_frames(5, 40)
    whole = dict(regroup(frames, 9))
    for place in range(0, len(frames) + 1, 2):
        received: dict[int, bytes] = {}
        for destination, piece in regroup(frames[:place], 9) + regroup(frames[place:], 9):
            received[destination] = received.get(destination, b"") + piece
        assert received == whole


def test_a_piece_is_the_receivers_to_keep_and_where_it_can_be_changed_to_change() -> None:
    sent = bytearray(b"A1A2")
    for chunk in (sent, sent + b"B3", bytearray(address_frames(65, bytes(2000)))):
        before = bytes(chunk)
        for _, piece in regroup(chunk, 66):
            if isinstance(piece, bytearray):
                piece += b"more"
                piece[0] ^= 1
        chunk += b"grows"
        assert chunk == before + b"grows"


@given(frames=st.one_of(frames, crowded))
def test_runs_put_together_are_the_frames_again(frames: bytes) -> None:
    found = runs(frames)
    assert b"".join(bytes(address_frames(id, data)) for id, data in found) == frames
    assert all(data for _, data in found)


@given(frames=st.one_of(frames, crowded))
def test_runs_are_as_long_as_they_can_be(frames: bytes) -> None:
    ids = [id for id, _ in runs(frames)]
    assert all(id != after for id, after in pairwise(ids))


def test_runs_of_a_bytearray_are_bytes_that_do_not_change_with_it() -> None:
    frames = bytearray(b"A1A2B3")
    found = runs(frames)
    frames[:] = b"......"
    assert found == [(65, b"12"), (66, b"3")]
    assert all(type(data) is bytes for _, data in found)


@given(ids=st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(b"\0AB"), max_size=300).map(bytes)))
@example(ids=bytes(range(256)) * 3)
def test_source_counts_are_exact(ids: bytes) -> None:
    for kind in (bytes(ids), bytearray(ids)):
        counted = source_counts(kind)
        assert dict(counted) == Counter(ids)
        assert len(counted) == len(set(ids))


@pytest.mark.parametrize("destinations", [1, 2, 16, 17, 31, 32, 33, 34, 255, 256])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63, 64, 1023, 4095, 4096, 32768, 32769])
def test_compiled_and_interpreted_agree(destinations: int, count: int) -> None:
    for seed, source in enumerate((0, 1, 127, 128, 255)):
        frames = shuffled_frames(destinations, count, seed)
        assert regroup(frames, source) == INTERPRETED.regroup(frames, source)
        assert runs(frames) == INTERPRETED.runs(frames)
        assert sorted(source_counts(frames[0::2])) == sorted(INTERPRETED.source_counts(frames[0::2]))


@pytest.mark.parametrize("place", [0, 16, 17, 4095])
def test_one_destination_more_than_are_regrouped_at_once_may_come_anywhere(place: int) -> None:
    frames = bytearray(shuffled_frames(16, 4096))
    frames[2 * place] = 200
    for _ in range(2):
        assert regroup(frames, 7) == INTERPRETED.regroup(frames, 7)
        assert regroup(frames[: 2 * 2048], 7) == INTERPRETED.regroup(frames[: 2 * 2048], 7)


@pytest.mark.parametrize("count", [4096, 4097, 4098, 4099])
@pytest.mark.parametrize("known", [13, 14, 15, 16])
def test_destinations_beyond_those_that_are_regrouped_at_once_may_come_anywhere(known: int, count: int) -> None:
    for place in (*range(16, 24), *range(count - 8, count - 3)):
        for others in ((200, 200, 200, 200), (200, 201, 202, 203), (200, 0, 200, 201)):
            frames = bytearray(byte for at in range(count) for byte in (at % known, at % 251))
            frames[2 * place : 2 * place + 8 : 2] = bytes(others)
            assert regroup(frames, 128) == regroup_one_by_one(bytes(frames), 128)


@pytest.mark.parametrize("count", [32765, 32766, 32767, 32768, 32769, 40000])
@pytest.mark.parametrize("others", [1, 2, 15])
def test_nearly_all_of_a_large_chunk_may_be_for_any_one(others: int, count: int) -> None:
    for favourite in (0, others):
        ids = bytes(range(others + 1)) + bytes((favourite,)) * (count - others - 1)
        frames = bytes(byte for pair in zip(ids, bytes(range(251)) * 200, strict=False) for byte in pair)
        assert regroup(frames, 7) == regroup_one_by_one(frames, 7)


@given(
    frames=st.one_of(
        crowded, frames, st.builds(shuffled_frames, st.integers(1, 256), st.integers(0, 3000), st.integers(0, 9))
    ),
    source=sources,
)
def test_chunks_of_any_kind_are_handled_as_one_by_one_compiled_and_interpreted(frames: bytes, source: int) -> None:
    for kind in (frames, bytearray(frames)):
        for module in (_frames, INTERPRETED):
            assert module.regroup(kind, source) == regroup_one_by_one(frames, source)
            assert dict(module.source_counts(kind[0::2])) == Counter(frames[0::2])
            assert module.address_frames(source, kind) == b"".join(bytes((source, byte)) for byte in frames)


@pytest.mark.parametrize("count", [32768, 65536, 70000])
def test_order_is_kept_in_chunks_of_any_size(count: int) -> None:
    frames = shuffled_frames(3, count)
    received = dict(regroup(frames, 7))
    assert sum(len(piece) for piece in received.values()) == len(frames)
    for destination in set(frames[0::2]):
        sent = bytes(data for id, data in zip(frames[0::2], frames[1::2], strict=True) if id == destination)
        assert received[destination][1::2] == sent


@pytest.mark.parametrize("count", [4096, 4097, 32768])
def test_large_chunks_of_few_destinations_and_few_values_are_handled_as_one_by_one(count: int) -> None:
    frames = bytes(64 | byte & 7 for byte in shuffled_frames(200, count))
    assert regroup(frames, 7) == regroup_one_by_one(frames, 7)


@pytest.mark.parametrize("destination", [0, 1, 128, 255])
@pytest.mark.parametrize("source", [0, 1, 127, 255])
def test_a_chunk_to_one_is_readdressed_whatever_its_size(destination: int, source: int) -> None:
    for count in (1, 7, 8, 9, 10, 11, 12, 2048):
        for data in (bytes(at & 255 for at in range(count)), bytes((destination,)) * count):
            assert regroup(address_frames(destination, data), source) == [(destination, address_frames(source, data))]


def test_a_single_frame_that_differs_is_seen() -> None:
    for count in (8, 9, 10, 11, 3000):
        for place in (0, 1, count // 2, count - 1):
            for bit in range(8):
                frames = address_frames(65, bytes(count))
                frames[2 * place] ^= 1 << bit
                assert {id: len(piece) for id, piece in regroup(frames, 7)} == {65: 2 * count - 2, 65 ^ 1 << bit: 2}


@pytest.mark.parametrize("id", [1, 65, 128, 255])
def test_ids_that_repeat_every_four_frames_are_told_apart(id: int) -> None:
    # Eight bytes are compared at a time, with one id four times: a wrong shift makes one of these the same.
    for ids in product((id, 0, id << 1 & 255, id >> 1), repeat=4):
        frames = bytes(byte for pair in zip(ids * 6, range(24), strict=True) for byte in pair)
        assert regroup(frames, 7) == regroup_one_by_one(frames, 7)
        assert runs(frames) == INTERPRETED.runs(frames)
