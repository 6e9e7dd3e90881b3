"""The admin endpoint's share of the one thread that the relay runs in.

It does all work for requests in turns:

1. One turn runs at a time, first come first served, without a checkpoint: so the relay waits for one turn at most.
2. After a turn of t seconds no turn begins for `REST` times t. So even a thousand requests at once, or one client that
   keeps asking, take a tenth of the time and leave nine tenths to the frames.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

REST = 9


class Pace:
    """Gives turns."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._next = -float("inf")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; the block is the turn. Cancelled means that there was none."""
        async with self._lock:
            await trio.sleep_until(self._next)
            began = time.perf_counter()
            try:
                yield
            finally:
                self._next = trio.current_time() + REST * (time.perf_counter() - began)
