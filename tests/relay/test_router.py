"""From a chunk to the queues of those whom it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.relay.in_memory import running
from triorelay.relay import Config

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock


@pytest.mark.parametrize("overflow", ["wait", "drop"])
async def test_a_queue_that_only_was_not_offered_yet_is_not_full(autojump_clock: Clock, overflow: str) -> None:
    async with running(Config(overflow=overflow, queue_bytes=2)) as world:  # type: ignore[arg-type]
        a, b, c = world.bound(b"A"), world.bound(b"B"), world.bound(b"C")
        for client, id in ((a, b"A"), (b, b"B"), (c, b"C")):
            await client.settle(id)
        senders = [world.relay.exchange.registry.holder(id) for id in b"AC"]
        with world.relay.exchange.round.step():
            for sender in senders:
                assert sender is not None
                world.relay.router.feed(sender, b"B1B2")
                assert not sender.blocked
        await b.expect(b"A1A2C1C2")
        assert world.dropped() == {}


async def test_what_is_left_over_at_the_end_is_counted(autojump_clock: Clock) -> None:
    async with running() as world:
        a = world.bound(b"A")
        await a.settle(b"A")
        session = world.relay.exchange.registry.holder(65)
        assert session is not None
        await a.send(b"Z1Z2Z")
        await a.stream.send_eof()
        await session.freed.wait()
        assert world.relay.ledger.partial == 1
        assert world.dropped() == {"no_route": 2}
