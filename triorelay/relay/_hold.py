"""Frames that wait for an id that no client holds (`--hold-frames`, `--hold-time`). Off by default.

1. At most `frames` wait for each id, each for `seconds`; the oldest are dropped first. A session that claims the id
   gets them before anything else. What was queued for a session that left never returns here.
2. They wait in an outbox that is sealed. It stays when its frames have gone, so that sessions can keep places in it.
3. A frame expires with those that came up to `_PRECISION` of `seconds` after it, so that there are few times to
   remember, and memory is what the frames need.
4. When the relay drains, no client can claim an id any more: `end` drops what is held, and then all that comes.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

import trio

from ..protocol import DropReason
from ._connection import Sink
from ._outbox import Outbox
from ._state import HeldState

_PRECISION = 0.01


class _Absent:
    """A sink that nothing is written to."""

    def __init__(self) -> None:
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = self.send_nowait

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        raise BlockingIOError


class Hold:
    """The frames held for absent ids.

    Attributes:
        frames: how many it holds for an id at most.
        queues: what waits for each id that frames have waited for.
    """

    def __init__(self, frames: int, seconds: float, open_outbox: Callable[[int, Sink], Outbox]) -> None:
        """Hold `frames` for an id at most (0: none), each for `seconds` (0: without end)."""
        self.frames = frames
        self.queues: dict[int, Outbox] = {}
        self._seconds = seconds or math.inf
        self._precision = seconds * _PRECISION
        self._open_outbox = open_outbox
        self._expiries: dict[int, deque[tuple[float, int]]] = {}
        """(time, place): at that time the frames before `place` expire."""
        self._first = trio.Event()
        self._ended: DropReason | None = None

    def _queue(self, id: int) -> Outbox:
        if id not in self.queues:
            queue = self.queues[id] = self._open_outbox(id, _Absent())
            self._expiries[id] = deque()
            queue.seal()
            if self._ended is not None:
                queue.discard(self._ended)
        return self.queues[id]

    def put(self, destination: int, frames: bytes | bytearray) -> Outbox:
        """Hold whole `frames` as `destination` would get them, and return their queue; over the bound it drops some."""
        queue = self._queue(destination)
        queue.put(frames)
        expiry = trio.current_time() + self._seconds
        expiries = self._expiries[destination]
        if expiries and expiries[-1][0] >= expiry:
            expiry, _ = expiries.pop()
        else:
            expiry += self._precision
        expiries.append((expiry, queue.put_bytes))
        self._keep_bound(queue)
        return queue

    def _keep_bound(self, queue: Outbox) -> None:
        """Drop what is too much in `queue`; the rest has times to expire at."""
        queue.drop_before(queue.put_bytes - 2 * self.frames, DropReason.HOLD_EXPIRED)
        self._first.set()

    def capture(self) -> list[HeldState]:
        """Describe what is held."""
        now = trio.current_time()
        return [
            HeldState(
                id=id,
                frames=queue.capture({}).frames,
                expiries=[
                    (None if expiry == math.inf else expiry - now, place - queue.taken_bytes)
                    for expiry, place in self._expiries[id]
                    if place > queue.taken_bytes
                ],
            )
            for id, queue in self.queues.items()
            if queue.queued_bytes
        ]

    def restore(self, states: Iterable[HeldState]) -> None:
        """Continue from `states`; what exceeds the bound of this relay is dropped, the oldest first."""
        now = trio.current_time()
        for state in states:
            queue = self._queue(state.id)
            queue.put(state.frames)
            self._expiries[state.id].extend(
                (math.inf if left is None else now + left, end) for left, end in state.expiries
            )
            self._keep_bound(queue)

    def end(self, reason: DropReason) -> None:
        """Drop everything that is held, and from now on everything that is put here, as `reason`. Idempotent."""
        self._ended = self._ended or reason
        for queue in self.queues.values():
            queue.discard(self._ended)

    async def expire_forever(self) -> None:
        """Drop what has waited long enough, until cancelled."""
        while True:
            await self._first.wait()
            now = trio.current_time()
            for id, expiries in self._expiries.items():
                while expiries and expiries[0][0] <= now:
                    self.queues[id].drop_before(expiries.popleft()[1], DropReason.HOLD_EXPIRED)
            next_expiry = min((expiries[0][0] for expiries in self._expiries.values() if expiries), default=math.inf)
            if next_expiry == math.inf:
                self._first = trio.Event()
            else:
                await trio.sleep_until(next_expiry)
