"""Whole messages with one peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from triorelay.client import Backoff
from triorelay.protocol import ConnectionLost, LocalProtocolError, address_frames, encode_message

if TYPE_CHECKING:
    from tests.client.scripted import ScriptedRelay
    from triorelay.testing import MemoryRelay

B = ord("B")


def message(payload: bytes) -> bytes:
    return bytes(address_frames(B, encode_message(payload)))


async def test_it_carries_messages_of_its_peer_and_leaves_those_of_others(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B") as b, relay.open_client("C") as c:
        async with a.channel("B") as with_b, a.channel(ord("C")) as with_c, b.channel("A") as back:
            await c.send("A", b"\0" + encode_message(b"of C"))
            with assert_checkpoints():
                await back.send(b"of B")
            with assert_checkpoints():
                assert await with_b.receive() == b"of B"
            assert await with_c.receive() == b"of C"
            await with_b.send(bytearray(b""))
            assert await back.receive() == b""
            assert (with_b.peer, repr(with_b)) == ("B", "<triorelay.PeerChannel to B>")
        await b.send("A", b"1")
        assert await a.receive() == ("B", b"1")


async def test_it_ends_when_the_peer_leaves_after_all_that_it_had_sent(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        async with relay.open_client("B") as b:
            channel = a.channel("B")
            async with b.channel("A") as back:
                await back.send(b"1")
                await back.send(b"2")
        with trio.fail_after(5):
            assert [payload async for payload in channel] == [b"1", b"2"]
            with pytest.raises(trio.BrokenResourceError, match="the channel to B is broken: it left"):
                await channel.send(b"3")
        await channel.aclose()


async def test_an_absent_peer_breaks_it(relay: MemoryRelay) -> None:
    async with relay.open_client("A", strict=True) as a:
        channel = a.channel("B")
        await channel.send(b"1")
        await wait_all_tasks_blocked()
        for use in (channel.receive, lambda: channel.send(b"2")):
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="no client holds that id"):
                await use()
        a._presence.drop_reported(B)


async def test_a_dropped_message_breaks_it(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        channel = client.channel("B")
        await script.say(message(b"before"), b"\0\4\0B", message(b"after"))
        assert await channel.receive() == b"before"
        with pytest.raises(trio.BrokenResourceError, match="dropped"):
            await channel.receive()


@pytest.mark.parametrize("reconnect", [None, Backoff(first=0)])
async def test_a_lost_connection_breaks_it_and_tells_of_the_loss(
    scripted: ScriptedRelay, reconnect: Backoff | None
) -> None:
    async with scripted.client(b"B", goodbye=reconnect is not None, reconnect=reconnect) as (client, script):
        channel = client.channel("B")
        await channel.send(b"1")
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.BrokenResourceError, match="the connection to the relay was lost"):
                    await channel.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await script.hang_up()
        if reconnect is not None:
            await scripted.welcome(b"B")
            await channel.aclose()
            again = client.channel("B")
            await scripted.latest.say(message(b"new"))  # type: ignore[union-attr]
            assert await again.receive() == b"new"
        else:
            with pytest.raises(ConnectionLost):
                await client.receive()


async def test_after_closing_it_is_closed(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        channel = a.channel("B")
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await channel.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with trio.fail_after(5):
                await channel.aclose()
        with pytest.raises(trio.ClosedResourceError, match="open another one with channel"):
            await channel.send(b"")
        async with a.channel("B"):
            pass


async def test_what_is_not_allowed_is_refused(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.channel("B", limit=3) as channel:
        with pytest.raises(trio.BusyResourceError):
            a.stream("B")
        with pytest.raises(trio.BusyResourceError):
            a.channel("B")
        with pytest.raises(LocalProtocolError, match="at most 3 bytes"):
            await channel.send(b"1234")
        with pytest.raises(TypeError):
            await channel.send("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="limit must be at least 0, not -1"):
            a.channel("C", limit=-1)
    async with relay.open_client(observer=True) as observer:
        with pytest.raises(LocalProtocolError, match="an observer cannot open a channel"):
            observer.channel("B")
