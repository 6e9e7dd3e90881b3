"""An allowance for each of many keys, in a table of bounded size."""

from collections.abc import Hashable, Iterable

import trio

KEYS = 1024
"""Keys remembered at a time, about 200 bytes each."""


class Buckets:
    """Allows each key `burst` events at once and one more each `interval` seconds.

    The table keeps, for each key, the time at which its bucket will be full again. It forgets a key whose bucket is
    full, and with more than `KEYS` keys the one whose last event is oldest.
    """

    def __init__(self, *, interval: float, burst: int = 1) -> None:
        self._interval = interval
        self._tolerance = (burst - 1) * interval
        self._full_at: dict[Hashable, float] = {}

    def capture(self) -> list[tuple[Hashable, float]]:
        """Describe the buckets that are not full: each key, and the seconds until its bucket is."""
        now = trio.current_time()
        return [(key, full_at - now) for key, full_at in self._full_at.items() if full_at > now]

    def restore(self, buckets: Iterable[tuple[Hashable, float]]) -> None:
        """Continue from what `capture` returned."""
        now = trio.current_time()
        self._full_at.update({key: now + seconds for key, seconds in buckets})

    def wait(self, key: Hashable) -> float:
        """Return after how many seconds an event of `key` is allowed; 0 for now."""
        return max(0.0, self._full_at.get(key, 0.0) - self._tolerance - trio.current_time())

    def count(self, key: Hashable) -> None:
        """Take one event out of the bucket of `key`."""
        now = trio.current_time()
        self._full_at[key] = max(self._full_at.pop(key, now), now) + self._interval
        if len(self._full_at) > KEYS:
            self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > KEYS:
            del self._full_at[next(iter(self._full_at))]
