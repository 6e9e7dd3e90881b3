"""A client made of any of Trio's streams, and of the bytes that docs and tests agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from tests.watchdog import PATIENCE

S = TypeVar("S", bound=trio.abc.Stream)


@dataclass(eq=False)
class StreamClient(Generic[S]):
    """One end of a connection.

    Attributes:
        stream: the connection.
        patience: seconds until a test gives up on what should arrive; for a clock that jumps, more than anything takes.
    """

    stream: S
    patience: float = PATIENCE

    async def send(self, *pieces: bytes) -> None:
        await self.stream.send_all(b"".join(pieces))

    async def receive(self, size: int) -> bytes:
        """Return exactly so many bytes; fewer fail the test."""
        received = bytearray()
        with trio.fail_after(self.patience):
            while len(received) < size:
                more = await self.stream.receive_some(size - len(received))
                assert more, f"end of file after {bytes(received)!r}, {size} bytes expected"
                received += more
        return bytes(received)

    async def expect(self, *pieces: bytes) -> None:
        """Receive exactly these bytes."""
        expected = b"".join(pieces)
        assert await self.receive(len(expected)) == expected

    async def read_to_end(self) -> bytes:
        """Return everything up to the end of file."""
        received = bytearray()
        with trio.fail_after(self.patience):
            while more := await self.stream.receive_some(65536):
                received += more
        return bytes(received)

    async def settle(self, id: bytes) -> None:
        """Wait until what was sent before is routed, by a frame to itself."""
        await self.send(id, b"?")
        await self.expect(id, b"?")

    async def close(self) -> None:
        await self.stream.aclose()
