"""One client's life: its end above all, however it comes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.relay.in_memory import Client, running
from triorelay import testing
from triorelay.protocol import CloseReason, DropReason, HelloOption, address_frames, encode_event
from triorelay.protocol import EventCode as Event
from triorelay.relay import Config
from triorelay.relay._admission import Admission
from triorelay.relay._session import EVENTS_NOT_TAKEN

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock

    from triorelay.relay._connection import Connection
    from triorelay.relay._session import Session

FLOOD = bytes(address_frames(66, bytes(60_000)))


async def send_until_closed(client: Client, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(data)


async def test_a_client_that_keeps_sending_on_a_broken_connection_lets_other_tasks_run(autojump_clock: Clock) -> None:
    async with running() as world:
        await world.settled(b"B")
        session = world.session(b"B")
        chunks, seen = 0, set[int]()

        def endless(size: int) -> bytes:
            nonlocal chunks
            chunks += 1
            return b"Z1" if chunks < 1000 else b""

        async def bystander() -> None:
            while chunks < 999:
                seen.add(chunks)
                await trio.lowlevel.checkpoint()

        session.recv_nowait = endless
        pumped = world.relay.pump._sessions
        # Not while the pump watches it, which would read many chunks before the session's task runs.
        session.connection.input_waits = lambda: pumped[session.connection.fileno] is None  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            session.outbox.discard(DropReason.PEER_GONE)
            nursery.start_soon(bystander)
        assert len(seen) > 500


async def test_a_session_that_is_closed_before_its_task_begins_ends(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Session] = []

    def enter(admission: Admission, connection: Connection) -> None:
        begin(admission, connection)
        sessions.append(world.session(b"B"))
        sessions[0].waits += 1  # as one that another relay handed over may do
        sessions[0].close(CloseReason.DENIED)

    begin = Admission.enter
    async with running() as world:
        with monkeypatch.context() as patched:
            patched.setattr(Admission, "enter", enter)
            client = world.bound(b"B")
            try:
                assert await client.read_to_end() == b""
            finally:
                sessions[0].scope.cancel()  # what goes on after all must not keep the relay from its end
        assert world.relay.sessions_ended["memory", CloseReason.DENIED.label] == 1
        await world.settled(b"B")


async def test_what_a_client_sent_before_its_connection_broke_is_routed(autojump_clock: Clock) -> None:
    async with running(capacity=4) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await a.settle(b"A")
        await b.send(b"A1A2")
        holder = world.session(b"B")
        holder.outbox.discard(DropReason.PEER_GONE)
        await a.expect(b"B1B2")
        await holder.freed.wait()


async def test_a_close_keeps_its_reason_where_the_client_leaves_in_the_same_moment(autojump_clock: Clock) -> None:
    async with running() as world:
        b = await world.settled(b"B")
        session = world.session(b"B")
        await b.stream.send_eof()
        session.close(CloseReason.DENIED)
        assert not world.relay.router.receive(session)
        await session.freed.wait()
        assert session.ended is CloseReason.DENIED


async def test_closing_is_the_last_event_of_a_session(autojump_clock: Clock) -> None:
    async with running() as world:
        e, a = await world.claim(b"E", HelloOption.EVENTS), world.bound(b"A")
        await a.settle(b"A")
        session, sender = world.relay.exchange.registry.holder(69), world.relay.exchange.registry.holder(65)
        assert session is not None
        assert sender is not None
        session.close(CloseReason.SLOW_CONSUMER)
        world.relay.router.feed(sender, b"E1")
        assert (await e.read_to_end())[-4:] == encode_event(Event.CLOSING, CloseReason.SLOW_CONSUMER)
        assert world.dropped() == {"slow_consumer": 1}


async def test_a_paused_sender_that_is_closed_takes_its_frames_along_and_others_go_on(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=2), capacity=2) as world:
        b = world.bound(b"B")
        a, c = await world.claim(b"A"), await world.claim(b"C")
        session = world.session(b"A")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_until_closed, a, FLOOD)
            await trio.sleep(1)
            assert session.waiting_for == 66
            nursery.start_soon(c.send, b"B8")
            await trio.sleep(1)
            world.relay.close_client(65)
        assert world.dropped()["source_closed"] > 0
        received = b""
        while b"C8" not in received:
            received += await b.stream.receive_some()
        assert received[-2:] == b"C8"
        assert set(received[0:-2:2]) == {65}


async def test_an_asker_that_waits_for_room_and_is_closed_drops_nothing(autojump_clock: Clock) -> None:
    async with running(Config(queue_bytes=2), capacity=2) as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        session = world.session(b"A")
        with trio.move_on_after(1):
            await a.send(encode_event(Event.PING, 1) * 100)
        assert session.waiting_for == 65
        world.relay.close_client(65)
        await session.freed.wait()
        status = world.relay.snapshot()
        drops = status["drops"]
        assert isinstance(drops, list)
        assert all(count for *_, count in drops)


async def test_events_that_are_not_taken_close_the_session_at_their_limit(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=0), capacity=4) as world:
        await world.claim(b"E", HelloOption.EVENTS)
        session = world.session(b"E")
        for told in range(EVENTS_NOT_TAKEN + 1):
            assert session.ended is None, told
            session.notify(Event.JOINED, 66)
        session.notify(Event.JOINED, 66)
        await session.freed.wait()
        assert session.ended is CloseReason.SLOW_CONSUMER


async def test_events_that_are_taken_count_no_more(autojump_clock: Clock) -> None:
    async with running() as world:
        e = await world.claim(b"E", HelloOption.EVENTS)
        session = world.session(b"E")
        for _ in range(3):
            for _ in range(EVENTS_NOT_TAKEN - 1):
                session.notify(Event.JOINED, 66)
            await e.expect(encode_event(Event.JOINED, 66) * (EVENTS_NOT_TAKEN - 1))
        assert session.ended is None


async def test_a_client_that_left_is_written_to_until_it_took_all_and_its_id_is_free_meanwhile(
    autojump_clock: Clock,
) -> None:
    async with running(capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        await a.send(b"B1B2B3B4B5B6B7B8")
        await a.settle(b"A")
        await b.stream.send_eof()
        holder = world.session(b"B")
        await holder.freed.wait()
        assert world.relay.exchange.registry.holder(66) is None
        assert await b.read_to_end() == b"A1A2A3A4A5A6A7A8"


async def test_a_client_that_left_and_takes_nothing_is_closed_after_the_stall_timeout(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=3), capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        await a.send(FLOOD[:1000])
        await a.settle(b"A")
        session = world.relay.exchange.registry.holder(66)
        await b.stream.send_eof()
        await trio.sleep(2.9)
        assert session in world.relay.exchange.sessions
        await trio.sleep(0.2)
        assert session not in world.relay.exchange.sessions
        assert world.dropped() == {"slow_consumer": 495}


async def test_an_error_in_a_session_ends_that_session_alone_and_counts_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        a, b = await world.settled(b"A"), await world.settled(b"B")

        def fail(size: int) -> bytes:
            raise ZeroDivisionError

        session = world.session(b"B")
        session.recv_nowait = fail
        await b.send(b"A1A2")
        assert await b.read_to_end() == b""
        await a.settle(b"A")
        assert world.relay.sessions_ended["memory", "error"] == 1
    assert [record.message for record in caplog.records if record.exc_info] == ["bug in a session"]


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
async def test_a_relay_that_is_cancelled_in_mid_send_still_accounts_for_everything(
    autojump_clock: Clock, stop: int
) -> None:
    memory: testing.MemoryRelay | None = None
    with trio.move_on_after(stop):
        async with (
            testing.open_relay(Config(queue_bytes=20), capacity=7) as memory,
            trio.open_nursery() as nursery,
        ):
            memory.connect(b"B")
            for id in (b"A", b"C"):
                nursery.start_soon(partial(memory.connect(id).send_all, FLOOD))
            await trio.sleep_forever()
    assert memory is not None
    ledger, relay = memory.relay.ledger, memory.relay
    assert relay.exchange.queued_frames() == 0
    assert not relay.exchange.sessions
    assert sum(ledger.accepted) == ledger.written + sum(ledger.dropped.values()) > 0
