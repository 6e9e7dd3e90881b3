"""The compiled way of large or mixed chunks: what its results do not tell, since they are right another way too."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from triorelay.protocol import LARGE_CHUNK, _grouping, address_frames, regroup

SHELVES_FROM = 8192
"""Bytes of the smallest chunk that is regrouped on shelves."""


def frames_to(destinations: int, size: int) -> bytes:
    """Return `size` bytes of frames to each of `destinations` in turn."""
    return bytes(byte for at in range(size // 2) for byte in (at % destinations, at % 251))


def memory_of_regrouping(frames: bytes) -> int:
    """Return how many bytes more are in use at a time while `frames` are regrouped, once the shelves are made."""
    regroup(frames, 7)
    more = []
    tracemalloc.start()
    for _ in range(5):  # the least: other threads take memory too
        tracemalloc.reset_peak()
        before, _peak = tracemalloc.get_traced_memory()
        regroup(frames, 7)
        more.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return min(more)


@pytest.mark.parametrize("destination", [0, 65, 255])
def test_a_chunk_to_one_is_readdressed_at_once(destination: int) -> None:
    for count in range(1, 20):
        data = bytes(range(250 - count, 250))
        assert _grouping.readdress(bytes(address_frames(destination, data)), 66) == address_frames(66, data)


def test_a_chunk_to_several_or_none_is_not_readdressed() -> None:
    assert _grouping.readdress(b"", 66) == b""
    for count in range(2, 20):
        for place in range(count):
            frames = address_frames(65, bytes(count))
            frames[2 * place] ^= 128
            assert _grouping.readdress(bytes(frames), 66) == b""


@pytest.mark.parametrize("destinations", [2, 3, 15, 16])
@pytest.mark.parametrize("size", [SHELVES_FROM, SHELVES_FROM + 6, LARGE_CHUNK - 2, LARGE_CHUNK])
def test_a_large_chunk_for_few_takes_the_memory_of_its_pieces_and_no_copy(destinations: int, size: int) -> None:
    # Sorting needs the chunk a second time at least, and shelves made anew would be a MiB.
    assert memory_of_regrouping(frames_to(destinations, size)) < size + SHELVES_FROM * 3 // 4


def test_the_shelves_take_a_mib_once() -> None:
    _grouping._idle.clear()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for destinations in (16, 17, 2, 255):
        for size in (SHELVES_FROM, LARGE_CHUNK):
            regroup(frames_to(destinations, size), 7)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1 << 20 <= after - before < (1 << 20) + (1 << 15)
