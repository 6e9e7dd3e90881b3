"""Frames: building them, taking chunks of them apart; with numpy and without, the same."""

from __future__ import annotations

import random
import sys
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triorelay.protocol import LARGE_CHUNK, _frames, address_frames, enable_numpy, regroup, runs, source_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from triorelay.protocol._frames import Counts, Pieces

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


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without numpy, whatever other tests have enabled."""
    monkeypatch.setattr(_frames, "_regroup_by_numpy", None)
    monkeypatch.setattr(_frames, "_count_by_numpy", None)


@pytest.fixture
def by_numpy(plain: None) -> None:
    pytest.importorskip("numpy")
    assert enable_numpy()


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


def test_all_65536_frames_in_one_chunk_arrive_too(plain: None) -> None:
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


def test_a_piece_is_the_receivers_to_keep_and_change() -> None:
    sent = bytearray(b"A1A2")
    for chunk in (sent, sent + b"B3", bytearray(address_frames(65, bytes(2000)))):
        before = bytes(chunk)
        for _, piece in regroup(chunk, 66):
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


@pytest.mark.parametrize("destinations", [1, 2, 16, 31, 32, 33, 34, 255, 256])
@pytest.mark.parametrize("count", [63, 64, 1023, 1024, 1025, 4000])
def test_numpy_and_plain_python_agree(
    destinations: int, count: int, monkeypatch: pytest.MonkeyPatch, by_numpy: None
) -> None:
    for seed, source in enumerate((0, 1, 127, 128, 255)):
        frames = shuffled_frames(destinations, count, seed)
        fast = regroup(frames, source), sorted(source_counts(frames[0::2]))
        with monkeypatch.context() as patched:
            patched.setattr(_frames, "_regroup_by_numpy", None)
            patched.setattr(_frames, "_count_by_numpy", None)
            assert fast == (regroup(frames, source), sorted(source_counts(frames[0::2])))
        assert all(type(id) is int and type(piece) is bytearray for id, piece in fast[0])


@given(
    frames=st.one_of(
        crowded.filter(bool),
        frames.filter(bool),
        st.builds(shuffled_frames, st.integers(1, 256), st.integers(1, 3000), st.integers(0, 9)),
    ),
    source=sources,
)
def test_numpy_regroups_chunks_of_any_size_as_one_by_one(frames: bytes, source: int) -> None:
    by_numpy = pytest.importorskip("triorelay.protocol._frames_numpy")
    assert by_numpy.regroup(frames, source) == regroup_one_by_one(frames, source)
    assert by_numpy.regroup(bytearray(frames), source) == regroup_one_by_one(frames, source)
    assert dict(by_numpy.source_counts(frames[0::2])) == Counter(frames[0::2])


@pytest.mark.parametrize("count", [32768, 65536, 65537, 70000])
def test_numpy_keeps_order_in_chunks_up_to_any_size(count: int, by_numpy: None) -> None:
    frames = shuffled_frames(3, count)
    received = dict(regroup(frames, 7))
    assert sum(len(piece) for piece in received.values()) == len(frames)
    for destination in set(frames[0::2]):
        sent = bytes(data for id, data in zip(frames[0::2], frames[1::2], strict=True) if id == destination)
        assert received[destination][1::2] == sent


@pytest.mark.parametrize("destination", [0, 1, 128, 255])
@pytest.mark.parametrize("source", [0, 1, 127, 255])
def test_numpy_readdresses_a_large_chunk_to_one(destination: int, source: int, by_numpy: None) -> None:
    data = bytes(range(256)) * 8
    assert regroup(address_frames(destination, data), source) == [(destination, address_frames(source, data))]


def test_numpy_sees_a_single_frame_that_differs(by_numpy: None) -> None:
    for place in (0, 1, 1500, 2999):
        for bit in range(8):
            frames = address_frames(65, bytes(3000))
            frames[2 * place] ^= 1 << bit
            assert {id: len(piece) for id, piece in regroup(frames, 7)} == {65: 5998, 65 ^ 1 << bit: 2}


@pytest.fixture
def given_to_numpy(monkeypatch: pytest.MonkeyPatch, by_numpy: None) -> list[int]:
    """The bytes of each chunk that numpy was given so far."""
    lengths: list[int] = []

    def regroup_recorded(frames: bytes | bytearray, source: int) -> Pieces:
        lengths.append(len(frames))
        return []

    def count_recorded(ids: bytes | bytearray) -> Counts:
        lengths.append(2 * len(ids))
        return []

    monkeypatch.setattr(_frames, "_regroup_by_numpy", regroup_recorded)
    monkeypatch.setattr(_frames, "_count_by_numpy", count_recorded)
    return lengths


def test_numpy_is_asked_for_large_chunks_alone(given_to_numpy: list[int]) -> None:
    for count in (1, 2, 1023, 1024, 65536, 65537):
        regroup(shuffled_frames(2, count), 1)
    assert given_to_numpy == [2048, 131072]


def test_numpy_is_asked_to_count_large_mixed_chunks_alone(given_to_numpy: list[int]) -> None:
    for ids in (b"", b"AB", b"A" * 5000, b"AB" * 511, b"AB" * 512):
        source_counts(ids)
    assert given_to_numpy == [2048]


def test_numpy_is_not_used_where_the_environment_says_so(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIORELAY_NUMPY", "0")
    assert not enable_numpy()
    assert _frames._regroup_by_numpy is None


def test_without_numpy_the_relay_does_without(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triorelay.protocol._frames_numpy", None)
    monkeypatch.delattr("triorelay.protocol._frames_numpy", raising=False)
    assert not enable_numpy()
    assert _frames._regroup_by_numpy is None
    assert dict(regroup(shuffled_frames(16, 2000), 1)) == dict(regroup_one_by_one(shuffled_frames(16, 2000), 1))
