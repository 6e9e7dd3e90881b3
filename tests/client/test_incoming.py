"""What arrives for a stream, byte by byte, and what is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.client.scripted import Script, ScriptedRelay, event
from triorelay.client._inbox import CLAIM_BYTES
from triorelay.protocol import EventCode, MessageReader, StreamKind, encode_message

if TYPE_CHECKING:
    from triorelay.client import Client

A, B = b"AB"

END, STOP, BROKEN = (bytes((kind,)) for kind in (StreamKind.END, StreamKind.STOP, StreamKind.BROKEN))


def data(payload: bytes) -> bytes:
    return bytes((StreamKind.DATA,)) + payload


def of_b(octets: bytes) -> bytes:
    """Return these data bytes as the relay forwards them from B."""
    return b"".join(bytes((B, octet)) for octet in octets)


async def say(script: Script, *messages: bytes) -> None:
    await script.say(of_b(b"".join(map(encode_message, messages))))


async def heard(client: Client, script: Script) -> list[bytes]:
    """Return the messages that the client has sent to B by now."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.flush)
        sent = await script.answer_flush()
    assert set(sent[0::2]) <= {B}
    return MessageReader().feed(sent[1::2])


async def test_a_stream_begins_with_a_zero_and_ends_with_an_end(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await stream.send_all(b"12")
        await stream.send_eof()
        sent = b"\0" + encode_message(data(b"12")) + encode_message(END)
        assert await script.read(2 * len(sent)) == of_b(sent)


async def test_closing_asks_an_open_peer_to_stop_before_it_ends(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        assert await heard(client, script) == [STOP, END]


async def test_closing_does_not_ask_a_peer_that_has_finished(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END)
        await stream.aclose()
        assert await heard(client, script) == [END]


async def test_after_its_own_end_it_asks_only_a_peer_that_goes_on_sending(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await stream.send_eof()
        await stream.aclose()
        await say(script, data(b"on its way"))
        assert await heard(client, script) == [END]
        await say(script, data(bytes(CLAIM_BYTES)))
        assert await heard(client, script) == [STOP]
        await say(script, data(bytes(CLAIM_BYTES)))
        assert await heard(client, script) == []


async def test_a_cancelled_close_says_broken_instead_of_end(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await trio.aclose_forcefully(client.stream("B"))
        assert await heard(client, script) == [STOP, BROKEN]


async def test_a_stream_that_breaks_here_is_broken_there_once(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await script.say(event(EventCode.DROPPED, B), event(EventCode.DROPPED, B))
        await stream.aclose()
        assert await heard(client, script) == [BROKEN]


@pytest.mark.parametrize("code", [EventCode.LEFT, EventCode.NO_ROUTE])
async def test_nothing_is_said_to_a_peer_that_is_gone(scripted: ScriptedRelay, code: EventCode) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await script.say(event(code, B))
        await stream.aclose()
        assert await heard(client, script) == []


async def test_an_end_is_said_even_to_a_peer_that_broke_the_stream(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, BROKEN)
        with pytest.raises(trio.BrokenResourceError, match="it broke the stream off"):
            await stream.receive_some()
        await stream.aclose()
        assert await heard(client, script) == [END]


async def test_what_an_earlier_session_left_unfinished_is_no_damage(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await script.say(of_b(b"left over\0"))
        for text in (b"one", b"two"):
            await say(script, data(text))
            assert await stream.receive_some() == text


async def test_the_next_stream_begins_in_the_middle_of_a_message(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        first = client.stream("B")
        await say(script, data(b"first"), END)
        begun = encode_message(data(b"second"))
        await script.say(of_b(begun[:4]))
        assert await first.receive_some() == b"first"
        await first.aclose()
        await script.say(of_b(begun[4:]))
        assert await client.stream("B").receive_some() == b"second"


async def test_what_waits_for_the_next_stream_is_bounded_too(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END, data(bytes(CLAIM_BYTES)))
        await script.say(event(EventCode.JOINED, ord("C")))
        assert "C" not in client.peers
        await stream.aclose()
        async with client.stream("B") as following:
            assert await following.receive_some() == bytes(CLAIM_BYTES)
            await wait_all_tasks_blocked()
            assert "C" in client.peers


async def test_a_peer_that_leaves_in_the_middle_of_a_message_holds_nothing(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await script.say(of_b(b"half a mess"), event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await stream.aclose()
        await script.say(of_b(b"raw"))
        assert await client.receive() == ("B", b"raw")


async def test_a_late_stop_of_the_last_stream_does_not_stop_the_next(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        stream = client.stream("B")
        await say(script, STOP, END)
        await stream.send_all(b"goes on")
        assert await heard(client, script) == [STOP, END, data(b"goes on")]
