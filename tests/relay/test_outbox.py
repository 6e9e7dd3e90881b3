"""The queue of one destination, over a connection that takes what the test lets it take."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from triorelay.protocol import DropReason
from triorelay.relay import Outbox
from triorelay.relay._outbox import SEVERAL, SPENT
from triorelay.relay._round import Round
from triorelay.relay._state import QueueState


@dataclass(eq=False)
class Line:
    """A connection that takes `room` bytes and no more; `broken` ones fail."""

    room: int = 1 << 20
    broken: bool = False
    taken: bytearray = field(default_factory=bytearray)
    calls: int = 0

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        self.calls += 1
        if self.broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        count = min(self.room, len(data))
        self.room -= count
        self.taken += data[:count]
        return count

    @property
    def send_small(self) -> object:
        return self.send_nowait


@dataclass(eq=False)
class Paused:
    """A sender that may be paused."""

    id: int = 65
    waiting_since: float = 0.0
    wait_logged: bool = False
    placed: int = 0
    overtakes: bool = False

    def unpause(self, outbox: Outbox) -> None:
        self.placed += 1
        self.overtakes = not outbox.full or outbox.hand_over(b"Z9")


@dataclass(eq=False)
class Mark:
    log: list[str]
    name: str = "mark"

    def reached(self) -> None:
        self.log.append(self.name)


def mark_last(queue: Outbox, source: int, mark: Mark) -> None:
    """Mark the place after the last frame of `source`."""
    queue.mark(queue.last_places((source,)).get(source, 0), mark.reached)


class Desk:
    """An outbox and all that it tells."""

    def __init__(self, *, limit: int = 1 << 16, room: int = 1 << 20) -> None:
        self.line = Line(room)
        self.written: list[int] = []
        self.dropped_sent: set[int] = set()
        self.log: list[str] = []
        self.drops: list[tuple[int, DropReason, int]] = []
        self.round = Round()
        self.round.begin()  # steps end when the test says so
        self.box = Outbox(
            66,
            self.line,  # type: ignore[arg-type]
            limit=limit,
            written=self.written,
            dropped_sent=self.dropped_sent,
            drop=self._drop,
            round=self.round,
        )
        self.box.on_broken = lambda: self.log.append("broken")

    def _drop(self, source: int, destination: int, reason: DropReason, count: int) -> None:
        assert destination == 66
        self.drops.append((source, reason, count))
        self.log.append(f"drop {source}")

    def flush(self) -> None:
        self.round.end()
        self.round.begin()

    def written_from(self, source: int) -> int:
        return sum(self.written[source : source + 1])  # the list ends at the highest source that was counted

    def accounted(self) -> tuple[int, int, int]:
        """Return written, queued and dropped frames."""
        assert not self.written or self.written[-1]  # room for no source that is not counted
        return sum(self.written), self.box.queued_frames(), sum(count for *_, count in self.drops)


def flushed(frames: bytes, *, limit: int = 1 << 16, room: int = 0) -> Desk:
    """Return a desk that has offered `frames` to its connection, which took `room` bytes."""
    desk = Desk(limit=limit, room=room)
    desk.box.put(frames)
    desk.flush()
    return desk


async def test_what_is_put_leaves_in_order_and_in_one_write() -> None:
    desk = Desk()
    desk.box.put(b"A1")
    desk.box.put(bytearray(b"C2"))
    desk.box.put(b"A3A4")
    desk.flush()
    desk.box.flush()
    assert desk.line.taken == b"A1C2A3A4"
    assert desk.line.calls == 1
    assert (desk.written[65], desk.written[67], desk.box.queued_bytes) == (3, 1, 0)


@pytest.mark.parametrize("source", [SEVERAL, 65])
@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8])
async def test_frames_of_a_source_that_the_caller_knows_are_counted_as_those_of_any(source: int, piece: int) -> None:
    desk = Desk(room=piece)
    desk.dropped_sent.add(65)
    desk.box.put(b"A1A2A3A4", source)
    desk.flush()
    desk.box.put(bytearray(b"A5A6"), source)
    desk.box.put(b"C7")
    assert desk.written_from(65) == sum(desk.written) == min(piece, 8) // 2
    assert (65 in desk.dropped_sent) == (piece == 1)
    desk.line.room = piece
    desk.flush()
    while desk.box.busy:
        desk.line.room = piece
        desk.box.write_more()
        assert desk.written_from(65) + desk.written_from(67) == len(desk.line.taken) // 2
    assert desk.line.taken == b"A1A2A3A4A5A6C7"
    assert (desk.written[65], desk.written[67], desk.dropped_sent) == (6, 1, set())


async def test_a_frame_is_handed_over_once_a_pass_and_only_where_nothing_is_before_it() -> None:
    desk = Desk()
    assert desk.box.hand_over(b"A1")
    assert not desk.box.hand_over(b"A2")
    desk.round.begin()
    desk.box.put(b"C1")
    assert not desk.box.hand_over(b"A2")
    desk.flush()
    assert desk.box.hand_over(b"A2")
    assert desk.line.taken == b"A1C1A2"
    assert desk.accounted() == (3, 0, 0)


async def test_no_frame_is_handed_over_directly_while_a_sender_is_paused_or_a_write_is_in_progress() -> None:
    desk = flushed(b"A1", limit=2)
    assert desk.box.busy
    assert not desk.box.hand_over(b"C1")
    desk.box.pause(Paused(), b"A2")
    assert not desk.box.hand_over(b"C1")
    assert desk.box.full


async def test_a_frame_that_was_handed_over_by_half_counts_with_its_second_byte() -> None:
    desk = Desk(room=1)
    assert desk.box.hand_over(b"A1")
    assert desk.accounted() == (0, 1, 0)
    assert desk.box.queued_bytes == 1
    desk.box.put(b"C2")
    assert desk.box.queued_bytes == 3
    desk.line.room = 100
    assert desk.box.write_more() == 3
    assert desk.line.taken == b"A1C2"
    assert desk.accounted() == (2, 0, 0)
    assert desk.box.queued_bytes == 0
    assert not desk.box.busy


async def test_handing_over_to_a_broken_or_full_connection_leaves_the_frame_to_the_queue() -> None:
    desk = Desk(room=0)
    assert not desk.box.hand_over(b"A1")
    assert desk.box.queued_bytes == 0
    desk.round.begin()
    desk.line.broken = True
    assert not desk.box.hand_over(b"A1")
    desk.box.put(b"A1")
    desk.flush()
    assert desk.accounted() == (0, 0, 1)
    assert desk.log == ["drop 65", "broken"]


@pytest.mark.parametrize("step", range(1, 9))
async def test_a_frame_is_written_when_its_last_byte_is_taken_whatever_the_pieces(step: int) -> None:
    desk = flushed(b"A1A2C3A4")
    for taken in range(step, 8 + step, step):
        desk.line.room = step
        desk.box.write_more()
        taken = min(taken, 8)
        assert sum(desk.written) == taken // 2
        assert desk.box.queued_frames() == 4 - taken // 2
    assert (desk.written[65], desk.written[67]) == (3, 1)


async def test_in_small_pieces_one_goes_at_a_time() -> None:
    desk = flushed(b"A1" * 4)
    desk.line.room = 100
    assert desk.box.write_more(2) == 2
    assert desk.box.write_more(3) == 3
    assert desk.accounted() == (2, 2, 0)


async def test_paused_senders_are_placed_first_come_first_served_when_there_is_room() -> None:
    desk = Desk(limit=4, room=0)
    first, second = Paused(65), Paused(67)
    desk.box.put(b"X1X2")
    desk.flush()
    desk.box.pause(first, b"A1A2")
    desk.box.pause(second, b"C1")
    assert desk.box.queued_frames() == 5
    desk.line.room = 2
    desk.box.write_more()
    assert (first.placed, second.placed) == (1, 0)
    desk.line.room = 2
    desk.box.write_more()
    assert (desk.box.queued_bytes, desk.box.full, second.placed) == (4, True, 0)
    desk.line.room = 100
    desk.box.write_more()
    desk.flush()
    assert (first.placed, second.placed) == (1, 1)
    assert desk.line.taken == b"X1X2A1A2C1"
    assert desk.accounted() == (5, 0, 0)


async def test_while_one_sender_is_paused_another_one_pauses_too_whatever_room_there_is() -> None:
    desk = Desk(limit=4, room=0)
    first, second = Paused(65), Paused(67)
    desk.box.put(b"X1X2")
    desk.flush()
    desk.box.pause(first, b"")
    desk.box.pause(second, b"C1")
    desk.line.room = 100
    desk.box.write_more()
    assert (first.placed, first.overtakes) == (1, False)
    assert (second.placed, second.overtakes) == (1, True)
    assert desk.line.taken == b"X1X2"


async def test_empty_frames_wait_for_room_and_put_nothing() -> None:
    desk = Desk(limit=2, room=0)
    waiting = Paused()
    desk.box.put(b"X1")
    desk.flush()
    desk.box.pause(waiting, b"")
    desk.line.room = 100
    desk.box.write_more()
    assert (waiting.placed, desk.box.queued_bytes) == (1, 0)
    assert desk.line.taken == b"X1"


async def test_withdrawing_takes_back_ones_own_and_leaves_the_others() -> None:
    desk = Desk(limit=2, room=0)
    first, second = Paused(65), Paused(67)
    desk.box.put(b"X1")
    desk.flush()
    desk.box.pause(first, b"A1")
    desk.box.pause(second, b"C1")
    desk.box.pause(first, b"A2")
    assert desk.box.withdraw(first) == [b"A1", b"A2"]
    assert desk.box.queued_frames() == 2
    assert (first.placed, second.placed) == (0, 0)


async def test_a_sender_that_may_not_send_here_any_more_waits_no_longer() -> None:
    desk = Desk(limit=2, room=0)
    first, second = Paused(65), Paused(67)
    desk.box.put(b"X1")
    desk.flush()
    desk.box.pause(first, b"A1")
    desk.box.pause(second, b"C1")
    desk.box.pause(first, b"A2A3")
    desk.box.deny(first)
    assert desk.drops == [(65, DropReason.DENIED, 1), (65, DropReason.DENIED, 2)]
    assert (first.placed, second.placed) == (2, 0)
    assert desk.accounted() == (0, 2, 3)
    desk.box.deny(first)
    assert (first.placed, len(desk.drops)) == (2, 2)


async def test_a_mark_is_reached_with_the_last_byte_of_the_last_frame_of_its_source() -> None:
    desk = flushed(b"A1C1")
    desk.box.put(b"C2A2C3")
    mark_last(desk.box, 65, Mark(desk.log, "A"))
    mark_last(desk.box, 67, Mark(desk.log, "C"))
    assert desk.log == []
    mark_last(desk.box, 88, Mark(desk.log, "X"))
    assert desk.log == ["X"]
    desk.line.room = 7
    desk.box.write_more()
    assert desk.log == ["X"]
    desk.line.room = 1
    desk.box.write_more()
    assert desk.log == ["X", "A"]
    desk.line.room = 2
    desk.box.write_more()
    assert desk.log == ["X", "A", "C"]


async def test_a_mark_in_a_batch_that_is_half_written_counts_from_the_first_frame_that_is_not() -> None:
    desk = flushed(b"A1A2C3", room=3)
    mark_last(desk.box, 65, Mark(desk.log))
    assert desk.log == []
    desk.line.room = 1
    desk.box.write_more()
    assert desk.log == ["mark"]
    mark_last(desk.box, 65, Mark(desk.log))
    assert desk.log == ["mark", "mark"]


async def test_the_answer_to_a_hello_counts_nowhere_and_goes_first() -> None:
    desk = Desk(room=2)
    desk.box.welcome(b"B\0")
    desk.box.put(b"A1")
    desk.flush()
    assert desk.line.taken == b"B\0"
    assert desk.accounted() == (0, 1, 0)
    desk.line.room = 100
    desk.box.write_more()
    assert desk.line.taken == b"B\0A1"
    assert desk.accounted() == (1, 0, 0)


async def test_a_connection_that_breaks_at_the_answer_to_a_hello_is_broken() -> None:
    desk = Desk()
    desk.line.broken = True
    desk.box.welcome(b"B\0")
    assert (desk.box.broken, desk.log) == (True, ["broken"])


async def test_what_is_discarded_is_dropped_then_marks_are_reached_and_later_frames_dropped_too() -> None:
    desk = Desk(limit=4, room=3)
    waiting = Paused()
    desk.box.put(b"A1A2A3")
    desk.flush()
    desk.box.put(b"\0\2\0C" + b"C1")
    mark_last(desk.box, 65, Mark(desk.log))
    desk.box.pause(waiting, b"D1D2")
    desk.box.discard(DropReason.SLOW_CONSUMER)
    desk.box.discard(DropReason.DRAINING)
    assert desk.log == ["drop 65", "drop 67", "mark", "drop 68", "broken"]
    assert waiting.placed == 1
    desk.line.room = 100
    assert not desk.box.hand_over(b"A4")
    desk.box.put(b"A4\0\2")
    assert desk.accounted() == (1, 0, 6)
    assert {reason for _, reason, _ in desk.drops} == {DropReason.SLOW_CONSUMER}
    assert not desk.box.full
    assert not desk.box.busy
    state = desk.box.capture({})
    assert state == QueueState(dropped_as="slow_consumer")
    successor = Desk()
    successor.box.restore(state)
    successor.box.put(b"A5")
    assert successor.drops == [(65, DropReason.SLOW_CONSUMER, 1)]


@pytest.mark.parametrize("taken", range(6))
async def test_another_queue_continues_wherever_this_one_stops(taken: int) -> None:
    desk, successor = Desk(limit=4, room=taken), Desk(limit=4, room=0)
    desk.box.put(b"A1C2")
    desk.flush()
    desk.box.put(b"A3")
    desk.flush()
    paused = [Paused(68)]
    desk.box.pause(paused[0], b"D4")
    desk.dropped_sent.add(70)
    state = desk.box.capture({paused[0]: 0})
    successor.box.restore(state)
    mark_last(successor.box, 65, Mark(successor.log))
    assert successor.dropped_sent == {70}
    for sender, frames in state.paused:
        successor.box.pause(paused[sender], frames)
    assert successor.box.capture({paused[0]: 0}) == state
    assert successor.box.queued_bytes == desk.box.queued_bytes
    for place in range(taken + 1, 9):
        successor.line.room = 1
        successor.flush()
        successor.box.write_more()
        assert successor.log == ["mark"] * (place >= 6)
    assert desk.line.taken + successor.line.taken == b"A1C2A3D4"
    assert desk.accounted()[0] + successor.accounted()[0] == 4
    assert (paused[0].placed, successor.box.queued_bytes) == (1, 0)


async def test_a_sender_gets_a_second_dropped_event_only_after_one_of_its_frames_was_written() -> None:
    desk = Desk()
    desk.dropped_sent |= {65, 67, 68}
    desk.box.put(b"A1")
    desk.flush()
    assert desk.dropped_sent == {67, 68}
    desk.box.put(b"C1X1")
    desk.flush()
    assert desk.dropped_sent == {68}
    assert desk.box.hand_over(b"D1")
    assert desk.dropped_sent == set()


async def test_one_writer_at_a_time_is_asked_for() -> None:
    desk = Desk(room=0)
    desk.box.on_blocked = lambda: desk.log.append("blocked")
    for _ in range(3):
        desk.box.put(b"A1")
        desk.flush()
    assert desk.log == ["blocked"]
    desk.line.room = 100
    desk.box.write_more()
    desk.line.room = 0
    desk.box.put(b"A2")
    desk.flush()
    assert desk.log == ["blocked"]
    desk.line.room = 100
    desk.box.write_more()
    desk.box.has_writer = False
    desk.line.room = 0
    desk.box.put(b"A3")
    desk.flush()
    assert desk.log == ["blocked", "blocked"]


async def test_once_sealed_nothing_is_written_and_everything_waits_to_be_discarded() -> None:
    desk = flushed(b"A1A2", room=2)
    assert desk.line.calls == 1, "a connection that took less than all is not asked again"
    desk.box.seal()
    desk.line.room = 100
    assert desk.box.write_more() == 0
    assert not desk.box.hand_over(b"C1")
    desk.box.put(b"C1")
    desk.flush()
    assert desk.line.taken == b"A1"
    assert desk.accounted() == (1, 2, 0)
    desk.box.discard(DropReason.SLOW_CONSUMER)
    assert desk.accounted() == (1, 0, 2)


async def test_an_empty_queue_that_is_sealed_takes_no_frame_either() -> None:
    desk = Desk()
    desk.box.seal()
    assert not desk.box.hand_over(b"A1")
    desk.box.put(b"A1")
    desk.flush()
    desk.box.discard(DropReason.PEER_GONE)
    assert desk.line.taken == b""
    assert desk.accounted() == (0, 0, 1)


async def test_the_written_part_of_a_large_batch_is_freed() -> None:
    desk = Desk(limit=1 << 20, room=0)
    data = bytes(range(65, 75)) * 20_000
    desk.box.put(data)
    desk.flush()
    for _ in range(19):
        desk.line.room = 10_001
        desk.box.write_more()
        assert (desk.box._batch is data) == (len(desk.line.taken) < len(data) // 2)
        assert len(desk.box._batch) <= 2 * desk.box.queued_bytes + SPENT
    desk.line.room = 1 << 20
    desk.box.write_more()
    assert desk.line.taken == data
    assert desk.accounted() == (100_000, 0, 0)
