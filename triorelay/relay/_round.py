"""A step between two checkpoints, and the flushes at its end.

1. Frames that a step puts into an outbox leave at the end of that step, in one write for each outbox.
2. The pump makes one step of all clients that are ready, so that what several of them send to one destination leaves in
   one write. All other code that puts something opens a step of its own.
3. The run loop flushes frames that were put outside any step, before it waits for input again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio


class Flushable(Protocol):
    """Something to flush at the end of a step."""

    def flush(self) -> None: ...


class Round:
    """The steps of one relay.

    Attributes:
        number: counts the steps; an outbox uses it to do something only once a step.
        on_begin: called when a step begins; None for nothing.
    """

    def __init__(self) -> None:
        self.number: int = 0
        self.on_begin: Callable[[], None] | None = None
        self._due: list[Flushable] = []
        self._end_planned = False
        self._token = trio.lowlevel.current_trio_token()

    def add(self, outbox: Flushable) -> None:
        """Flush `outbox` at the end of this step; once for each time that it is added."""
        self._due.append(outbox)
        if not self._end_planned:
            self._end_planned = True
            self._token.run_sync_soon(self.end)

    def begin(self) -> None:
        """Begin a step: the caller calls `end` before its next checkpoint."""
        self._end_planned = True
        self.number += 1
        if self.on_begin is not None:
            self.on_begin()

    def end(self) -> None:
        """Flush what was added since the last end, and what those flushes add."""
        while self._due:
            due, self._due = self._due, []
            for outbox in due:
                outbox.flush()
        self._end_planned = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Make a step of the block, which must have no checkpoint."""
        self.begin()
        try:
            yield
        finally:
            self.end()
