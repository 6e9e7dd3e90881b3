"""A client among others, at the real relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triorelay.client import NotDelivered
from triorelay.protocol import CloseReason, ConnectionLost, Event, EventCode, HelloRefused, LocalProtocolError, Refusal
from triorelay.relay import Config
from triorelay.testing import open_relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from triorelay.client import Client
    from triorelay.testing import MemoryRelay

A, B, C = b"ABC"


async def collect(client: Client, count: int) -> dict[str, bytes]:
    """Receive `count` bytes; return them by source."""
    found: dict[str, bytes] = {}
    while sum(map(len, found.values())) < count:
        source, data = await client.receive()
        found[source] = found.get(source, b"") + data
    return found


async def test_two_clients_talk(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B") as b:
        await a.send("B", b"1")
        assert await b.receive() == ("A", b"1")
        await b.send("A", b"2")
        async for source, data in a:
            assert (source, data) == ("B", b"2")
            break


@pytest.mark.parametrize("data", [b"123", bytearray(b"123"), memoryview(b"123")], ids=lambda data: type(data).__name__)
async def test_bytes_of_any_kind_are_sent(relay: MemoryRelay, data: bytes | bytearray | memoryview) -> None:
    async with relay.open_client("A") as a, relay.open_client("B") as b:
        await a.send(b"B", data)
        assert await collect(b, 3) == {"A": b"123"}


async def test_sending_nothing_is_nothing(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        with assert_checkpoints():
            await a.send("A", b"")
        await a.send(A, b"1")
        assert await a.receive() == ("A", b"1")


async def test_every_byte_reaches_every_destination_in_order(relay: MemoryRelay) -> None:
    data = bytes(range(256)) * 1000
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        relay.open_client("C") as c,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.send, "C", data)
        nursery.start_soon(b.send, "C", data[::-1])
        assert await collect(c, 2 * len(data)) == {"A": data, "B": data[::-1]}


async def test_every_public_coroutine_is_a_checkpoint(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        events = a.events()
        await a.send("A", b"1")
        await a.send("Z", b"1")
        await a.flush()
        calls: list[Callable[[], object]] = [
            lambda: a.send("A", b"1"),
            a.receive,
            a.flush,
            a.ping,
            lambda: a.wait_for("A"),
            lambda: anext(events),
        ]
        for call in calls:
            with assert_checkpoints():
                await call()  # type: ignore[misc]
    with assert_checkpoints():
        await a.aclose()


async def test_leaving_delivers_everything(relay: MemoryRelay, nursery: trio.Nursery) -> None:
    data = bytes(range(256)) * 1000
    async with relay.open_client("B") as b:

        async def send_and_leave() -> None:
            async with relay.open_client("A") as a:
                await a.send("B", data)

        nursery.start_soon(send_and_leave)
        assert await collect(b, len(data)) == {"A": data}


async def test_peers_come_and_go(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        events = a.events()
        assert a.peers == frozenset()
        async with relay.open_client("B"):
            await a.wait_for("B")
            assert a.peers == {"B"}
            async with relay.open_client(observer=True) as observer:
                assert observer.peers == {"A", "B"}
        assert await anext(events) == Event(EventCode.JOINED, B)
        assert await anext(events) == Event(EventCode.LEFT, B)
        assert a.peers == frozenset()


async def test_waiting_for_oneself_or_for_a_present_client_returns(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B"):
        for id in ("A", "B", b"B", 66):
            await a.wait_for(id)


async def test_waiting_for_a_client_to_come(relay: MemoryRelay, nursery: trio.Nursery) -> None:
    async with relay.open_client("A") as a:
        nursery.start_soon(a.wait_for, "B")
        await wait_all_tasks_blocked()
        async with relay.open_client("C"):
            await wait_all_tasks_blocked()
            async with relay.open_client("B"):
                await a.wait_for("B")


async def test_a_ping_takes_time(relay: MemoryRelay) -> None:
    async with relay.open_client(observer=True) as observer:
        assert 0 <= await observer.ping() < 60


async def test_frames_to_an_absent_id_cause_an_event(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        events = a.events()
        await a.send("Z", b"1")
        await a.flush()
        event = await anext(events)
        assert event == Event(EventCode.NO_ROUTE, ord("Z"))
        assert event.id == "Z"


async def test_frames_to_an_absent_id_fail_a_strict_client_until_a_client_joins(relay: MemoryRelay) -> None:
    async with relay.open_client("A", strict=True) as a:
        await a.send("B", b"1")
        with pytest.raises(NotDelivered, match="no client holds the id B"):
            await a.flush()
        with pytest.raises(NotDelivered, match="no client holds the id B"):
            await a.send("B", b"2")
        async with relay.open_client("B") as b:
            await a.wait_for("B")
            await a.send("B", b"3")
            assert await b.receive() == ("A", b"3")


async def test_dropped_frames_are_an_event(autojump_clock: MockClock) -> None:
    config = Config(overflow="drop", queue_bytes=200, stall_timeout=0)
    async with (
        open_relay(config, capacity=100) as relay,
        relay.open_client("A") as a,
        relay.connect("B") as unread,
    ):
        events = a.events()
        await a.send("B", bytes(30_000))
        await a.send("B", bytes(30_000))
        assert (await anext(events)).code == EventCode.JOINED
        assert await anext(events) == Event(EventCode.DROPPED, B)
        await unread.aclose()


async def test_a_taken_id_is_refused(relay: MemoryRelay) -> None:
    async with relay.open_client("A"):
        with pytest.raises(HelloRefused, match="refused id A: the id is taken") as caught:
            async with relay.open_client("A"):
                pass
        assert (caught.value.id, caught.value.code) == ("A", Refusal.TAKEN)


async def test_an_id_can_be_taken_again_at_once(relay: MemoryRelay) -> None:
    for _ in range(20):
        async with relay.open_client("A") as a:
            await a.send("A", b"1")


async def test_a_draining_relay_says_so(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        events = a.events()
        relay.relay.drain()
        assert await anext(events) == Event(EventCode.DRAINING, 0)
        with pytest.raises(ConnectionLost) as caught:
            await a.receive()
        assert caught.value.reason == CloseReason.DRAINING


async def test_a_client_that_an_operator_closes_gets_the_reason(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        relay.relay.close_client(A)
        with pytest.raises(ConnectionLost, match="ended: closed") as caught:
            await a.receive()
        assert caught.value.reason == CloseReason.CLOSED


async def test_a_flood_that_no_task_receives_pauses_the_flooder(autojump_clock: MockClock) -> None:
    async with (
        open_relay(Config(stall_timeout=0)) as relay,
        relay.open_client("A") as a,
        relay.open_client("C") as c,
    ):
        with trio.move_on_after(1) as flood:
            while True:
                await c.send("A", bytes(32_768))
        assert flood.cancelled_caught
        received = 0
        with trio.move_on_after(1):
            while True:
                received += len((await a.receive())[1])
        assert received >= 65_536
        await a.flush()


# -- wrong use


async def test_data_that_is_not_bytes_is_refused(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        for data in ("text", [1, 2], 5, None):
            with pytest.raises(TypeError, match="data must be bytes, bytearray or memoryview"):
                await a.send("A", data)  # type: ignore[arg-type]
        for destination in ("", "AB", 0, 256):
            with pytest.raises(ValueError, match="an id is one byte"):
                await a.send(destination, b"1")


async def test_what_is_there_can_be_received_without_waiting(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client(observer=True) as observer:
        with pytest.raises(trio.WouldBlock):
            a.receive_nowait()
        await a.send("A", b"1")
        await wait_all_tasks_blocked()
        assert a.receive_nowait() == ("A", b"1")
        with pytest.raises(LocalProtocolError, match="an observer cannot receive"):
            observer.receive_nowait()
    with pytest.raises(trio.ClosedResourceError):
        a.receive_nowait()


async def test_two_tasks_cannot_receive(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, trio.open_nursery() as nursery:
        nursery.start_soon(a.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="others can claim a stream"):
            await a.receive()
        await a.send("A", b"1")


async def test_a_source_cannot_be_claimed_twice(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        async with a.stream("B"), a.messages():
            with pytest.raises(trio.BusyResourceError):
                a.stream("B")
            with pytest.raises(trio.BusyResourceError):
                a.messages()
        await a.messages().aclose()


async def test_an_observer_has_no_data(relay: MemoryRelay) -> None:
    async with relay.open_client(observer=True) as observer:
        with pytest.raises(LocalProtocolError, match="an observer cannot send: open a client with an id"):
            await observer.send("A", b"1")
        with pytest.raises(LocalProtocolError, match="an observer cannot receive"):
            await observer.receive()
        for claim in (observer.messages, lambda: observer.stream("A")):
            with pytest.raises(LocalProtocolError, match="open a client with an id"):
                claim()
