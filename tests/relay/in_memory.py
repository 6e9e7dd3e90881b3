"""A relay in memory and clients that speak bytes, for tests with a clock that jumps; its ledger is checked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from triorelay import testing
from triorelay.protocol import HelloOption, encode_hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triorelay.relay import Config, Relay
    from triorelay.testing._memory import MemoryStream

PATIENCE = 1000.0
"""Seconds of a clock that jumps until a test gives up."""


@dataclass(eq=False)
class Client:
    """One end of a connection in memory."""

    stream: MemoryStream

    async def send(self, *pieces: bytes) -> None:
        await self.stream.send_all(b"".join(pieces))

    async def receive(self, size: int) -> bytes:
        received = b""
        with trio.fail_after(PATIENCE):
            while len(received) < size:
                more = await self.stream.receive_some(size - len(received))
                assert more, f"end of file after {received!r}, {size} bytes expected"
                received += more
        return received

    async def expect(self, *pieces: bytes) -> None:
        """Receive exactly these bytes."""
        expected = b"".join(pieces)
        assert await self.receive(len(expected)) == expected

    async def read_to_end(self) -> bytes:
        received = b""
        with trio.fail_after(PATIENCE):
            while more := await self.stream.receive_some():
                received += more
        return received

    async def settle(self, id: bytes) -> None:
        """Wait until what was sent before is routed, by a frame to itself."""
        await self.send(id, b"?")
        await self.expect(id, b"?")


@dataclass(eq=False)
class World:
    """A running relay in memory, and ways to come in."""

    memory: testing.MemoryRelay
    clients: list[Client] = field(default_factory=list)

    @property
    def relay(self) -> Relay:
        return self.memory.relay

    def bound(self, id: bytes) -> Client:
        """Connect as a client that has bound a path."""
        return self.came(self.memory.connect(id))

    async def claim(self, id: bytes, options: HelloOption = HelloOption.ACK) -> Client:
        """Connect, say hello, and read the welcome; with EVENTS the list of those present too."""
        client = self.came(self.memory.connect())
        await client.send(encode_hello(id[0], options))
        await client.expect(id, b"\0")
        if options & HelloOption.EVENTS:
            while await client.receive(4) != b"\0\x07\0\0":
                pass
        return client

    def came(self, stream: MemoryStream) -> Client:
        """Return the client at the end of `stream`, which is closed at the end."""
        self.clients.append(Client(stream))
        return self.clients[-1]

    def dropped(self) -> dict[str, int]:
        """Return the frames that were dropped, by reason."""
        summary = self.relay.ledger.summary(0)["dropped"]
        assert isinstance(summary, dict)
        return summary


def assert_balance(relay: Relay) -> None:
    """Fail where a frame is neither written nor queued nor dropped, or both."""
    ledger = relay.ledger
    accounted = ledger.written + relay.exchange.queued_frames() + sum(ledger.dropped.values())
    assert sum(ledger.accepted) == accounted


@asynccontextmanager
async def running(config: Config | None = None, *, capacity: int = 65536) -> AsyncIterator[World]:
    """Run a relay in memory for the length of the block, drain it, and check that nothing is left in it."""
    async with testing.open_relay(config, capacity=capacity) as memory:
        world = World(memory)
        yield world
        assert_balance(memory.relay)
        for client in world.clients:
            client.stream.close()
    relay = memory.relay
    assert_balance(relay)
    assert relay.exchange.queued_frames() == 0
    assert not relay.exchange.sessions
    assert not len(relay.exchange.registry)
