"""Frames that wait for an id that no client holds."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import trio

from tests.relay.in_memory import running
from triorelay.protocol import DropReason, HelloOption
from triorelay.relay import Config, Outbox, Round
from triorelay.relay._hold import Hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from triorelay.relay._connection import Sink

NO_ROUTE, FLUSH, FLUSHED = 3, 8, 8


class Mark:
    """Notes how often it was reached."""

    def __init__(self) -> None:
        self.times = 0

    def reached(self) -> None:
        self.times += 1


def mark_last(queue: Outbox, source: int, mark: Mark) -> None:
    """Mark the place after the last frame of `source`."""
    queue.mark(queue.last_places((source,)).get(source, 0), mark.reached)


Drops = list[tuple[int, int, DropReason, int]]


class Desk:
    """Frames held for absent ids, and what becomes of them."""

    def __init__(self, frames: int, seconds: float) -> None:
        self.drops: Drops = []
        self.hold = Hold(frames, seconds, self.open_outbox)

    def open_outbox(self, id: int, sink: Sink) -> Outbox:
        return Outbox(
            id,
            sink,
            limit=1 << 16,
            written=[],
            dropped_sent=set(),
            drop=lambda *drop: self.drops.append(drop),
            round=Round(),
        )

    def claimed(self, id: int, *, broken: bool = False) -> Outbox:
        """Hand over what is held for `id` to an outbox that has 100 bytes already, or is broken."""
        outbox = self.open_outbox(id, Taking())
        outbox.seal()
        outbox.put(b"\0\1" * 50)
        if broken:
            outbox.discard(DropReason.PEER_GONE)
        self.hold.queues[id].move_to(outbox)
        return outbox

    def claim(self, id: int) -> bytes:
        """Hand over what is held for `id`; return the frames."""
        return self.claimed(id).capture({}).frames[100:]

    @property
    def queued(self) -> int:
        return sum(queue.queued_frames() for queue in self.hold.queues.values())


class Taking:
    """A connection that takes everything."""

    def __init__(self) -> None:
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = self.send_nowait

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


async def test_the_next_holder_of_the_id_gets_the_frames_in_order_and_once() -> None:
    desk = Desk(3, 10)
    desk.hold.put(66, b"A1A2")
    desk.hold.put(66, b"C3")
    assert desk.queued == 3
    assert desk.claim(66) == b"A1A2C3"
    assert desk.claim(66) == b""
    assert (desk.queued, desk.drops) == (0, [])


async def test_the_oldest_frames_are_dropped_and_each_id_has_its_own_room() -> None:
    desk = Desk(2, 10)
    desk.hold.put(66, b"A1C2A3")
    desk.hold.put(67, b"A4")
    desk.hold.put(66, b"A5")
    assert desk.claim(66) == b"A3A5"
    assert desk.claim(67) == b"A4"
    assert desk.drops == [(65, 66, DropReason.HOLD_EXPIRED, 1), (67, 66, DropReason.HOLD_EXPIRED, 1)]


async def test_frames_expire_when_their_time_is_over_and_not_before(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk(100, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.hold.expire_forever)
        desk.hold.put(66, b"A1")
        await trio.sleep(5)
        desk.hold.put(66, b"A2")
        await trio.sleep(4.9)
        assert desk.queued == 2
        await trio.sleep(0.3)
        assert desk.queued == 1
        await trio.sleep(4.7)
        assert desk.queued == 1
        await trio.sleep(0.3)
        assert desk.queued == 0
        desk.hold.put(66, b"A3")
        await trio.sleep(10.2)
        assert sum(count for *_, count in desk.drops) == 3
        nursery.cancel_scope.cancel()


async def test_without_a_time_nothing_expires(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk(100, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.hold.expire_forever)
        desk.hold.put(66, b"A1")
        await trio.sleep(80_000)
        nursery.cancel_scope.cancel()
    assert (desk.claim(66), desk.drops) == (b"A1", [])


async def test_a_mark_is_reached_with_the_last_frame_of_its_source() -> None:
    desk = Desk(2, 10)
    mark, other = Mark(), Mark()
    queue = desk.hold.put(66, b"A1A2")
    mark_last(queue, 65, mark)
    mark_last(queue, 67, other)
    assert (mark.times, other.times) == (0, 1)
    assert desk.hold.put(66, b"C3") is queue
    assert mark.times == 0
    desk.hold.put(66, b"C4")
    assert (mark.times, other.times) == (1, 1)


async def test_a_mark_goes_with_the_frames_into_the_queue_or_is_reached_where_they_did_not_get_there() -> None:
    for broken in (False, True):
        desk = Desk(2, 10)
        mark = Mark()
        mark_last(desk.hold.put(66, b"A1"), 65, mark)
        desk.hold.put(66, b"C2")
        outbox = desk.claimed(66, broken=broken)
        assert mark.times == broken
        outbox.drop_before(101, DropReason.DENIED)
        assert mark.times == broken
        outbox.drop_before(102, DropReason.DENIED)
        assert mark.times == 1


async def test_a_mark_of_frames_that_left_says_nothing_about_later_ones() -> None:
    desk = Desk(2, 10)
    early, late = Mark(), Mark()
    mark_last(desk.hold.put(66, b"A1"), 65, early)
    outbox = desk.claimed(66)
    mark_last(desk.hold.put(66, b"A2"), 65, late)
    assert (early.times, late.times) == (0, 0)
    outbox.discard(DropReason.PEER_GONE)
    assert (early.times, late.times) == (1, 0)
    desk.hold.end(DropReason.DRAINING)
    assert (early.times, late.times) == (1, 1)


async def test_after_the_end_frames_are_counted_as_its_reason_says() -> None:
    desk = Desk(2, 10)
    desk.hold.put(66, b"A1")
    desk.hold.end(DropReason.DRAINING)
    desk.hold.end(DropReason.NO_ROUTE)
    desk.hold.put(67, b"C2C3")
    assert desk.queued == 0
    assert desk.drops == [(65, 66, DropReason.DRAINING, 1), (67, 67, DropReason.DRAINING, 2)]


async def test_held_frames_cost_about_their_own_size(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk(32768, 10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(32768):
            desk.hold.put(66, b"A1")
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
