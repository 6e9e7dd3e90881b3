"""Frames that wait for an id that no client holds (`--hold-frames`, `--hold-time`). Off by default.

1. At most `frames` wait for each id, each for `seconds`; the oldest are dropped first. A session that claims the id
   gets them before anything else. What was queued for a session that left never returns here.
2. What waits for one id is one run of bytes. A frame expires with those that came up to `_PRECISION` of `seconds`
   after it, so that there are few times to remember, and memory is what the frames need.
3. A place is a count of frames ever held for that id, so it stays valid while frames before it expire.
4. When the relay drains, no client can claim an id any more: `end` drops what is held, and then all that comes.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

import trio

from ..protocol import DropReason, source_counts
from ._marks import Marker
from ._outbox import Outbox
from ._state import HeldState

_PRECISION = 0.01


class _Held:
    """What waits for one id."""

    def __init__(self) -> None:
        self.frames = bytearray()
        self.gone = 0
        self.expiries: deque[tuple[float, int]] = deque()
        """(time, end): at that time the frames before `end` expire."""
        self.last: dict[int, int] = {}
        """The end of the last frame of each source, counted in frames ever held."""
        self.marks: list[tuple[int, Marker]] = []
        """(end, marker): the marker waits for the frames before `end`."""

    def __len__(self) -> int:
        return len(self.frames) >> 1

    def add(self, frames: bytes | bytearray, expiry: float, latest: float) -> None:
        self.frames += frames
        self.last[frames[-2]] = self.gone + len(self)
        if self.expiries and self.expiries[-1][0] >= expiry:
            expiry, _ = self.expiries.pop()
        else:
            expiry = latest
        self.expiries.append((expiry, self.gone + len(self)))

    def take(self, count: int) -> tuple[bytes, list[Marker]]:
        """Remove the oldest `count` frames; return them and the markers that waited for them."""
        taken = bytes(self.frames[: 2 * count])
        del self.frames[: 2 * count]
        self.gone += count
        while self.expiries and self.expiries[0][1] <= self.gone:
            self.expiries.popleft()
        reached = [marker for end, marker in self.marks if end <= self.gone]
        self.marks = [mark for mark in self.marks if mark[0] > self.gone]
        return taken, reached

    def expired(self, now: float) -> int:
        """Return how many frames have waited long enough."""
        return max((end - self.gone for expiry, end in self.expiries if expiry <= now), default=0)


class Hold:
    """The frames held for absent ids."""

    def __init__(self, frames: int, seconds: float, drop: Callable[[int, int, DropReason, int], None]) -> None:
        """Hold `frames` for an id at most (0: none), each for `seconds` (0: without end); `drop` counts the rest."""
        self.frames = frames
        self._seconds = seconds or math.inf
        self._precision = seconds * _PRECISION
        self._drop = drop
        self._held: dict[int, _Held] = {}
        self._first = trio.Event()
        self._ended: DropReason | None = None

    def put(self, destination: int, frames: bytes | bytearray) -> None:
        """Hold whole `frames` of one source, as `destination` would get them; over the bound the oldest are dropped."""
        if self._ended is not None:
            self._count(destination, frames, self._ended)
            return
        held = self._held.setdefault(destination, _Held())
        expiry = trio.current_time() + self._seconds
        held.add(frames, expiry, expiry + self._precision)
        self._expire(destination, len(held) - self.frames)
        self._first.set()

    def hand_over(self, outbox: Outbox) -> None:
        """Put frames that were held for the id of `outbox` into it, with the marks that wait for them."""
        held = self._held.pop(outbox.id, None)
        if held is None:
            return
        outbox.put(bytes(held.frames))
        end = held.gone + len(held)
        for place, marker in held.marks:
            if not outbox.mark(outbox.put_bytes - 2 * (end - place), marker):
                marker.reached()

    def mark_last_of(self, source: int, marker: Marker) -> int:
        """Tell `marker` when the last frame of `source` held for each id is written or dropped; return for how many."""
        count = 0
        for held in self._held.values():
            last = held.last.get(source, 0)
            if last > held.gone:
                held.marks.append((last, marker))
                count += 1
        return count

    def capture(self) -> list[HeldState]:
        """Describe what is held."""
        now = trio.current_time()
        return [
            HeldState(
                id=id,
                frames=bytes(held.frames),
                expiries=[
                    (None if expiry == math.inf else expiry - now, end - held.gone) for expiry, end in held.expiries
                ],
            )
            for id, held in self._held.items()
        ]

    def restore(self, states: Iterable[HeldState]) -> None:
        """Continue from `states`; what exceeds the bound of this relay is dropped, the oldest first."""
        now = trio.current_time()
        for state in states:
            held = self._held[state.id] = _Held()
            held.frames += state.frames
            sources = state.frames[0::2]
            held.last = {source: sources.rfind(source) + 1 for source in set(sources)}
            held.expiries.extend((math.inf if left is None else now + left, end) for left, end in state.expiries)
            self._expire(state.id, len(held) - self.frames)
            self._first.set()

    def queued_frames(self) -> int:
        return sum(map(len, self._held.values()))

    def _expire(self, destination: int, count: int, reason: DropReason = DropReason.HOLD_EXPIRED) -> None:
        if count <= 0:
            return
        held = self._held[destination]
        frames, reached = held.take(count)
        if not held:
            del self._held[destination]
        self._count(destination, frames, reason)
        for marker in reached:
            marker.reached()

    def _count(self, destination: int, frames: bytes | bytearray, reason: DropReason) -> None:
        for source, count in source_counts(frames[0::2]):
            self._drop(source, destination, reason, count)

    def end(self, reason: DropReason) -> None:
        """Drop everything that is held, and from now on everything that is put here, as `reason`. Idempotent."""
        self._ended = self._ended or reason
        for destination, held in list(self._held.items()):
            self._expire(destination, len(held), reason)

    async def expire_forever(self) -> None:
        """Drop what has waited long enough, until cancelled."""
        while True:
            await self._first.wait()
            now = trio.current_time()
            for destination, held in list(self._held.items()):
                self._expire(destination, held.expired(now))
            next_expiry = min((held.expiries[0][0] for held in self._held.values()), default=math.inf)
            if next_expiry == math.inf:
                self._first = trio.Event()
            else:
                await trio.sleep_until(next_expiry)
