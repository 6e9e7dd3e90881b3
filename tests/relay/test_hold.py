"""Frames that wait for an id that no client holds."""

from __future__ import annotations

import tracemalloc

import trio

from tests.relay.in_memory import running
from triorelay.protocol import DropReason, HelloOption
from triorelay.relay import Config
from triorelay.relay._hold import Hold

NO_ROUTE, FLUSH, FLUSHED = 3, 8, 8


class Mark:
    """Notes how often it was reached."""

    def __init__(self) -> None:
        self.times = 0

    def reached(self) -> None:
        self.times += 1


class Queue:
    """The outbox of a client that came: what was put into it, and where it is asked to mark."""

    def __init__(self, id: int = 66, *, marks: bool = False) -> None:
        self.id = id
        self.frames = b""
        self.put_bytes = 100
        self.places: list[int] = []
        self._marks = marks

    def put(self, frames: bytes) -> None:
        self.frames += frames
        self.put_bytes += len(frames)

    def mark(self, place: int, marker: Mark) -> int:
        self.places.append(place)
        return int(self._marks)


def claim(hold: Hold, id: int, queue: Queue | None = None) -> bytes:
    """Hand over what is held for `id`; return the frames."""
    queue = queue or Queue(id)
    hold.hand_over(queue)  # type: ignore[arg-type]
    return queue.frames


Drops = list[tuple[int, int, DropReason, int]]


def make(frames: int, seconds: float) -> tuple[Hold, Drops]:
    drops: Drops = []
    return Hold(frames, seconds, lambda *drop: drops.append(drop)), drops


async def test_the_next_holder_of_the_id_gets_the_frames_in_order_and_once() -> None:
    hold, drops = make(3, 10)
    hold.put(66, b"A1A2")
    hold.put(66, b"C3")
    assert hold.queued_frames() == 3
    assert claim(hold, 66) == b"A1A2C3"
    assert claim(hold, 66) == b""
    assert (hold.queued_frames(), drops) == (0, [])


async def test_the_oldest_frames_are_dropped_and_each_id_has_its_own_room() -> None:
    hold, drops = make(2, 10)
    hold.put(66, b"A1C2A3")
    hold.put(67, b"A4")
    hold.put(66, b"A5")
    assert claim(hold, 66) == b"A3A5"
    assert claim(hold, 67) == b"A4"
    assert drops == [(65, 66, DropReason.HOLD_EXPIRED, 1), (67, 66, DropReason.HOLD_EXPIRED, 1)]


async def test_frames_expire_when_their_time_is_over_and_not_before(autojump_clock: trio.testing.MockClock) -> None:
    hold, drops = make(100, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold.expire_forever)
        hold.put(66, b"A1")
        await trio.sleep(5)
        hold.put(66, b"A2")
        await trio.sleep(4.9)
        assert hold.queued_frames() == 2
        await trio.sleep(0.3)
        assert hold.queued_frames() == 1
        await trio.sleep(4.7)
        assert hold.queued_frames() == 1
        await trio.sleep(0.3)
        assert hold.queued_frames() == 0
        hold.put(66, b"A3")
        await trio.sleep(10.2)
        assert sum(count for *_, count in drops) == 3
        nursery.cancel_scope.cancel()


async def test_without_a_time_nothing_expires(autojump_clock: trio.testing.MockClock) -> None:
    hold, drops = make(100, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold.expire_forever)
        hold.put(66, b"A1")
        await trio.sleep(80_000)
        nursery.cancel_scope.cancel()
    assert (claim(hold, 66), drops) == (b"A1", [])


async def test_a_mark_is_reached_with_the_last_frame_of_its_source() -> None:
    hold, _ = make(2, 10)
    mark, other = Mark(), Mark()
    hold.put(66, b"A1A2")
    assert hold.mark_last_of(65, mark) == 1
    assert hold.mark_last_of(67, other) == 0
    hold.put(66, b"C3")
    assert mark.times == 0
    hold.put(66, b"C4")
    assert (mark.times, other.times) == (1, 0)


async def test_a_mark_goes_with_the_frames_into_the_queue_or_is_reached_where_they_did_not_get_there() -> None:
    for marks in (True, False):
        hold, _ = make(2, 10)
        mark, queue = Mark(), Queue(marks=marks)
        hold.put(66, b"A1")
        hold.mark_last_of(65, mark)
        assert claim(hold, 66, queue) == b"A1"
        assert queue.places == [102]
        assert mark.times == (0 if marks else 1)


async def test_a_mark_of_frames_that_left_says_nothing_about_later_ones() -> None:
    hold, _ = make(2, 10)
    early, late = Mark(), Mark()
    hold.put(66, b"A1")
    hold.mark_last_of(65, early)
    claim(hold, 66)
    hold.put(66, b"A2")
    hold.mark_last_of(65, late)
    assert (early.times, late.times) == (1, 0)
    hold.end(DropReason.DRAINING)
    assert (early.times, late.times) == (1, 1)


async def test_after_the_end_frames_are_counted_as_its_reason_says() -> None:
    hold, drops = make(2, 10)
    hold.put(66, b"A1")
    hold.end(DropReason.DRAINING)
    hold.end(DropReason.NO_ROUTE)
    hold.put(67, b"C2C3")
    assert hold.queued_frames() == 0
    assert drops == [(65, 66, DropReason.DRAINING, 1), (67, 67, DropReason.DRAINING, 2)]


async def test_held_frames_cost_about_their_own_size(autojump_clock: trio.testing.MockClock) -> None:
    hold, _ = make(32768, 10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(32768):
            hold.put(66, b"A1")
            if at % 64 == 0:
                await trio.sleep(0.001)
        cost = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cost < 3 * 2 * 32768


async def test_a_flush_that_waits_for_held_frames_does_not_hold_up_the_drain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Config(hold_frames=10, hold_time=0, drain_timeout=0)) as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(b"B1", bytes((0, FLUSH, 0, 7)))
        await a.settle(b"A")
        world.relay.drain()
        with trio.fail_after(1):
            answer = await a.read_to_end()
        assert bytes((0, FLUSHED, 0, 7)) in answer
        await a.stream.send_eof()
        assert world.dropped() == {"draining": 1}
