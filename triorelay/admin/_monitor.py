"""`/monitor`, `/record` and `/flight`: the frames themselves, as they are routed, as JSON lines for people and as runs
for programs.

1. While there is no viewer, the router's tap is None, which costs it one test a piece.
2. Each viewer gets a copy of the frames that it asked for, in a queue of limited bytes. Frames that do not fit are only
   counted: routing never waits, and a viewer that is too slow loses frames and gets their number.
3. Hex, JSON and the heads of runs are made in the viewer's own task, in its turn.
"""

import time
from collections import deque
from http import HTTPStatus
from itertools import islice

import trio

from ..recording import Ring, pack_lost, pack_run, runs_in
from ..relay import Relay
from ._messages import HttpError, Send, Stream, to_json
from ._pace import Pace

QUEUE_BYTES = 65536
"""Data bytes that wait for one viewer."""
RECORD_BYTES = 1 << 20
"""Data bytes that wait for a program that records: it wants all, and may wait for its disk."""
LINE_COST = 64
"""Bytes that a line counts besides its data, so that many small ones are bounded too."""
LINES_A_TURN = 64
RUNS_A_TURN = 1024
"""A turn of about 300 µs. A run takes a twentieth of the work of a line."""

RUNS = "application/vnd.triorelay.runs"

_Look = tuple[int, int, int, bytes, int]
"""Frames of one piece: time, source, destination, data bytes, and how many were skipped before. No class of its own:
making an instance costs more than relaying the frame."""


class _Viewer:
    """A program that looks at the frames that go from `source` to `destination`; None means all."""

    ROOM = QUEUE_BYTES
    A_TURN = LINES_A_TURN

    def __init__(self, source: int | None, destination: int | None) -> None:
        self._source = source
        self._destination = destination
        self._narrow = source is not None or destination is not None
        self._looks: deque[_Look] = deque()
        self._room = self.ROOM
        self._skipped = 0
        self._news = trio.Event()
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether it was ended, and everything that it saw was taken."""
        return self._ended and not self._looks and not self._skipped

    def end(self) -> None:
        """Let `wait` return, now and from now on; the caller removes the tap."""
        self._ended = True
        self._news.set()

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
        self._looks.append((time.time_ns(), source, destination, data, self._skipped))
        self._room -= shown + LINE_COST
        self._skipped = count - shown
        self._news.set()

    def begin(self) -> bytes:
        """Return what is sent at once, when the viewer is sure to see what comes from now on."""
        return b""

    async def wait(self) -> None:
        await self._news.wait()

    def take(self) -> bytes:
        """Return some of what was seen, and make room for as much."""
        shown: list[bytes] = []
        while self._looks and len(shown) < self.A_TURN:
            look = self._looks.popleft()
            self._room += len(look[3]) + LINE_COST
            shown.append(self._show(look))
        if not self._looks:
            if not self._ended:
                self._news = trio.Event()
            if self._skipped:
                shown.append(self._show_skipped(self._skipped))
                self._skipped = 0
        return b"".join(shown)

    def _show(self, look: _Look) -> bytes:
        when, source, destination, data, skipped = look
        facts: dict[str, object] = {
            "time": _seconds(when),
            "source": source,
            "destination": destination,
            "data": data.hex(),
        }
        return to_json(facts | {"skipped": skipped} if skipped else facts) + b"\n"

    def _show_skipped(self, count: int) -> bytes:
        return to_json({"time": _seconds(time.time_ns()), "skipped": count}) + b"\n"


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e9, 6)


class _Recorder(_Viewer):
    """A program that records: it gets runs."""

    ROOM = RECORD_BYTES
    A_TURN = RUNS_A_TURN

    def begin(self) -> bytes:
        return self._show_skipped(0)

    def _show(self, look: _Look) -> bytes:
        when, source, destination, data, skipped = look
        run = pack_run(when, source, destination, data)
        return pack_lost(when, skipped) + run if skipped else run

    def _show_skipped(self, count: int) -> bytes:
        return pack_lost(time.time_ns(), count)


class Monitor:
    """What the endpoint shows of the frames of one relay."""

    def __init__(self, relay: Relay, pace: Pace, ring: Ring | None = None) -> None:
        self._router = relay.router
        self._pace = pace
        self._ring = ring

    def stream(self, source: int | None, destination: int | None) -> Stream:
        """Return the reply to one viewer of the frames from `source` to `destination`: a line of JSON a piece."""
        return self._stream(_Viewer(source, destination), "application/jsonl")

    def record(self, source: int | None, destination: int | None) -> Stream:
        """Return the same as runs, in the bytes of `triorelay.recording`."""
        return self._stream(_Recorder(source, destination), RUNS)

    def last(self, source: int | None, destination: int | None) -> Stream:
        """Return the contents of the flight recorder, as runs."""
        if self._ring is None:
            raise HttpError(HTTPStatus.NOT_FOUND, "this relay has no flight recorder: serve --flight-recorder BYTES")
        runs = runs_in(self._ring.snapshot())

        async def show(send: Send) -> None:
            while True:
                async with self._pace.turn():
                    some = list(islice(runs, RUNS_A_TURN))
                    packed = b"".join(
                        pack_run(*run)
                        for run in some
                        if source in (None, run.source) and destination in (None, run.destination)
                    )
                await send(packed)
                if len(some) < RUNS_A_TURN:
                    return

        return Stream(show, RUNS)

    def _stream(self, viewer: _Viewer, type: str) -> Stream:
        def end() -> None:
            self._router.remove_tap(viewer.see)
            viewer.end()

        async def show(send: Send) -> None:
            self._router.add_tap(viewer.see)
            try:
                await send(viewer.begin())
                while not viewer.finished:
                    await viewer.wait()
                    async with self._pace.turn():
                        shown = viewer.take()
                    await send(shown)
            finally:
                self._router.remove_tap(viewer.see)

        return Stream(show, type, end)
