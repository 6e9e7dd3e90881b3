"""A relay in memory and clients that speak bytes, for tests with a clock that jumps; its ledger is checked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.stream_client import StreamClient
from triorelay import testing
from triorelay.protocol import HelloOption, encode_hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triorelay.relay import Config, Relay, Session
    from triorelay.testing._memory import MemoryStream

PATIENCE = 1000.0
"""Seconds of a clock that jumps until a test gives up."""


Client = StreamClient["MemoryStream"]


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

    async def settled(self, id: bytes) -> Client:
        """Connect as a client that has bound a path, and wait until it has its id."""
        client = self.bound(id)
        await client.settle(id)
        return client

    def session(self, id: bytes) -> Session:
        """Return the session that holds `id`, alone."""
        session = self.relay.exchange.registry.holder(id[0])
        assert session is not None
        return session

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
        self.clients.append(Client(stream, PATIENCE))
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
    assert sum(ledger.accepted) + ledger.copied == accounted


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
