"""The bytes that a client has still to write, and the one task that writes them.

1. Senders append data. It becomes frames when it is written, in one step for each run of data to one destination.
2. If the connection can take bytes without waiting, the sender itself writes the first data after the loop was idle.
   Later data gathers until the end of the burst (`_idle`), or until it fills a batch. So a single send waits for
   nothing, and many small ones share a system call.
3. Bytes that the kernel does not take go to the writer: a task that waits until they can be written. Until then, and on
   any other connection, senders only append. So two writes never mix on the wire.
4. Data is taken whole while fewer than `OUTBOX_BYTES` wait, and the next sender waits for room. Appending is one step
   without a checkpoint: a cancelled sender leaves whole frames or nothing.
5. A KeyboardInterrupt can come after any call. What is taken out of one place is put into the next without a call in
   between, so that nothing is lost or doubled.
6. When the connection breaks, the outbox drops its bytes, and the session counts them as unconfirmed. They never move
   to another connection.
"""

from collections.abc import Callable
from typing import final

import trio

from .._build import COMPILED
from ..protocol import address_frames, frame_sealed, stuff_sealed
from ._idle import idle

OUTBOX_BYTES = 262144
"""Bytes that are written without waiting for more, and before a sender waits: more than a socket has room for when it
reports room, some 160 KB, so that a sender is not woken for less. If 16 KiB were written at a time, messages of 1 KiB
would cost 5 to 10 % more processor time on either side."""


@final
class Outbox:
    """Frames on their way out of one connection.

    Args:
        offer: writes without waiting, and appends to a list how many bytes the kernel took, or raises OSError; None if
            the connection has no such way.
    """

    def __init__(self, offer: Callable[[bytes | bytearray, list[int]], object] | None = None) -> None:
        self._offer = offer
        self._idle = idle()
        self._frames: list[bytes | bytearray] = []
        self._destination = 0
        self._data: list[bytes] = []
        self._size = 0
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._in_burst = False
        self._for_writer = True
        self._finished = False
        self.broken: bool = False

    @property
    def has_room(self) -> bool:
        """Whether a piece may be put now."""
        return self._size < OUTBOX_BYTES and not self.broken

    def put(self, frames: bytes | bytearray) -> None:
        """Append whole frames, regardless of the limit; a sender looks for room first. No-op on a broken connection."""
        if not self.broken:
            if self._data:
                self._address()
            self._frames += [frames]
            self._appended(len(frames))

    def send(self, destination: int, data: bytes) -> None:
        """Append one frame a byte of `data`, as `put` does."""
        if not self.broken and data:
            if destination != self._destination:
                if self._data:
                    self._address()
                self._destination = destination
            self._data.append(data)
            self._appended(2 * len(data))

    def send_message(self, destination: int, sealed: bytes) -> None:
        """Append the frames of a sealed message, as `put` does."""
        if COMPILED:
            self.put(frame_sealed(destination, sealed))
        else:  # frames for a whole batch cost less than for each message
            self.send(destination, stuff_sealed(sealed))

    def _appended(self, size: int) -> None:
        self._size += size
        if self._for_writer:
            self.wake(self._writer)
        elif self._size >= OUTBOX_BYTES or not self._in_burst:
            self._offer_all()
            self._in_burst = self._in_burst or self._idle.call_until_end(self._end_burst)

    def wake(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Wake the tasks in `lot`, from wherever something is put."""
        if lot:
            self._idle.wake(lot)

    def _offer_all(self) -> None:
        assert self._offer is not None
        frames = self._collect()
        taken: list[int] = []
        try:
            self._offer(frames, taken)
        except OSError:
            pass  # the writer's attempt raises the reason
        finally:
            rest = frames[sum(taken) :]
            if rest:
                self._for_writer = True
                self._frames += [rest]
                self._size += len(rest)
                self.wake(self._writer)

    def _end_burst(self, is_end: bool) -> None:
        if self._size and not self._for_writer:
            self._offer_all()
        self._in_burst = not is_end

    def _address(self) -> None:
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        frames = address_frames(self._destination, data)
        self._frames += [frames]
        self._data = []

    def _collect(self) -> bytes | bytearray:
        if self._data:
            self._address()
        frames = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames = []
        self._size = 0
        return frames

    async def wait_room(self) -> None:
        """Wait until there is room or the connection is broken; several tasks may wait."""
        while not self.has_room and not self.broken:
            await self._senders.park()

    async def take(self) -> bytes | bytearray:
        """Wait for what the writer is to write; empty once `finish` was called and nothing is left.

        Until it is called again, its caller writes and no sender does.
        """
        if not self._size:
            self._for_writer = self._offer is None
        while not ((self._size and self._for_writer) or self._finished):
            await self._writer.park()
        self._for_writer = True
        frames = self._collect()
        self._senders.unpark_all()
        return frames

    def finish(self) -> None:
        """Let the writer end after what waits now."""
        self._finished = True
        self._writer.unpark_all()

    def break_off(self) -> None:
        """Note that the connection takes no more: drop what waits and wake every sender."""
        self.broken = True
        self._frames.clear()
        self._data.clear()
        self._size = 0
        self._senders.unpark_all()
