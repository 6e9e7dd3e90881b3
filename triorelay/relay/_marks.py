"""Waiting until certain frames are written or dropped."""

from collections.abc import Callable, Iterable

from ._outbox import Outbox


class Countdown:
    """Calls `done` once the queues have reached all `places`; at once if there is none that is not reached."""

    def __init__(self, places: Iterable[tuple[Outbox, int]], done: Callable[[], None]) -> None:
        self._done = done
        # One more than there are marks, so that no mark completes it before all are set.
        self._remaining = 1
        for outbox, place in places:
            self._remaining += 1
            outbox.mark(place, self._reached)
        self._reached()

    def _reached(self) -> None:
        self._remaining -= 1
        if self._remaining == 0:
            self._done()
