"""Steps and what leaves at their end: news for many subscribers are spread over passes of the run loop."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio

from triorelay.relay._ledger import Ledger
from triorelay.relay._outbox import Outbox
from triorelay.relay._round import NEWS_A_PASS, Round

if TYPE_CHECKING:
    from collections.abc import Callable

NEWS, FRAMES = b"\0\1\0N", b"C!"


class Sink:
    """A connection that takes everything, and keeps each write."""

    def __init__(self, writes: list[bytes]) -> None:
        self._writes = writes
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = self.send_nowait

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        self._writes.append(bytes(data))
        return len(data)


def outbox(round: Round, writes: list[bytes]) -> Outbox:
    counters = Ledger().written_to(66)
    return Outbox(
        66, Sink(writes), limit=1 << 16, written=counters, dropped_sent=set(), drop=lambda *_: None, round=round
    )


async def passes_until(writes: list[bytes], count: int) -> list[int]:
    """Let passes of the run loop go by until there are `count` writes; return how many there were after each."""
    seen = [len(writes)]
    with trio.fail_after(60):
        while len(writes) < count:
            await trio.lowlevel.checkpoint()
            seen.append(len(writes))
    return seen


async def test_events_for_many_subscribers_leave_a_bounded_number_in_one_pass() -> None:
    round, writes = Round(), list[bytes]()
    outboxes = [outbox(round, writes) for _ in range(10 * NEWS_A_PASS)]
    with round.step():
        for one in outboxes:
            one.put(NEWS, news=True)
    assert len(writes) == NEWS_A_PASS
    seen = await passes_until(writes, len(outboxes))
    # Two passes of the run loop may lie between two checkpoints of a task, and no more.
    assert all(after - before <= 2 * NEWS_A_PASS for before, after in itertools.pairwise(seen))


async def test_events_that_wait_leave_with_later_ones_in_one_write() -> None:
    round, writes = Round(), list[bytes]()
    outboxes = [outbox(round, writes) for _ in range(2 * NEWS_A_PASS)]
    for _ in range(3):
        with round.step():
            for one in outboxes:
                one.put(NEWS, news=True)
    # The first outboxes had their first news at once, and get the other two with the rest.
    await passes_until(writes, 3 * NEWS_A_PASS)
    assert sorted(writes) == [NEWS] * NEWS_A_PASS + [2 * NEWS] * NEWS_A_PASS + [3 * NEWS] * NEWS_A_PASS


async def test_a_frame_neither_waits_behind_events_nor_overtakes_them() -> None:
    round, writes = Round(), list[bytes]()
    outboxes = [outbox(round, []) for _ in range(NEWS_A_PASS)]
    last = outbox(round, writes)
    with round.step():
        for one in (*outboxes, last):
            one.put(NEWS, news=True)
    assert writes == []
    with round.step():
        assert not last.hand_over(FRAMES)
        last.put(FRAMES)
    assert writes == [NEWS + FRAMES]
