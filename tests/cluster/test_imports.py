"""Frames from other relays: what they wait for, how much there may be of them, and which are not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.cluster.realm import Client, Member, Realm, open_realm, until
from triorelay.relay import Config

if TYPE_CHECKING:
    from trio.testing import MockClock


async def flood(sender: Client, to: bytes) -> None:
    """Send without an end, as fast as it is taken."""
    while True:
        await sender.send((to + b"x") * 32768)


def blocked(realm: Realm, sender: Member) -> bool:
    """Return whether what this relay has under way to B is all that its credit allows."""
    return 2 * sender.relay.ledger.forwarded >= sender.cluster.config.window


async def test_joins_and_leaves_elsewhere_let_no_relay_put_more_into_a_full_queue(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(stall_timeout=0)) as realm:
        one, two = realm.members
        a, b = await one.join("A"), await two.join("B")
        await realm.agree("AB")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, a, b"B")
            await until(lambda: blocked(realm, one))
            for _ in range(10):
                c = await one.join("C")
                await realm.agree("ABC")
                c.stream.close()
                await realm.agree("AB")
            holder = two.relay.exchange.registry.holder(ord("B"))
            assert holder is not None
            assert holder.outbox.queued_bytes <= one.cluster.config.window + two.relay.config.queue_bytes + 65536
            received = await b.receive(4 << 20)  # the credit has come back, all of it
            assert received == b"Ax" * (2 << 20)
            nursery.cancel_scope.cancel()
