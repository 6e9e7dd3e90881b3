"""From a chunk to the queues of its destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing

from tests.relay.in_memory import running
from triorelay.protocol import LARGE_CHUNK, CloseReason, DropReason, EventCode, HelloOption, encode_event
from triorelay.relay import Config
from triorelay.relay._client_task import finish_hung_up
from triorelay.relay._router import REQUESTS_A_STEP
from triorelay.relay._session import SMALL_CHUNK

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
        assert world.relay.router.pieces == 2
        await b.expect(b"A1A2C1C2")
        assert world.dropped() == {}


async def test_nothing_reads_a_session_of_which_a_chunk_is_half_routed(autojump_clock: Clock) -> None:
    async with running() as world:
        a, e = world.bound(b"A"), await world.claim(b"E", HelloOption.EVENTS)
        await a.settle(b"A")
        session = world.session(b"E")
        router = world.relay.router
        with world.relay.exchange.round.step():
            assert not router.feed(session, encode_event(EventCode.FLUSH, 1) * REQUESTS_A_STEP + b"A1A2")
            session.recv_nowait = lambda size: b"A3"
            assert not router.receive(session)
            assert session.rest == b"A1A2"
            session.recv_nowait = session.connection.recv_nowait
        session.wake()
        await a.expect(b"E1E2")
        await e.send(b"A3")
        await a.expect(b"E3")


async def test_nothing_reads_a_session_that_waits(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=2), capacity=2) as world:
        a, b = await world.settled(b"A"), await world.settled(b"B")
        session = world.session(b"B")
        await b.send(b"A1")
        await b.send(b"A2")
        await b.send(b"A3")
        await trio.testing.wait_all_tasks_blocked()
        assert session.waits
        session.recv_nowait = lambda size: b"A4"
        assert not world.relay.router.receive(session)
        session.recv_nowait = session.connection.recv_nowait
        await a.expect(b"B1B2B3")
        await b.send(b"A4")
        await a.expect(b"B4")


async def test_what_was_read_and_not_routed_comes_before_what_a_hang_up_reads(autojump_clock: Clock) -> None:
    async with running() as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await a.settle(b"A")
        await b.settle(b"B")
        session = world.relay.exchange.registry.holder(66)
        assert session is not None
        await b.stream.send_all(b"A1A2A3")
        session.chunk_size = 2
        with world.relay.exchange.round.step():
            assert world.relay.router.read(session)
            assert not world.relay.router.read(session)
            finish_hung_up(world.relay, session)
            assert world.relay.router.take(session)
        await a.expect(b"B1B2B3")
        assert world.relay.ledger.accepted[66] == 1 + 3


async def test_what_was_read_is_not_routed_while_its_session_waits(autojump_clock: Clock) -> None:
    async with running() as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await a.settle(b"A")
        await b.settle(b"B")
        session = world.relay.exchange.registry.holder(66)
        assert session is not None
        await b.stream.send_all(b"A1")
        with world.relay.exchange.round.step():
            assert world.relay.router.read(session)
            session.waits += 1
            assert not world.relay.router.take(session)
            assert session.rest == b"A1"
            session.waits -= 1
            assert world.relay.router.take(session)
        await a.expect(b"B1")


async def test_what_is_left_over_at_the_end_is_counted(autojump_clock: Clock) -> None:
    async with running() as world:
        a = await world.settled(b"A")
        session = world.session(b"A")
        await a.send(b"Z1Z2Z")
        await a.stream.send_eof()
        await session.freed.wait()
        assert world.relay.ledger.partial == 1
        assert world.dropped() == {"no_route": 2}


async def test_the_rest_of_a_chunk_is_counted_as_accepted_and_dropped_at_the_end(autojump_clock: Clock) -> None:
    async with running() as world:
        await world.claim(b"E", HelloOption.EVENTS)
        session, router, ledger = world.session(b"E"), world.relay.router, world.relay.ledger
        with world.relay.exchange.round.step():
            router.feed(session, encode_event(EventCode.FLUSH, 1) * REQUESTS_A_STEP + b"Z1Z2Y3Z")
            accepted = sum(ledger.accepted)
            router.finish(session, DropReason.PEER_GONE)
            assert (session.rest, session.half) == (b"", b"")
        assert sum(ledger.accepted) == accepted + 3
        assert ledger.partial == 1
        gone = {to: count for (source, to, reason), count in ledger.dropped.items() if reason is DropReason.PEER_GONE}
        assert gone == {ord("Z"): 2, ord("Y"): 1}


async def test_what_an_observer_sends_has_no_route(autojump_clock: Clock) -> None:
    async with running() as world:
        observer = await world.claim(b"\0", HelloOption.EVENTS)
        await observer.send(b"Y1Z2Z3", encode_event(EventCode.PING, 1))
        await observer.expect(encode_event(EventCode.PONG, 1))
        assert world.relay.ledger.dropped == {
            (0, ord("Y"), DropReason.NO_ROUTE): 1,
            (0, ord("Z"), DropReason.NO_ROUTE): 2,
        }


async def test_large_reads_follow_a_full_one_and_small_reads_one_that_is_not(autojump_clock: Clock) -> None:
    async with running() as world:
        a = await world.settled(b"A")
        session = world.session(b"A")
        sizes, chunks = list[int](), [b"Z1" * (SMALL_CHUNK // 2), b"Z1Z2", b"A!"]

        def read(size: int) -> bytes:
            sizes.append(size)
            return chunks.pop(0)

        session.recv_nowait = read
        with world.relay.exchange.round.step():
            for _ in range(3):
                assert world.relay.router.receive(session)
        session.recv_nowait = session.connection.recv_nowait
        assert sizes == [SMALL_CHUNK, LARGE_CHUNK, SMALL_CHUNK]
        await a.expect(b"A!")
        assert world.relay.router.receive(session), "nothing is there yet, and it is read again"


@pytest.mark.parametrize("earlier", [None, CloseReason.DENIED])
@pytest.mark.parametrize("reason", [CloseReason.LEFT, CloseReason.RESET])
async def test_the_end_of_what_a_client_sends_has_the_first_reason(
    autojump_clock: Clock, reason: CloseReason, earlier: CloseReason | None
) -> None:
    async with running() as world:
        await world.settled(b"A")
        session = world.session(b"A")

        def end(size: int) -> bytes:
            if reason is CloseReason.LEFT:
                return b""
            raise ConnectionResetError

        session.ended = earlier
        session.recv_nowait = end
        assert not world.relay.router.receive(session)
        assert session.ended is (earlier or reason)
        session.wake()
        await session.freed.wait()


async def test_absent_ids_make_the_relay_look_for_new_connections_once_a_step(autojump_clock: Clock) -> None:
    async with running() as world:
        await world.bound(b"A").settle(b"A")
        session = world.session(b"A")
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1

        world.relay.router.accept_waiting = [look]
        for _ in range(2):
            with world.relay.exchange.round.step():
                for _ in range(5):
                    world.relay.router.feed(session, bytes(byte for id in range(100, 250) for byte in (id, 33)))
        assert looks == 2


async def test_a_client_that_is_found_connected_then_gets_the_frames(autojump_clock: Clock) -> None:
    async with running() as world:
        a, b = await world.settled(b"A"), await world.settled(b"B")
        outboxes = world.relay.exchange.registry.outboxes
        connected, outboxes[66] = outboxes[66], None

        def accept() -> None:
            outboxes[66] = connected

        world.relay.router.accept_waiting = [accept]
        await a.send(b"B1B2")
        await b.expect(b"A1A2")


async def test_every_tap_sees_routed_frames_until_it_is_removed(autojump_clock: Clock) -> None:
    one: list[tuple[int, int, bytes]] = []
    two: list[tuple[int, int, bytes]] = []
    alone: list[bytes] = []

    def see_one(source: int, destination: int, frames: bytes | bytearray) -> None:
        one.append((source, destination, bytes(frames)))

    def see_two(source: int, destination: int, frames: bytes | bytearray) -> None:
        two.append((source, destination, bytes(frames)))

    async with running() as world:
        a, router = world.bound(b"A"), world.relay.router
        await a.settle(b"A")
        assert router.tap is None
        router.add_tap(see_one, alone)
        for data in (b"A1", b"A2A3"):
            await a.send(data)
            await a.expect(data)
        # While a tap is the only one, a frame that comes alone goes the short way.
        assert (one, alone) == ([(65, 65, b"A2A3")], [b"A", b"A1"])
        router.add_tap(see_two)
        await a.send(b"A4")
        await a.expect(b"A4")
        assert (one[1:], two, alone[2:]) == ([(65, 65, b"A4")], [(65, 65, b"A4")], [])
        router.remove_tap(see_one)
        router.remove_tap(see_one)
        await a.send(b"A5")
        await a.expect(b"A5")
        assert (one[2:], two[1:]) == ([], [(65, 65, b"A5")])
        router.remove_tap(see_two)
        assert router.tap is None
