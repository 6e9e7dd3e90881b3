"""`/monitor`: the frames themselves, as they are routed, as JSON lines.

1. While nobody looks, the router's tap is None, which costs it one test a piece.
2. What somebody looks at is copied once for each viewer, into a queue of `QUEUE_BYTES`. What does not fit is only
   counted: routing never waits, and a viewer who is too slow loses frames and is told how many.
3. Hex and JSON are made in the viewer's own task, in its turn.
"""

import time
from collections import deque

import trio

from ..relay import Relay
from ._messages import Send, Stream, to_json
from ._pace import Pace

QUEUE_BYTES = 65536
"""Data bytes that wait for one viewer."""
LINE_COST = 64
"""What a line counts for besides its data, so that many small ones are bounded too."""
LINES_A_TURN = 64


_Look = tuple[float, int, int, bytes, int]
"""Frames of one piece: time, source, destination, data bytes, and how many were skipped before. No class of its own:
making an instance costs more than relaying the frame."""


class _Viewer:
    """Somebody who looks at the frames that go from `source` to `destination`; None means all."""

    def __init__(self, source: int | None, destination: int | None) -> None:
        self._source = source
        self._destination = destination
        self._narrow = source is not None or destination is not None
        self._looks: deque[_Look] = deque()
        self._room = QUEUE_BYTES
        self._skipped = 0
        self._news = trio.Event()

    def see(self, source: int, destination: int, frames: bytes | bytearray) -> None:
        if self._narrow and (self._source not in (None, source) or self._destination not in (None, destination)):
            return
        count = len(frames) >> 1
        room = self._room - LINE_COST
        if room <= 0:
            self._skipped += count
            return
        shown = min(count, room)
        # A copy: the piece itself may grow in its outbox.
        data = bytes(frames[1 : 2 * shown : 2])
        self._looks.append((time.time(), source, destination, data, self._skipped))
        self._room -= shown + LINE_COST
        self._skipped = count - shown
        self._news.set()

    async def wait(self) -> None:
        await self._news.wait()

    def take(self) -> bytes:
        """Return some lines, and make room for as many."""
        lines: list[bytes] = []
        while self._looks and len(lines) < LINES_A_TURN:
            look = self._looks.popleft()
            self._room += len(look[3]) + LINE_COST
            lines.append(_line(look))
        if not self._looks:
            self._news = trio.Event()
            if self._skipped:
                lines.append(to_json({"time": round(time.time(), 6), "skipped": self._skipped}))
                self._skipped = 0
        return b"".join(line + b"\n" for line in lines)


def _line(look: _Look) -> bytes:
    when, source, destination, data, skipped = look
    facts: dict[str, object] = {
        "time": round(when, 6),
        "source": source,
        "destination": destination,
        "data": data.hex(),
    }
    return to_json(facts | {"skipped": skipped} if skipped else facts)


class Monitor:
    """The taps of one relay."""

    def __init__(self, relay: Relay, pace: Pace) -> None:
        self._router = relay.router
        self._pace = pace
        self._viewers: set[_Viewer] = set()

    def stream(self, source: int | None, destination: int | None) -> Stream:
        """Return the reply to one viewer of the frames from `source` to `destination`."""

        async def show(send: Send) -> None:
            viewer = _Viewer(source, destination)
            self._viewers.add(viewer)
            self._set_tap()
            try:
                while True:
                    await viewer.wait()
                    async with self._pace.turn():
                        lines = viewer.take()
                    await send(lines)
            finally:
                self._viewers.discard(viewer)
                self._set_tap()

        return Stream(show, "application/jsonl")

    def _set_tap(self) -> None:
        # One viewer, the common case, is told without a loop: a call less for each frame.
        only = next(iter(self._viewers)).see if len(self._viewers) == 1 else self._see
        self._router.tap = only if self._viewers else None

    def _see(self, source: int, destination: int, frames: bytes | bytearray) -> None:
        for viewer in self._viewers:
            viewer.see(source, destination, frames)
