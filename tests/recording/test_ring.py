"""The last frames, in bounded memory."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import count

import pytest

from triorelay.recording import Ring, Run, runs_in
from triorelay.recording._ring import LARGEST, SMALLEST


def runs_of(ring: Ring) -> list[Run]:
    return list(runs_in(ring.snapshot()))


def test_what_was_seen_is_there_with_the_time_of_its_step_oldest_first() -> None:
    ring = Ring(SMALLEST, count(100).__next__)
    ring.begin_step()
    ring.see(65, 66, b"A1")
    ring.see_one((66, b"A2"))
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
    for number in range(10_000):
        if number % a_step == 0:
            ring.begin_step()
        ring.see_one((66, b"A%c" % (number % 256)))
    kept = [run.data[0] for run in runs_of(ring)]
    assert 150 < len(kept) < 500
    assert kept == [number % 256 for number in range(10_000 - len(kept), 10_000)]


def test_a_snapshot_stays_as_it_was() -> None:
    ring = Ring(SMALLEST)
    ring.see(65, 66, b"A1")
    snapshot = ring.snapshot()
    for _ in range(2000):
        ring.see(65, 66, b"A2")
    assert [run.data for run in runs_in(snapshot)] == [b"1"]


def test_every_piece_has_a_time_whatever_was_forgotten() -> None:
    ring = Ring(SMALLEST, count(100).__next__)
    ring.begin_step()
    for _ in range(2000):
        ring.see(65, 66, b"A1")
    assert {run.time for run in runs_of(ring)} == {101}


def test_a_piece_larger_than_the_ring_leaves_nothing_and_does_no_harm() -> None:
    ring = Ring(SMALLEST)
    ring.see(65, 66, b"A1")
    ring.see(65, 66, b"A." * SMALLEST)
    assert runs_of(ring) == []
    ring.see(65, 66, b"A2")
    assert [run.data for run in runs_of(ring)] == [b"2"]


@pytest.mark.parametrize("size", [2, 64, 2000, 65_536])
def test_memory_stays_below_what_was_allowed(size: int) -> None:
    limit = 1 << 20
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        ring = Ring(limit)
        for number in range(3 * limit // (size + 100)):
            ring.begin_step()
            ring.see(65, 66, bytearray(size) if size > 2 else b"A%c" % (number % 256))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Each piece with a step of its own: the times, which count as much as pieces, take a third of that.
    assert limit / 4 < taken < limit + 80_000, sys.version


@pytest.mark.parametrize("limit", [-1, 0, SMALLEST - 1, LARGEST + 1])
def test_a_size_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"a flight recorder has {SMALLEST} to {LARGEST} bytes, or 0 for none"):
        Ring(limit)


def test_a_frame_that_comes_alone_costs_no_call_of_a_python_function() -> None:
    """A call would be a good part of the 5 % that a flight recorder may cost."""
    ring = Ring(SMALLEST)
    called: list[str] = []
    sys.setprofile(lambda frame, event, argument: called.append(event))
    ring.see_one((66, b"A1"))
    sys.setprofile(None)
    assert "call" not in called
    assert [run.data for run in runs_of(ring)] == [b"1"]
