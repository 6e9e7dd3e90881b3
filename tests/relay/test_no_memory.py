"""The system has no memory left while a chunk is routed: only the session that sent the chunk ends.

Each test lets every single allocation of a step fail, one after the other, which only CPython's own test module can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.relay.in_memory import World
from triorelay import testing
from triorelay.protocol import CloseReason, HelloOption
from triorelay.relay import Config

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock

    from triorelay.relay import Relay, Session

_testcapi = pytest.importorskip("_testcapi", reason="this Python comes without CPython's test modules")

MIXED = b"".join(bytes((id, number)) for number in range(200) for id in b"BCSZ")
LARGE = b"B!" * 20_000
OF_C = b"C1C2C3C4C5C6C7C8C9"
CHUNKS = {
    "a frame alone": b"B1",
    "for one": b"B1B2B3",
    "mixed": MIXED,
    "large": LARGE,
    "shared": b"S1S2",
    "absent": b"Z1Y2",
    "denied and half": b"B1B",
}
MOST_ALLOCATIONS = 5_000


def receive_failing(relay: Relay, session: Session, chunk: bytes, at: int) -> bool:
    """Route `chunk` as the pump does, with the allocation number `at` failing; return whether one failed."""
    session.recv_nowait = lambda size: chunk
    round, router = relay.exchange.round, relay.router
    round.begin()
    try:
        _testcapi.set_nomemory(at, at + 1)
        try:
            router.receive(session)
        finally:
            _testcapi.remove_mem_hooks()
            session.recv_nowait = session.connection.recv_nowait
    except (MemoryError, SystemError):  # the latter is what generators of this Python make of it
        session.close(CloseReason.ERROR)
        return True
    finally:
        round.end()
    return False


def missing_frames(relay: Relay) -> int:
    """Return how many frames the ledger lacks; below zero, how many it has twice."""
    ledger = relay.ledger
    accounted = ledger.written + relay.exchange.queued_frames() + sum(ledger.dropped.values())
    return sum(ledger.accepted) + ledger.copied - accounted


@pytest.mark.parametrize("queue_bytes", [2, 65536], ids=["full queues", "empty queues"])
@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
async def test_if_an_allocation_fails_only_the_sender_ends_and_only_its_chunk_is_missing(
    autojump_clock: Clock, chunk: bytes, queue_bytes: int
) -> None:
    config = Config(queue_bytes=queue_bytes)
    for at in range(MOST_ALLOCATIONS):
        async with testing.open_relay(config, capacity=8) as memory:
            world = World(memory)
            relay, registry = memory.relay, memory.relay.exchange.registry
            a, b, c = world.bound(b"A"), world.bound(b"B"), world.bound(b"C")
            for client, id in ((a, b"A"), (b, b"B"), (c, b"C")):
                await client.settle(id)
            for _ in range(2):
                await world.claim(b"S", HelloOption.SHARE | HelloOption.ACK)
            # Frames of another sender wait already.
            for frames_of_c in (b"B1B2B3B4", b"B5B6", b"B7B8"):
                await c.send(frames_of_c)
                await trio.testing.wait_all_tasks_blocked()
            session = world.session(b"A")
            failed = receive_failing(relay, session, chunk, at)
            missing = missing_frames(relay)
            assert abs(missing) <= len(chunk) if failed else missing == 0
            if failed:
                await session.freed.wait()
                assert registry.holder(65) is None
                assert abs(missing_frames(relay)) <= len(chunk)
            # What others sent comes whole and in order, and no queue counts bytes that are not there.
            receiver = world.session(b"B")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(c.send, b"B9")
                received = b""
                while not received.endswith(b"C9"):
                    received += await b.receive(2)
            frames = [received[place : place + 2] for place in range(0, len(received), 2)]
            assert b"".join(frame for frame in frames if frame[:1] == b"C") == OF_C
            await trio.testing.wait_all_tasks_blocked()
            assert receiver.outbox.queued_bytes == 0
        if not failed:
            break
    else:
        raise AssertionError(f"more than {MOST_ALLOCATIONS} allocations")
    assert at > 0
