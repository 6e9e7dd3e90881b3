"""Waiting until certain frames are written or dropped: marks in the queues that have them, and a count of them."""

from collections.abc import Callable, Iterable
from typing import Protocol


class Marker(Protocol):
    """Waits until a queue has reached a position."""

    def reached(self) -> None:
        """Note: every byte before the mark was written or dropped."""


def place_of(mark: tuple[int, Marker]) -> int:
    """Return the place that `mark` is at; marks are kept in this order."""
    return mark[0]


class Markable(Protocol):
    """A queue, or several, in which the last frame of a source can be marked."""

    def mark_last_of(self, source: int, marker: Marker) -> int: ...


class Countdown:
    """Calls `done` once every frame that `source` has in `queues` now is written or dropped; at once if it has none."""

    def __init__(self, source: int, queues: Iterable[Markable], done: Callable[[], None]) -> None:
        self._done = done
        # One more than there are marks, so that no mark completes it before all are set.
        self._remaining = 1
        for queue in queues:
            self._remaining += queue.mark_last_of(source, self)
        self.reached()

    def reached(self) -> None:
        """Note that a mark was reached."""
        self._remaining -= 1
        if self._remaining == 0:
            self._done()
