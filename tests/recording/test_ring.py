"""The last frames, in bounded memory."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import count

import pytest

from triorelay.recording import Ring, Run, runs_in
from triorelay.recording._ring import LARGEST, SMALLEST


def see_alone(ring: Ring, source: bytes, sent: bytes) -> None:
    """Do what the router does with a frame that comes alone."""
    ring.alone.append(source)
    ring.alone.append(sent)


def runs_of(ring: Ring) -> list[Run]:
    return list(runs_in(ring.snapshot()))


def test_what_was_seen_is_there_with_the_time_of_its_step_oldest_first() -> None:
    ring = Ring(SMALLEST, count(100).__next__)
    ring.begin_step()
    ring.see(65, 66, b"A1")
    see_alone(ring, b"A", b"B2")
    ring.begin_step()
    ring.see(67, 66, bytearray(b"CaCbCc"))
    assert runs_of(ring) == [Run(101, 65, 66, b"1"), Run(101, 65, 66, b"2"), Run(102, 67, 66, b"abc")]


def test_a_piece_that_grows_in_its_outbox_is_kept_as_it_was() -> None:
    ring, piece = Ring(SMALLEST), bytearray(b"A1")
    ring.see(65, 66, piece)
    piece += b"A2"
    assert [run.data for run in runs_of(ring)] == [b"1"]


@pytest.mark.parametrize("a_step", [1, 7, 64])
def test_the_oldest_make_room_for_the_newest(a_step: int) -> None:
    ring = Ring(SMALLEST)
    for number in range(40_000):
        if number % a_step == 0:
            ring.begin_step()
        see_alone(ring, b"A", b"B%c" % (number % 256))
    kept = [run.data[0] for run in runs_of(ring)]
    # Three bytes a frame, and ten a step.
    assert 0.8 < len(kept) * (3 + 10 / a_step) / SMALLEST < 1
    assert kept == [number % 256 for number in range(40_000 - len(kept), 40_000)]


def test_a_snapshot_stays_as_it_was() -> None:
    ring = Ring(SMALLEST)
    ring.see(65, 66, b"A1")
    snapshot = ring.snapshot()
    for _ in range(20_000):
        ring.see(65, 66, b"A2")
    assert [run.data for run in runs_in(snapshot)] == [b"1"]


def test_every_piece_has_a_time_whatever_was_forgotten() -> None:
    ring = Ring(SMALLEST, count(100).__next__)
    ring.begin_step()
    for _ in range(20_000):
        ring.see(65, 66, b"A1")
    assert {run.time for run in runs_of(ring)} == {101}


def test_a_piece_larger_than_the_ring_leaves_nothing_and_does_no_harm() -> None:
    ring = Ring(SMALLEST)
    ring.see(65, 66, b"A1")
    ring.see(65, 66, b"A." * SMALLEST)
    assert runs_of(ring) == []
    ring.see(65, 66, b"A2")
    assert [run.data for run in runs_of(ring)] == [b"2"]


@pytest.mark.parametrize("a_step", [1, 64])
@pytest.mark.parametrize(("size", "limit"), [(2, 1 << 18), (64, 1 << 18), (2000, 1 << 20), (65_536, 1 << 20)])
def test_memory_stays_below_what_was_allowed(size: int, limit: int, a_step: int) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        ring = Ring(limit)
        for number in range(3 * limit // size):
            if number % a_step == 0:
                ring.begin_step()
            if size == 2:
                see_alone(ring, b"A", b"B%c" % (number % 256))
            else:
                ring.see(65, 66, bytearray(size))
        taken, most = (figure - before for figure in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert limit * 13 // 16 < taken < most < limit + 2 * size, sys.version


@pytest.mark.parametrize("limit", [-1, 0, SMALLEST - 1, LARGEST + 1])
def test_a_size_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"a flight recorder has {SMALLEST} to {LARGEST} bytes, or 0 for none"):
        Ring(limit)
