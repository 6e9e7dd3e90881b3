"""A step between two checkpoints, and the flushes at its end.

1. Frames that a step puts into an outbox leave at the end of that step, in one write for each outbox.
2. The pump makes one step of all clients that are ready, so that what several of them send to one destination leaves in
   one write. All other code that puts something opens a step of its own.
3. The run loop flushes frames that were put outside any step, before it waits for input again.
4. Each client that joins or leaves is news for every subscriber, a write for each. A step writes `NEWS_A_PASS` of them.
   The next passes of the run loop write as many each, together with what has come since. So clients that join and leave
   all the time delay no frame. A frame takes the news before it along, and leaves at the end of its step.

Measured, interpreted: one client joins and leaves in a loop beside 240 subscribers. Half of the passes took more than
2.1 ms of processor time when all news left in their step; now 0.7 ms, and the relay admits three times as many joins.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

NEWS_A_PASS = 16
"""Some 0.1 ms of work. 255 subscribers have the news after 16 passes, on an idle machine a millisecond or two."""


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
        self._later: dict[Flushable, None] = {}
        self._news_left = NEWS_A_PASS
        self._news_planned = False
        self._token = trio.lowlevel.current_trio_token()

    def add(self, outbox: Flushable) -> None:
        """Flush `outbox` at the end of this step; once for each time that it is added."""
        self._due.append(outbox)
        if not self._end_planned:
            self._end_planned = True
            self._token.run_sync_soon(self.end)

    def defers(self, outbox: Flushable) -> bool:
        """Return whether `outbox`, which has news alone, is flushed in one of the next passes, and plan that."""
        self._plan_news()
        if outbox in self._later:
            return True
        self._news_left -= 1
        if self._news_left >= 0:
            return False
        self._later[outbox] = None
        return True

    def _plan_news(self) -> None:
        if not self._news_planned:
            self._news_planned = True
            self._token.run_sync_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        self._news_planned = False
        self._news_left = NEWS_A_PASS
        while self._later and self._news_left > 0:
            self._news_left -= 1
            outbox = next(iter(self._later))
            del self._later[outbox]
            outbox.flush()
        if self._later:
            self._plan_news()

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
