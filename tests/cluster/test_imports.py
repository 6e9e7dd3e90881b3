"""Frames from other relays: what they wait for, how much there may be of them, and which are not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.cluster.realm import Client, Member, Realm, open_realm, until
from triorelay.cluster._wire import Bundle, Piece, decode, encode
from triorelay.relay import Config

if TYPE_CHECKING:
    import pytest
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


async def test_many_frames_of_one_client_travel_as_their_data_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await one.join("A"), await two.join("B")
        await realm.agree("AB")
        engine = one.cluster.uplink.engine
        assert engine is not None
        publish, pieces = engine.publish, list[Piece]()

        def look(subject: str, payload: bytes) -> None:
            message = decode(payload)
            pieces.extend(message.pieces if isinstance(message, Bundle) else ())
            publish(subject, payload)

        monkeypatch.setattr(engine, "publish", look)
        await a.send(b"B1")
        await b.expect(b"A1")
        await a.send(b"Bx" * 5000)
        assert await b.receive(10000) == b"Ax" * 5000
        first, *others = pieces
        assert (first.source, first.data) == (0, b"A1")
        assert {piece.source for piece in others} == {ord("A")}
        assert b"".join(piece.data for piece in others) == b"x" * 5000


async def test_frames_of_a_source_without_a_lease_are_fenced_alone_or_among_others(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await one.join("A")
        b = await two.join("B")
        await realm.agree("AB")
        uplink, tokens = one.cluster.uplink, one.cluster.leases.tokens
        to, token = ord("B"), two.cluster.leases.tokens[ord("B")]
        pieces = [
            Piece(to, token, 0, 0, b"A1Z2A3"),
            Piece(to, token, 6, ord("Z"), b"456"),
            Piece(to, token, 12, ord("A"), b"78"),
        ]
        sources = {ord("A"): tokens[ord("A")], ord("Z"): 1}
        two.cluster.message("", encode(Bundle(uplink.nonce, uplink.connection, sources, pieces, [])))
        await b.expect(b"A1A3A7A8")
        assert two.dropped() == {"fenced": 4}
        assert two.cluster.status().lost == 0
