"""Writing to destinations that do not take everything at once, and closing those that take nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.relay.in_memory import running
from triorelay.protocol import CloseReason, address_frames
from triorelay.relay import Config
from triorelay.relay._writer import written_by

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock as Clock

MUCH = bytes(address_frames(66, bytes(500)))


async def test_a_destination_that_takes_nothing_is_closed_after_the_stall_timeout(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=4), capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        session = world.session(b"B")
        await a.send(MUCH)
        await trio.sleep(3.5)
        assert session.ended is None
        await trio.sleep(1)
        assert session.ended is CloseReason.SLOW_CONSUMER
        assert world.dropped() == {"slow_consumer": 495}
        await a.settle(b"A")


async def test_only_a_client_that_does_not_take_everything_at_once_has_a_writer(autojump_clock: Clock) -> None:
    async with running(capacity=10) as world:
        a = await world.settled(b"A")
        before = trio.lowlevel.current_statistics().tasks_living
        b = await world.settled(b"B")
        await a.send(b"B1")
        assert await b.receive(2) == b"A1"
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        await a.send(MUCH)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before + 2
        assert await b.receive(len(MUCH)) == bytes(address_frames(65, bytes(500)))
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before + 1


async def test_a_queue_that_is_blocked_before_its_task_begins_has_a_writer_at_once(autojump_clock: Clock) -> None:
    async with running(capacity=10) as world:
        a = await world.settled(b"A")
        await world.settled(b"B")
        await a.send(MUCH)
        await trio.testing.wait_all_tasks_blocked()
        # As after a handover, of which this is the part that starts writers.
        started: list[str] = []
        with written_by(lambda: started.append("a writer"), world.session(b"B").outbox):
            assert started == ["a writer"]


async def test_a_destination_that_takes_a_little_now_and_then_is_not_closed(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=4), capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        await a.send(MUCH)
        for _ in range(20):
            await trio.sleep(3)
            await b.receive(1)
        session = world.session(b"B")
        assert session.ended is None


async def test_what_the_kernel_passed_on_is_progress_even_where_it_takes_no_more(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=4), capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        session = world.session(b"B")
        unsent = 1000

        def falling() -> int:
            nonlocal unsent
            unsent -= 1
            return unsent

        session.connection.unsent = falling  # type: ignore[method-assign]
        await a.send(MUCH)
        await trio.sleep(30)
        assert session.ended is None
        session.connection.unsent = lambda: 0  # type: ignore[method-assign]
        await trio.sleep(7)
        assert session.ended is CloseReason.SLOW_CONSUMER


async def test_a_blocked_send_is_tried_again_each_second_even_if_epoll_reports_no_room(autojump_clock: Clock) -> None:
    async with running(capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        session = world.session(b"B")
        session.connection.wait_writable = trio.sleep_forever  # type: ignore[method-assign]
        await a.send(MUCH)
        for _ in range(5):
            await b.receive(10)
            await trio.sleep(1.1)
        session.close(CloseReason.CLOSED)


async def test_the_log_says_once_which_client_waits_for_which(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Config(queue_bytes=2, stall_timeout=0), capacity=2) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send, MUCH)
            await trio.sleep(5)
            lines = [record for record in caplog.records if record.message == "client waits"]
            assert len(lines) == 1
            facts = vars(lines[0])["fields"]
            assert (facts["id"], facts["waits_for"]) == ("A", "B")
            assert 1 <= facts["seconds"] < 3
            await b.receive(len(MUCH))
        assert world.relay.ledger.waited[65] >= 4


async def test_room_that_the_kernel_still_had_is_no_progress(autojump_clock: Clock) -> None:
    async with running(Config(stall_timeout=4), capacity=10) as world:
        a, b = world.bound(b"A"), world.bound(b"B")
        await b.settle(b"B")
        session = world.session(b"B")
        connection = session.connection
        await a.send(MUCH)
        taken = 0

        def take_a_little(data: bytes | bytearray | memoryview) -> int:
            nonlocal taken
            taken += 2
            return 2

        # As a Unix socket does: it is not called writable, takes a piece at each try all the same, and none is read.
        connection.wait_writable = trio.sleep_forever  # type: ignore[method-assign]
        connection.send_nowait = take_a_little  # type: ignore[method-assign]
        connection.unsent = lambda: 100 + taken  # type: ignore[method-assign]
        session.outbox._connection = connection
        begun = trio.current_time()
        await session.freed.wait()
        assert session.ended is CloseReason.SLOW_CONSUMER
        assert trio.current_time() - begun < 4 + 2
