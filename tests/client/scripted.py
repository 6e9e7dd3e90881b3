"""A relay of which the test writes every byte, over memory streams."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from triorelay.client import open_client
from triorelay.protocol import EventCode, encode_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from triorelay.client import Client

    MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
    Step = Callable[["Script"], Awaitable[object]]


def event(code: int, argument: int = 0) -> bytes:
    """Return an event as it is on the wire."""
    return encode_event(code, argument)


class Script:
    """The relay's end of one connection."""

    def __init__(self, stream: MemoryStream, of_client: MemoryStream) -> None:
        self.stream = stream
        self._of_client = of_client
        self._buffer = bytearray()

    async def read(self, count: int) -> bytes:
        """Return the next `count` bytes that the client sent."""
        while len(self._buffer) < count:
            chunk = await self.stream.receive_some()
            assert chunk, f"the client sent only {bytes(self._buffer)!r}"
            self._buffer += chunk
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def say(self, *parts: bytes) -> None:
        """Send these bytes, and wait until the client has made of them what it can."""
        await self.stream.send_all(b"".join(parts))
        await trio.testing.wait_all_tasks_blocked()

    async def welcome(self, id: bytes = b"A", *, hello: bytes = b"A\x82", present: bytes = b"") -> None:
        """Read the hello, and answer with the welcome and the list of clients."""
        assert await self.read(len(hello)) == hello
        joined = [event(EventCode.JOINED, other) for other in id + present if other]
        await self.say(id, b"\0", *joined, event(EventCode.SYNCED))

    async def answer_flush(self) -> bytes:
        """Read up to a FLUSH and answer it; return what came before."""
        before = b""
        while not before.endswith(b"\0\x08\0"):
            before += await self.read(1)
        await self.say(event(EventCode.FLUSHED, (await self.read(1))[0]))
        return before[:-3]

    async def goodbye(self) -> bytes:
        """Answer the FLUSH of a client that leaves, read to its end of file, and close; return what came before."""
        sent = await self.answer_flush()
        assert await self.stream.receive_some() == b""
        await self.stream.aclose()
        return sent

    async def hang_up(self) -> None:
        """Close the connection, and wait until the client has noticed."""
        await self.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

    def take_no_more(self) -> Callable[[], None]:
        """Make the client's writes block; return what makes them continue."""
        sending, resumed = self._of_client.send_stream, trio.Event()
        pass_on = sending.send_all_hook
        assert pass_on is not None

        async def wait() -> None:
            await pass_on()
            await resumed.wait()

        sending.send_all_hook = wait
        return resumed.set


class ScriptedRelay:
    """Hands each connection that a client makes to the test.

    Args:
        nursery: where the relay's side runs.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._connected, self._to_accept = trio.open_memory_channel[Script](100)
        self.refusing = False
        self.latest: Script | None = None

    async def connect(self) -> MemoryStream:
        """What a client is given in place of an address."""
        await trio.lowlevel.checkpoint()
        if self.refusing:
            raise ConnectionRefusedError("no relay listens")
        ours, theirs = trio.testing.memory_stream_pair()
        self._connected.send_nowait(Script(ours, theirs))
        return theirs

    async def accept(self) -> Script:
        """Wait for the next connection."""
        self.latest = await self._to_accept.receive()
        return self.latest

    async def welcome(self, present: bytes = b"") -> Script:
        """Wait for the client A, and welcome it."""
        script = await self.accept()
        await script.welcome(present=present)
        return script

    def serve(self, *steps: Step) -> None:
        """Take the next connection and do `steps` with it, in a task of its own; hang up at the end."""

        async def run() -> None:
            script = await self.accept()
            for step in steps:
                await step(script)
            await script.stream.aclose()

        self._nursery.start_soon(run)

    @asynccontextmanager
    async def client(
        self, present: bytes = b"", *, goodbye: bool = True, **options: object
    ) -> AsyncIterator[tuple[Client, Script]]:
        """Open the client A where `present` are there already.

        Args:
            present: ids that are there.
            goodbye: whether to answer the client when it leaves, on its latest connection; else the test has done so,
                or hung up.
            options: for `open_client`.
        """
        self._nursery.start_soon(self.welcome, present)
        async with open_client(self.connect, "A", **options) as client:  # type: ignore[arg-type]
            await trio.testing.wait_all_tasks_blocked()
            assert self.latest is not None
            try:
                yield client, self.latest
            finally:
                if goodbye:
                    self._nursery.start_soon(self.latest.goodbye)
