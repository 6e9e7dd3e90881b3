"""What arrives for a stream, byte by byte, and what is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.client.scripted import Script, ScriptedRelay, event
from triorelay.client import Backoff
from triorelay.client._inbox import CLAIM_BYTES
from triorelay.client._incoming import OPENING_PATIENCE
from triorelay.protocol import EventCode, MessageReader, StreamKind, encode_message

if TYPE_CHECKING:
    from trio.testing import MockClock

    from triorelay.client import Client, PeerStream

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


async def close_before_the_peers_next(client: Client, script: Script, *following: bytes) -> None:
    stream = client.stream("B")
    await say(script, END, *following)
    await stream.aclose()
    assert await heard(client, script) == [END]


async def check_broken_off(stream: PeerStream) -> None:
    for call in (stream.receive_some, lambda: stream.send_all(b"1")):
        with pytest.raises(trio.BrokenResourceError, match="the peer began it before it was opened here"):
            await call()
    await stream.aclose()


async def test_the_next_stream_may_be_opened_a_while_after_closing(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END, data(bytes(CLAIM_BYTES)))
        await stream.aclose()
        await trio.sleep(OPENING_PATIENCE * 0.9)
        assert await client.stream("B").receive_some() == bytes(CLAIM_BYTES)


async def test_a_stream_that_nobody_opens_is_broken_off_and_holds_up_nobody(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END, data(bytes(CLAIM_BYTES)))
        await stream.aclose()
        start = trio.current_time()
        await script.say(event(EventCode.JOINED, ord("C")))
        with trio.fail_after(60):
            await client.wait_for("C")
        assert OPENING_PATIENCE <= trio.current_time() - start <= 2 * OPENING_PATIENCE
        assert await heard(client, script) == [END, BROKEN]
        for _ in range(3):
            await say(script, data(bytes(CLAIM_BYTES)))
        assert await heard(client, script) == []


async def test_a_peer_that_goes_on_sending_what_was_broken_off_is_not_asked_to_stop_too(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await stream.send_eof()
        await stream.aclose()
        await say(script, END, data(b"begun"))
        await trio.sleep(OPENING_PATIENCE)
        for _ in range(3):
            await say(script, data(bytes(CLAIM_BYTES)))
        assert await heard(client, script) == [END, BROKEN]


async def test_the_next_stream_is_not_broken_off_before_this_one_has_said_its_end(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END, data(bytes(CLAIM_BYTES)))
        stream._incoming.close()
        autojump_clock.jump(OPENING_PATIENCE)
        client._inbox.shed()
        stream._incoming.end()
        stream._incoming.settle()
        await wait_all_tasks_blocked()
        assert await heard(client, script) == [END, BROKEN]


async def test_whoever_comes_too_late_for_a_stream_gets_it_broken_and_then_the_next(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        await close_before_the_peers_next(client, script)
        await trio.sleep(OPENING_PATIENCE)
        await close_before_the_peers_next(client, script, data(b"begun"))
        await trio.sleep(OPENING_PATIENCE)
        await say(script, data(bytes(CLAIM_BYTES)))
        await say(script, data(b"its rest"))
        assert await heard(client, script) == [BROKEN]
        broken = client.stream("B")
        await say(script, data(b"its last"), END, data(b"next"))
        await check_broken_off(broken)
        following = client.stream("B")
        assert await following.receive_some() == b"next"
        await following.send_all(b"fine")
        assert await heard(client, script) == [data(b"fine")]


async def test_several_streams_that_nobody_opens_are_broken_off_one_by_one_and_told_of_once(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        await close_before_the_peers_next(client, script, data(b"2"), END, BROKEN, END)
        await trio.sleep(OPENING_PATIENCE)
        await say(script, data(bytes(CLAIM_BYTES)), END)
        assert await heard(client, script) == [BROKEN] * 4
        await say(script, data(b"6"))
        assert await client.receive() == ("B", encode_message(data(b"6")))
        await check_broken_off(client.stream("B"))
        stream = client.stream("B")
        await say(script, data(b"6, too"))
        assert await stream.receive_some() == b"6, too"
        assert await heard(client, script) == []


async def test_a_peer_that_left_takes_with_it_what_was_broken_off(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B") as (client, script):
        await close_before_the_peers_next(client, script, data(b"begun"))
        await trio.sleep(OPENING_PATIENCE)
        await say(script, data(bytes(CLAIM_BYTES)))
        await script.say(event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        stream = client.stream("B")
        await say(script, data(b"new"))
        assert await stream.receive_some() == b"new"


async def test_a_lost_connection_takes_with_it_what_was_broken_off(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(b"B", reconnect=Backoff()) as (client, script):
        await close_before_the_peers_next(client, script, data(b"begun"))
        await trio.sleep(OPENING_PATIENCE)
        await say(script, data(bytes(CLAIM_BYTES)))
        assert await heard(client, script) == [BROKEN]
        await script.hang_up()
        script = await scripted.welcome(b"B")
        stream = client.stream("B")
        await say(script, data(b"new"))
        assert await stream.receive_some() == b"new"


async def test_a_peer_that_leaves_takes_with_it_what_waited_for_the_next_stream(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await say(script, END, data(b"of a session that is gone"))
        await script.say(event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await stream.aclose()
        stream = client.stream("B")
        await say(script, data(b"new"))
        assert await stream.receive_some() == b"new"


async def test_a_peer_that_leaves_in_the_middle_of_a_message_holds_nothing(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await script.say(of_b(b"half a mess"), event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await stream.aclose()
        await script.say(of_b(b"raw"))
        assert await client.receive() == ("B", b"raw")


async def test_streams_that_the_peer_has_yet_to_end_are_waited_for_one_by_one(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        for _ in range(2):
            await client.stream("B").aclose()
        third = client.stream("B")
        await say(script, data(b"1"), END, data(b"2"), END, data(b"3"))
        assert await third.receive_some() == b"3"


async def test_a_peer_that_leaves_owes_no_end_any_more(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        second = client.stream("B")
        await script.say(event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await say(script, data(b"new"))
        await second.aclose()
        assert await client.stream("B").receive_some() == b"new"


async def test_a_late_stop_of_the_last_stream_does_not_stop_the_next(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        stream = client.stream("B")
        await say(script, STOP, END)
        await stream.send_all(b"goes on")
        assert await heard(client, script) == [STOP, END, data(b"goes on")]
