"""What a client has still to write, and the one task that writes it.

1. Senders append frames; a single writer takes everything that has gathered and writes it at once. Many small sends so
   become one system call, and no two writes ever mix on the wire.
2. A piece is taken whole while fewer than `OUTBOX_BYTES` wait, and the next sender waits for room. Appending is one
   step without a checkpoint: a cancelled sender leaves whole frames or nothing.
3. Nothing that was taken by the writer is ever put back. When the connection breaks, what is left is dropped here and
   counted by the session as unconfirmed; it is never carried over to another connection.
"""

from typing import final

import trio

OUTBOX_BYTES = 65536
"""Bytes that may wait before a sender waits: as much as the relay reads at a time, so more gains nothing."""


@final
class Outbox:
    """Frames on their way out of one connection."""

    def __init__(self) -> None:
        self._frames = bytearray()
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._finished = False
        self.broken = False

    @property
    def has_room(self) -> bool:
        """Whether a piece may be put now."""
        return len(self._frames) < OUTBOX_BYTES and not self.broken

    def put(self, frames: bytes | bytearray) -> None:
        """Append whole frames, whatever the limit; a sender looks for room first. No-op on a broken connection."""
        if not self.broken:
            self._frames += frames
            if self._writer:
                self._writer.unpark_all()

    async def wait_room(self) -> None:
        """Wait until there is room or the connection is broken; several tasks may wait."""
        while not self.has_room and not self.broken:
            await self._senders.park()

    async def take(self) -> bytearray:
        """Wait for frames and return all of them; empty once `finish` was called and nothing is left."""
        while not self._frames and not self._finished:
            await self._writer.park()
        frames, self._frames = self._frames, bytearray()
        self._senders.unpark_all()
        return frames

    def finish(self) -> None:
        """Let the writer end after what waits now."""
        self._finished = True
        self._writer.unpark_all()

    def break_off(self) -> None:
        """The connection takes no more: drop what waits and wake every sender."""
        self.broken = True
        self._frames.clear()
        self._senders.unpark_all()
