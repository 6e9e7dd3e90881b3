"""Whole messages from and to any client that agrees on them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from triorelay.client import NotDelivered
from triorelay.client._arrivals import MESSAGE_COST, Arrivals, Assembler
from triorelay.client._inbox import CLAIM_BYTES, Inbox
from triorelay.protocol import (
    DEFAULT_MESSAGE_LIMIT,
    ConnectionLost,
    Event,
    EventCode,
    FrameReader,
    LocalProtocolError,
    MessageReader,
    encode_message,
)

if TYPE_CHECKING:
    from tests.client.scripted import ScriptedRelay
    from triorelay.testing import MemoryRelay

A, B, C = b"ABC"


def framed(id: int, data: bytes) -> bytes:
    return b"".join(bytes((id, byte)) for byte in data)


@pytest.mark.parametrize("size", [0, 1, 253, 254, 255, 65_536, DEFAULT_MESSAGE_LIMIT])
async def test_messages_arrive_whole(relay: MemoryRelay, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.messages() as from_a,
        b.messages() as at_b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(from_a.send, "B", payload)
        with assert_checkpoints():
            assert await at_b.receive() == ("A", payload)


async def test_messages_of_several_senders_and_tasks_do_not_mix(relay: MemoryRelay) -> None:
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        relay.open_client("C") as c,
        a.messages() as from_a,
        b.messages() as from_b,
        c.messages() as at_c,
        trio.open_nursery() as nursery,
    ):
        for channel, letter in ((from_a, b"a"), (from_b, b"b")):
            for task in b"123":
                nursery.start_soon(channel.send, "C", letter + bytes((task,)) * 100_000)
        received = [await at_c.receive() for _ in range(6)]
        expected = {letter + bytes((task,)) * 100_000 for letter in (b"a", b"b") for task in b"123"}
        assert {payload for _, payload in received} == expected
        assert all(payload[:1] == source.lower().encode() for source, payload in received)


async def test_a_message_over_the_limit_is_refused_on_both_sides(relay: MemoryRelay) -> None:
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        a.messages(limit=11) as from_a,
        b.messages(limit=10) as at_b,
    ):
        with pytest.raises(LocalProtocolError, match="at most 11 bytes, not 12: split it"):
            await from_a.send("B", bytes(12))
        await from_a.send("B", bytes(11))
        await from_a.send("B", bytes(10))
        assert await at_b.receive() == ("A", bytes(10))
        assert at_b.discarded == 1


async def test_what_is_not_bytes_is_no_message(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.messages() as channel:
        with pytest.raises(TypeError, match="payload must be bytes, bytearray or memoryview, not str: encode text"):
            await channel.send("A", "text")  # type: ignore[arg-type]


async def test_a_limit_is_not_negative(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        with pytest.raises(ValueError, match="limit must be at least 0, not -1"):
            a.messages(limit=-1)


async def test_a_cancelled_message_is_sent_whole_or_not_at_all(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script), client.messages() as channel:
        resume = script.take_no_more()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(channel.send, "B", bytes(100_000))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        resume()
        await channel.send("B", b"last")
        assembler, frames = Assembler(DEFAULT_MESSAGE_LIMIT), FrameReader()
        payloads: list[bytes] = []
        while payloads[-1:] != [b"last"]:
            for item in frames.feed(bytes(await script.stream.receive_some())):
                assert isinstance(item, tuple)
                payloads += assembler.feed(*item)
        assert set(payloads) == {bytes(100_000), b"last"}
        assert assembler.discarded == 0


async def test_a_message_cut_by_the_end_of_a_session_costs_only_itself(relay: MemoryRelay) -> None:
    async with relay.open_client("B") as b, b.messages() as at_b:
        cut = relay.connect("A")
        await cut.send_all(framed(B, b"\0" + encode_message(b"never whole")[:-3]))
        await cut.aclose()
        async with relay.open_client("A") as a, a.messages() as from_a:
            await from_a.send("B", b"whole")
        assert await at_b.receive() == ("A", b"whole")
        assert at_b.discarded == 1


async def test_every_message_begins_with_a_zero(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script), client.messages() as channel:
        for payload in (b"one", b"two"):
            await channel.send("B", payload)
            sent = b"\0" + encode_message(payload)
            assert await script.read(2 * len(sent)) == framed(B, sent)


async def test_a_message_that_lost_bytes_costs_only_itself(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script), client.messages() as channel:
        damaged = bytearray(b"\0" + encode_message(b"damaged"))
        del damaged[5]
        await script.say(framed(B, bytes(damaged) + b"\0" + encode_message(b"next")))
        assert await channel.receive() == ("B", b"next")
        assert channel.discarded == 1


async def test_a_stream_keeps_its_own_source(relay: MemoryRelay) -> None:
    async with (
        relay.open_client("A") as a,
        relay.open_client("B") as b,
        relay.open_client("C") as c,
        a.messages() as from_a,
        b.stream("C") as out,
        c.messages() as at_c,
        c.stream("B") as into,
    ):
        await out.send_all(b"stream")
        await from_a.send("C", b"message")
        assert await at_c.receive() == ("A", b"message")
        assert await into.receive_some() == b"stream"


async def test_closing_gives_the_claim_back(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        channel = a.messages()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError, match=r"open another one with messages\(\)"):
                    await channel.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await channel.aclose()
        with assert_checkpoints():
            await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send("A", b"1")
        await a.send("A", b"raw")
        assert await a.receive() == ("A", b"raw")


async def test_one_task_receives(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.messages() as channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task is receiving from this channel"):
            await channel.receive()
        await channel.send("A", b"1")


async def test_messages_that_came_before_a_loss_are_received(scripted: ScriptedRelay) -> None:
    async with scripted.client(goodbye=False) as (client, script), client.messages() as channel:
        await script.say(framed(B, encode_message(b"last")))
        await script.hang_up()
        assert await channel.receive() == ("B", b"last")
        with pytest.raises(ConnectionLost):
            await channel.receive()
        with pytest.raises(ConnectionLost):
            await channel.send("B", b"1")


def test_waiting_messages_are_bounded_even_if_they_are_empty() -> None:
    arrivals = Arrivals(10, Inbox(lambda: None, trio.lowlevel.ParkingLot.unpark_all), lambda: None)
    arrivals.deliver(B, encode_message(b"") * (CLAIM_BYTES // MESSAGE_COST))
    assert arrivals.size >= CLAIM_BYTES
    while arrivals.pop() is not None:
        pass
    assert arrivals.size == 0


def test_what_a_session_left_unfinished_is_forgotten_with_it() -> None:
    assembler = Assembler(10)
    assembler.feed(B, b"cut")
    assembler.feed(C, b"cut too")
    assembler.tell(Event(EventCode.LEFT, B))
    assembler.tell(Event(EventCode.LEFT, A))
    assembler.tell(Event(EventCode.JOINED, B))
    assert assembler.discarded == 1
    assert assembler.feed(B, encode_message(b"new")) == [b"new"]
    assembler.lose()
    assert assembler.discarded == 2


async def test_messages_pass_without_a_checkpoint_as_long_as_there_are_some_and_room(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B") as b, a.messages() as out, b.messages() as arriving:
        with assert_no_checkpoints():
            out.send_nowait("B", b"1")
            out.send_nowait("B", bytearray(b"2"))
        assert await arriving.receive() == ("A", b"1")
        with assert_no_checkpoints():
            assert arriving.receive_nowait() == ("A", b"2")
        with pytest.raises(trio.WouldBlock):
            arriving.receive_nowait()


async def test_a_message_for_which_there_is_no_room_now_is_not_sent_at_all(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script), client.messages() as channel:
        go_on = script.take_no_more()
        sent = 0
        with suppress(trio.WouldBlock):
            while sent < 1000:
                channel.send_nowait("B", bytes([sent % 256]) * 10_000)
                sent += 1
        assert 0 < sent < 1000
        go_on()
        await channel.send("B", b"last")
        reader = MessageReader()
        received: list[bytes] = []
        with trio.fail_after(60):
            while received[-1:] != [b"last"]:
                received += reader.feed((await script.read(2))[1:])
        assert len(received) == sent + 1


async def test_nowait_raises_what_waiting_would(relay: MemoryRelay) -> None:
    async with relay.open_client("A", strict=True) as a:
        async with a.messages() as channel:
            channel.send_nowait("B", b"1")
            await wait_all_tasks_blocked()
            with pytest.raises(NotDelivered):
                channel.send_nowait("B", b"2")
            with pytest.raises(NotDelivered):
                await channel.send("B", b"2")
        with pytest.raises(trio.ClosedResourceError):
            channel.send_nowait("B", b"3")
        with pytest.raises(trio.ClosedResourceError):
            channel.receive_nowait()
