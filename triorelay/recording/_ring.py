"""The last frames that were routed, in a bounded number of bytes.

1. Pieces gather in a list, which becomes a block when it is long or holds many bytes. The oldest blocks make room for
   the newest, so that what a piece costs to forget is shared by all of its block.
2. Seeing a piece is on the way of every frame, so it does as little as it can. The time is noted once a step of the
   relay, which is read as the time of all that the step routed. A frame that comes alone, the common case, is immutable
   and is kept as it is: `see_one` is the list's own `append`, so that it costs no call of a Python function, which
   alone would be 3 % of relaying it. Data and source are taken apart only when the ring is read.

Measured with 64 clients in pairs, compiled: 4 % more processor time a message than without a ring (median of 12 runs,
between 0 and 10 %).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator

from ._runs import Run

ENTRY_BYTES = 136
"""What a piece takes in CPython besides its frames: a tuple of two, the head of a bytes object, a place in a list."""
SMALLEST = 1 << 16
LARGEST = 1 << 30
"""A ring of a GiB takes a minute or two to be written. What wants more is a recording."""
BLOCKS = 8
"""At least as many fill a ring: one of them may be missing of what was allowed."""
LONGEST_BLOCK = 1024

Noted = int | tuple[int, bytes]
"""A time, or a destination and frames as it receives them: the source, and a data byte, of each."""
Snapshot = list[list[Noted]]
"""What was in a ring at one moment, oldest first; `runs_in` reads it."""


class Ring:
    """The last frames of a relay.

    Attributes:
        see_one: takes destination and frame, as one tuple, of a frame that came alone.
        begin_step: takes the time of all that is seen from now on.
    """

    def __init__(self, limit: int, clock: Callable[[], int] = time.time_ns) -> None:
        """Make an empty ring.

        Args:
            limit: bytes that it may take.
            clock: gives the time in nanoseconds since 1970.

        Raises:
            ValueError: the limit is out of bounds.
        """
        if not SMALLEST <= limit <= LARGEST:
            raise ValueError(f"a flight recorder has {SMALLEST} to {LARGEST} bytes, or 0 for none, not {limit}")
        self._limit = limit
        self._block_bytes = limit // BLOCKS
        self._block_length = min(LONGEST_BLOCK, self._block_bytes // ENTRY_BYTES)
        self._newest: list[Noted] = [clock()]
        self._bytes = 0
        self._blocks: deque[tuple[int, list[Noted]]] = deque()
        self._used = 0
        self.see_one: Callable[[tuple[int, bytes]], None] = self._newest.append
        self.begin_step: Callable[[], None] = _stepping(self._newest, self._block_length, self._end_block, clock)

    def see(self, source: int, destination: int, frames: bytes | bytearray) -> None:
        """Take frames as they are routed."""
        self._newest.append((destination, bytes(frames)))
        self._bytes += len(frames)
        if self._bytes > self._block_bytes or len(self._newest) >= self._block_length:
            now = next(noted for noted in reversed(self._newest) if isinstance(noted, int))
            self._end_block()
            self._newest.append(now)

    def _end_block(self) -> None:
        # The list itself stays: `see_one` is its own.
        size = len(self._newest) * ENTRY_BYTES + self._bytes
        self._blocks.append((size, self._newest.copy()))
        self._newest.clear()
        self._bytes = 0
        self._used += size
        while self._used > self._limit - self._block_bytes:
            self._used -= self._blocks.popleft()[0]

    def snapshot(self) -> Snapshot:
        """Return what is in it now. That costs nothing of note, whatever the ring holds: blocks never change."""
        return [*(block for _, block in self._blocks), self._newest.copy()]


def _stepping(
    newest: list[Noted], length: int, end_block: Callable[[], None], clock: Callable[[], int]
) -> Callable[[], None]:
    # Local names, because each step of the relay pays for this: attributes would take half as long again.
    append = newest.append

    def begin_step() -> None:
        if len(newest) >= length:
            end_block()
        append(clock())

    return begin_step


def runs_in(snapshot: Snapshot) -> Iterator[Run]:
    """Yield the runs that a ring held, oldest first."""
    now = 0
    for block in snapshot:
        for noted in block:
            if isinstance(noted, int):
                now = noted
            else:
                destination, frames = noted
                yield Run(now, frames[0], destination, frames[1::2])
