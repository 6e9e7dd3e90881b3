"""PING, LIST and FLUSH, and how much of them one step and one session may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.relay.in_memory import Client, running
from triorelay.protocol import EventCode as Event
from triorelay.protocol import HelloOption, address_frames, encode_event
from triorelay.relay import Config, Session
from triorelay.relay._router import REQUESTS_A_STEP
from triorelay.relay._session import FLUSHES_AT_ONCE

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock as Clock


def to(id: int, data: bytes) -> bytes:
    return bytes(address_frames(id, data))


def pings(count: int) -> bytes:
    return b"".join(encode_event(Event.PING, number & 255) for number in range(count))


def pongs(count: int) -> bytes:
    return b"".join(encode_event(Event.PONG, number & 255) for number in range(count))


async def test_many_requests_at_once_are_all_answered_in_order(autojump_clock: Clock) -> None:
    async with running() as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(pings(1000), b"A!")
        await a.expect(pongs(1000), b"A!")
        assert world.relay.ledger.control == 2000


async def test_one_step_answers_only_so_many_requests_and_then_others_have_their_turn(autojump_clock: Clock) -> None:
    async with running() as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        session = world.session(b"A")
        world.relay.router.feed(session, pings(3 * REQUESTS_A_STEP) + b"A!")
        assert world.relay.ledger.control == 2 * REQUESTS_A_STEP
        assert session.blocked
        session.wake()
        await a.expect(pongs(3 * REQUESTS_A_STEP), b"A!")


async def test_a_session_has_only_so_many_flushes_unanswered(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=100), capacity=4) as world:
        a, b = await world.claim(b"A", HelloOption.EVENTS), world.bound(b"B")
        await b.settle(b"B")
        session = world.session(b"A")
        flushes = b"".join(encode_event(Event.FLUSH, number) for number in range(100))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send, to(66, b"123456"), flushes)
            await trio.sleep(1)
            assert len(session.flushes) == FLUSHES_AT_ONCE
            assert session.blocked
            await b.expect(to(65, b"123456"))
            await a.expect(bytes((0, Event.JOINED, 0, 66)))
            await a.expect(b"".join(encode_event(Event.FLUSHED, number) for number in range(100)))
        assert not session.blocked


async def test_a_flush_is_answered_after_the_frames_before_it_and_not_held_up_by_later_ones(
    autojump_clock: Clock,
) -> None:
    async with running(capacity=8) as world:
        b = await world.settled(b"B")
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(to(66, b"123456"))
        await a.send(encode_event(Event.FLUSH, 1), to(66, b"abcd"))
        await a.settle(b"A")
        await b.expect(b"A1A2")
        await a.expect(encode_event(Event.FLUSHED, 1))


async def test_a_flush_does_not_wait_for_frames_of_an_earlier_session_but_events_report_them(
    autojump_clock: Clock,
) -> None:
    async with running(Config(hold_frames=10, stall_timeout=0), capacity=4) as world:
        b = await world.settled(b"B")
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(to(66, b"123456"), to(90, b"1"))
        await trio.testing.wait_all_tasks_blocked()
        world.relay.close_client(65)
        await trio.testing.wait_all_tasks_blocked()
        assert world.relay.exchange.queued_frames() == 5
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(encode_event(Event.FLUSH, 1))
        await a.expect(encode_event(Event.FLUSHED, 1))
        await trio.sleep(11)
        await a.expect(encode_event(Event.NO_ROUTE, 90))
        await b.expect(to(65, b"123456"))


async def test_a_flush_waits_for_the_second_half_of_a_frame_that_came_alone(autojump_clock: Clock) -> None:
    async with running(capacity=3) as world:
        b = await world.settled(b"B")
        a = await world.claim(b"A", HelloOption.EVENTS)
        for sent in (b"B1", b"B2", encode_event(Event.FLUSH, 1)):
            await a.send(sent)
            await trio.testing.wait_all_tasks_blocked()
        assert len(world.session(b"A").flushes) == 1
        await b.expect(b"A1A2")
        await a.expect(encode_event(Event.FLUSHED, 1))


async def test_a_flush_of_an_ended_session_disturbs_no_other(autojump_clock: Clock) -> None:
    async with running(capacity=4) as world:
        b = await world.settled(b"B")
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(to(66, b"123456"), encode_event(Event.FLUSH, 1) * FLUSHES_AT_ONCE)
        await trio.sleep(1)
        world.relay.close_client(65)
        await b.expect(to(65, b"123456"))
        await b.settle(b"B")


async def test_a_request_in_two_halves_waits_for_the_second_and_others_are_not_understood(
    autojump_clock: Clock,
) -> None:
    async with running() as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        for piece in (b"\0", b"\6", b"\0", b"\x09"):
            await a.send(piece)
            await trio.sleep(0.01)
        await a.expect(encode_event(Event.PONG, 9))
        await a.send(b"\0\x06A1", b"\0\x4d\0\x06\0\x4d\0\0")
        await a.expect(b"A1")
        await a.settle(b"A")
        assert world.dropped() == {"no_route": 5}
        assert world.relay.ledger.control == 2


async def test_a_client_without_events_asks_nothing_by_frames_to_0(autojump_clock: Clock) -> None:
    async with running(Config(hold_frames=10)) as world:
        a = await world.settled(b"A")
        await a.send(b"A1", pings(1), b"A2")
        await a.expect(b"A1A2")
        assert world.dropped() == {"no_route": 2}


async def test_a_request_waits_until_the_frames_before_it_found_room(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=2), capacity=2) as world:
        b = await world.settled(b"B")
        a = await world.claim(b"A", HelloOption.EVENTS)
        session = world.session(b"A")
        await a.send(b"B1")
        await a.send(b"B2")
        await a.settle(b"A")
        with world.relay.exchange.round.step():
            world.relay.router.feed(session, b"B3" + encode_event(Event.FLUSH, 1))
        assert session.waiting_for == 66
        assert (len(session.flushes), world.relay.ledger.control) == (0, 0)
        session.wake()
        await b.expect(b"A1A2A3")
        await a.expect(encode_event(Event.FLUSHED, 1))


async def test_a_flush_looks_only_at_queues_that_its_session_sent_to(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=4000), capacity=4) as world:
        e = await world.claim(b"E", HelloOption.EVENTS)
        others = [await world.claim(bytes((id,)), HelloOption.ACK) for id in range(128, 168)]
        for id, other in zip(range(128, 168), others, strict=True):
            await other.send(to(id, bytes(1000)))
        await e.send(to(128, b"12"))
        await trio.sleep(1)
        session, receiver = (world.relay.exchange.registry.holder(id) for id in (69, 128))
        assert session is not None
        assert receiver is not None
        assert list(session.sent_to) == [receiver.outbox]
        with world.relay.exchange.round.step():
            world.relay.router.feed(session, encode_event(Event.FLUSH, 1) * 5)
        assert len(receiver.outbox._marks) == 5
        assert sum(len(outbox._marks) for outbox in world.relay.exchange.outboxes) == 5
        assert len(session.flushes) == 5
        await others[0].receive(2004)
        await trio.sleep(1)
        assert not session.flushes


async def test_a_list_is_made_once_for_all_that_may_see_everybody(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as world:
        clients = [await world.claim(bytes((id,)), HelloOption.EVENTS) for id in b"ABC"]
        asked = 0
        may_know = Session.may_know

        def counted(session: Session, other: Session) -> bool:
            nonlocal asked
            asked += 1
            return may_know(session, other)

        monkeypatch.setattr(Session, "may_know", counted)
        for client in clients:
            await client.send(encode_event(Event.LIST, 0) * 10, to(client_id(clients, client), b"!"))
        for client in clients:
            while not (await client.receive(2)).endswith(b"!"):
                pass
        assert asked <= 3


def client_id(clients: list[Client], client: Client) -> int:
    return 65 + clients.index(client)


async def test_a_client_that_died_while_its_flushes_waited_for_held_frames_gives_its_id_to_the_next(
    autojump_clock: Clock,
) -> None:
    async with running(Config(hold_frames=10, hold_time=0)) as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        await a.send(to(90, b"1"), encode_event(Event.FLUSH, 1) * (2 * FLUSHES_AT_ONCE))
        await trio.sleep(1)
        await a.stream.aclose()
        begun = trio.current_time()
        again = await world.claim(b"A")
        assert trio.current_time() - begun < 5
        await again.settle(b"A")
