"""What arrives for a stream, byte by byte, and what is answered."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.client.peer import Peer
from tests.client.scripted import event
from triorelay.client import Backoff
from triorelay.client._inbox import CLAIM_BYTES
from triorelay.client._stream import BLOCK, ROUND
from triorelay.protocol import ConnectionLost, EventCode, StreamKind, encode_message
from triorelay.protocol._streams import STREAM_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.client.scripted import Script, ScriptedRelay
    from triorelay.client import Client, PeerStream

B, C = b"BC"

END, CLOSE, BROKEN = StreamKind.END, StreamKind.CLOSE, StreamKind.BROKEN

LOWER = b"3"
"""The id of a peer with a lower id than the client under test, which is A."""


@asynccontextmanager
async def met(scripted: ScriptedRelay) -> AsyncIterator[tuple[Client, Script, PeerStream, Peer]]:
    """Open a stream from the client A to a peer B, on both sides."""
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        yield client, script, stream, await Peer(script).meet()


async def test_each_side_uses_the_number_that_the_other_gave(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        peer = await Peer(script, own=0x01020304).meet()
        await stream.send_all(b"12")
        await stream.send_eof()
        sent = encode_message(b"\x00\x01\x02\x03\x0412") + encode_message(b"\x01\x01\x02\x03\x04")
        assert await script.read(2 * len(sent)) == peer.frames(sent)
        await peer.say(b"34", END)
        assert await stream.receive_some(1) == b"3"
        assert await stream.receive_some(1) == b"4"
        assert await stream.receive_some() == b""


async def test_the_higher_id_answers_an_opening(scripted: ScriptedRelay) -> None:
    async with scripted.client(LOWER) as (client, script):
        stream = client.stream(LOWER)
        peer = Peer(script, LOWER)
        await peer.hear_opening()
        await peer.meet_first()
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_the_higher_id_answers_an_opening_that_came_before_its_own(scripted: ScriptedRelay) -> None:
    async with scripted.client(LOWER) as (client, script):
        peer = Peer(script, LOWER)
        await peer.say_whole(peer.opening())
        stream = client.stream(LOWER)
        await peer.hear_opening(peer.own)
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_the_lower_id_repeats_its_opening_to_a_peer_that_opens_later(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await Peer(script).hear_opening()
        peer = await Peer(script).meet_first()
        await peer.say_whole(peer.opening())
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_the_lower_id_opens_once_where_the_peer_was_earlier(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        peer = Peer(script)
        await peer.say_whole(peer.opening())
        stream = client.stream("B")
        await peer.meet()
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_nothing_is_said_before_the_peer_is_there(scripted: ScriptedRelay) -> None:
    async with scripted.client() as (client, script):
        stream = client.stream("B")
        with pytest.raises(trio.BrokenResourceError, match=r"no client holds B; wait_for\(\) waits until one does"):
            await stream.send_all(b"1")
        assert await Peer(script).heard_whole(client) == []
        await script.say(event(EventCode.JOINED, B))
        peer = await Peer(script).meet()
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


@pytest.mark.parametrize("id", [b"B", LOWER])
async def test_a_stream_that_was_opened_while_the_relay_was_away_begins_with_the_next_connection(
    scripted: ScriptedRelay, id: bytes
) -> None:
    async with scripted.client(id, reconnect=Backoff()) as (client, script):
        await script.hang_up()
        stream = client.stream(id)
        script = await scripted.accept()
        assert await script.read(2) == b"A\x82"
        peer = Peer(script, id)
        early = peer.frames(encode_message(peer.opening()))
        joined = [event(EventCode.JOINED, other) for other in b"A" + id]
        await script.say(b"A\0", *joined, event(EventCode.SYNCED), early)
        if id == LOWER:
            await peer.hear_opening(peer.own)
        else:
            await peer.meet()
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_a_stream_that_broke_with_the_connection_does_not_begin_with_the_next(
    scripted: ScriptedRelay, autojump_clock: MockClock
) -> None:
    async with scripted.client(reconnect=Backoff()) as (client, script):
        stream = client.stream("B")
        await script.hang_up()
        script = await scripted.welcome(b"B")
        assert await Peer(script).heard_whole(client) == []
        with pytest.raises(trio.BrokenResourceError, match="the connection to the relay was lost"):
            await stream.receive_some()


async def test_closing_is_said_once_also_after_an_end_of_file(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, _, stream, peer):
        await stream.send_eof()
        await stream.aclose()
        await stream.aclose()
        assert await peer.heard(client) == [END, CLOSE]


@pytest.mark.parametrize("late", [b"", bytes((CLOSE,)), bytes((BROKEN,))])
async def test_after_both_ends_of_file_nothing_is_said_and_one_late_message_is_discarded(
    scripted: ScriptedRelay, late: bytes
) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await stream.send_eof()
        await peer.say(END)
        await stream.aclose()
        assert await peer.heard(client) == [END]
        message = encode_message(peer.message(StreamKind(late[0]))) if late else b""
        for byte in message:
            await script.say(peer.frames(bytes((byte,))))
        await script.say(peer.frames(b"\2raw"))
        assert await client.receive() == ("B", b"\2raw")


@pytest.mark.parametrize("last", [(CLOSE,), (BROKEN,), (END, CLOSE), (END, BROKEN)])
async def test_the_last_message_of_a_peer_frees_it_for_other_uses(
    scripted: ScriptedRelay, last: tuple[StreamKind, ...]
) -> None:
    for closes_first in (False, True):
        async with met(scripted) as (client, _, stream, peer):
            await stream.send_eof()
            if closes_first:
                await stream.aclose()
            for kind in last:
                await peer.say(kind)
            await stream.aclose()
            await client.channel("B").aclose()


async def test_a_peer_that_closes_after_its_end_of_file_stops_the_sender(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (_, _, stream, peer):
        await peer.say(END)
        await peer.say(CLOSE)
        with pytest.raises(trio.BrokenResourceError, match="B reads no more from this stream"):
            await stream.send_all(b"1")


async def test_what_arrives_does_not_release_a_sender_that_waits_for_room(
    scripted: ScriptedRelay, nursery: trio.Nursery
) -> None:
    async with met(scripted) as (_, script, stream, peer):
        resume = script.take_no_more()
        sent = trio.Event()

        async def send() -> None:
            await stream.send_all(bytes(2 * ROUND))
            sent.set()

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        for _ in range(2 * ROUND // BLOCK):
            await peer.say(b"1")
        assert not sent.is_set()
        resume()
        await script.read(2 * 2 * ROUND)
        await sent.wait()


async def test_leaving_reports_a_loss_of_what_only_a_stream_sent(scripted: ScriptedRelay) -> None:
    async def run() -> None:
        async with scripted.client(b"B", goodbye=False) as (client, script):
            stream = client.stream("B")
            peer = await Peer(script).meet()
            assert await peer.heard(client) == []
            await stream.send_all(b"1")
            await script.hang_up()

    with pytest.raises(ConnectionLost):
        await run()


async def test_leaving_reports_nothing_of_a_stream_that_closes_meanwhile(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B", goodbye=False) as (client, script), trio.open_nursery() as leaving:
        stream = client.stream("B")
        peer = await Peer(script).meet()
        leaving.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        await stream.aclose()
        assert await script.answer_flush() == b""
        last = peer.frames(encode_message(bytes((CLOSE,)) + peer.own.to_bytes(4)))
        assert await script.read(len(last)) == last
        assert await script.stream.receive_some() == b""
        await script.hang_up()


async def test_raw_data_may_follow_a_late_message_at_once(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await stream.send_eof()
        await peer.say(END)
        await stream.aclose()
        await script.say(peer.frames(encode_message(peer.message(CLOSE)) + b"raw"))
        assert await client.receive() == ("B", b"raw")


@pytest.mark.parametrize("closes_first", [False, True])
@pytest.mark.parametrize("last", [[END], [END, CLOSE], [END, BROKEN], [CLOSE]])
async def test_raw_data_follows_the_last_messages_in_whatever_pieces_they_come(
    scripted: ScriptedRelay, last: list[StreamKind], closes_first: bool
) -> None:
    raw = b"\2r\0w"
    length = len(encode_message(bytes(STREAM_HEADER)))
    # A stream that is open takes all that comes, so it has to close before the raw data.
    cuts = range(len(last) * length + len(raw)) if closes_first else range(length, len(last) * length + 1)
    for cut in cuts:
        async with met(scripted) as (client, script, stream, peer):
            data = b"".join(encode_message(peer.message(kind)) for kind in last) + raw
            assert len(data) == len(last) * length + len(raw)
            await stream.send_eof()
            if closes_first:
                await stream.aclose()
            await script.say(peer.frames(data[:cut]))
            await stream.aclose()
            await script.say(peer.frames(data[cut:]))
            received = b""
            while len(received) < len(raw):
                received += client.receive_nowait()[1]
            assert received == raw


async def test_the_next_stream_may_begin_in_the_middle_of_a_late_message(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await stream.send_eof()
        await peer.say(END)
        await stream.aclose()
        assert await peer.heard(client) == [END]
        late = encode_message(peer.message(CLOSE))
        await script.say(peer.frames(late[:4]))
        stream = client.stream("B")
        await script.say(peer.frames(late[4:]))
        following = await Peer(script, own=8).meet()
        await following.say(b"1")
        assert await stream.receive_some() == b"1"


async def test_a_cancelled_close_says_broken_instead(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, _, stream, peer):
        await trio.aclose_forcefully(stream)
        assert await peer.heard(client) == [BROKEN]


async def test_what_is_said_before_the_peer_has_opened_its_side_follows_then(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        await stream.send_eof()
        await stream.aclose()
        peer = await Peer(script).meet()
        assert await peer.heard(client) == [END, CLOSE]


async def test_a_stream_that_breaks_here_is_broken_there_once(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await script.say(event(EventCode.DROPPED, B), event(EventCode.DROPPED, B))
        await stream.aclose()
        assert await peer.heard(client) == [BROKEN]


async def test_an_opening_that_comes_too_late_for_a_peer_is_no_loss(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B", strict=True) as (client, script):
        stream = client.stream("B")
        await script.say(event(EventCode.LEFT, B))
        await stream.aclose()
        stream = client.stream("B")
        await script.say(event(EventCode.NO_ROUTE, B), event(EventCode.JOINED, B))
        await Peer(script).hear_opening()
        peer = await Peer(script).meet()
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


@pytest.mark.parametrize("code", [EventCode.LEFT, EventCode.NO_ROUTE])
async def test_nothing_is_said_to_a_peer_that_is_gone(scripted: ScriptedRelay, code: EventCode) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await script.say(event(code, B))
        await stream.aclose()
        assert await peer.heard(client) == []


async def test_a_close_is_said_even_to_a_peer_that_broke_the_stream(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await peer.say(BROKEN)
        await script.say(event(EventCode.LEFT, C))
        with pytest.raises(trio.BrokenResourceError, match="it broke the stream off"):
            await stream.receive_some()
        await stream.aclose()
        assert await peer.heard(client) == [CLOSE]


async def test_what_broke_a_stream_first_is_what_it_says(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (_, script, stream, peer):
        await peer.say(BROKEN)
        await script.say(event(EventCode.LEFT, B))
        with pytest.raises(trio.BrokenResourceError, match="it broke the stream off"):
            await stream.receive_some()


async def test_a_stream_that_broke_with_the_connection_reports_the_loss(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B", goodbye=False) as (client, script):
        stream = client.stream("B")
        await Peer(script).meet()
        await stream.send_all(b"1")
        await script.hang_up()
        with pytest.raises(trio.BrokenResourceError, match="the connection to the relay was lost"):
            await stream.receive_some()


async def test_what_an_earlier_session_left_unfinished_is_no_damage(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        stream = client.stream("B")
        peer = Peer(script)
        await script.say(peer.frames(b"left over\0"))
        await peer.meet()
        for text in (b"one", b"two"):
            await peer.say(text)
            assert await stream.receive_some() == text


async def test_messages_with_another_number_are_of_no_matter(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        other = Peer(script, own=8)
        other.number = peer.number ^ 1
        await other.say(b"of an earlier stream", END, CLOSE, BROKEN)
        await other.say_whole(other.opening())
        await peer.say(b"of this one")
        assert await stream.receive_some() == b"of this one"
        await stream.send_all(b"goes on")
        assert await peer.heard(client) == [b"goes on"]


async def test_the_next_stream_begins_in_the_middle_of_a_message_of_the_last(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        first = client.stream("B")
        peer = await Peer(script).meet()
        begun = encode_message(peer.message(StreamKind.DATA, b"late"))
        await script.say(peer.frames(begun[:4]))
        await first.aclose()
        assert await peer.heard(client) == [CLOSE]
        second = client.stream("B")
        await script.say(peer.frames(begun[4:]))
        await peer.say(CLOSE)
        following = await Peer(script).meet()
        assert following.number != peer.number
        await following.say(b"second")
        assert await second.receive_some() == b"second"


async def test_the_next_stream_takes_the_answer_to_the_opening_of_one_that_was_closed_before(
    scripted: ScriptedRelay,
) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        stream = client.stream("B")
        peer = await Peer(script).meet()
        assert await peer.heard_whole(client) == []
        await stream.send_all(b"1")
        assert await peer.heard(client) == [b"1"]


async def test_a_peer_that_begins_its_next_stream_has_ended_this_one(scripted: ScriptedRelay) -> None:
    async with scripted.client(LOWER) as (client, script):
        stream = client.stream(LOWER)
        peer = Peer(script, LOWER)
        await peer.hear_opening()
        await peer.meet_first()
        await peer.say(b"1")
        following = Peer(script, LOWER, own=8)
        await following.say_whole(following.opening())
        assert await stream.receive_some() == b"1"
        with pytest.raises(trio.BrokenResourceError, match="it broke the stream off"):
            await stream.receive_some()


async def test_the_last_of_several_waiting_openings_counts(scripted: ScriptedRelay) -> None:
    async with scripted.client(LOWER) as (client, script):
        for own in (7, 8):
            await script.say(event(EventCode.LEFT, LOWER[0]), event(EventCode.JOINED, LOWER[0]))
            peer = Peer(script, LOWER, own)
            await peer.say_whole(peer.opening())
        stream = client.stream(LOWER)
        for own in (7, 8):
            await peer.hear_opening(own)
        await peer.say(b"1")
        assert await stream.receive_some() == b"1"


async def test_what_is_not_received_is_bounded(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await peer.say(bytes(CLAIM_BYTES))
        await script.say(event(EventCode.JOINED, C))
        assert "C" not in client.peers
        assert await stream.receive_some() == bytes(CLAIM_BYTES)
        await wait_all_tasks_blocked()
        assert "C" in client.peers


async def test_what_comes_after_closing_is_discarded_and_stops_nothing_else(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await peer.say(bytes(CLAIM_BYTES))
        await stream.aclose()
        for _ in range(3):
            await peer.say(bytes(CLAIM_BYTES))
        await script.say(event(EventCode.JOINED, C))
        assert "C" in client.peers
        await peer.say(CLOSE)
        await script.say(peer.frames(b"raw"))
        assert await client.receive() == ("B", b"raw")


async def test_a_closed_stream_holds_nothing_of_a_peer_that_leaves(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        await client.stream("B").aclose()
        await script.say(event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await script.say(Peer(script).frames(b"raw"))
        assert await client.receive() == ("B", b"raw")


async def test_a_peer_that_leaves_in_the_middle_of_a_message_holds_nothing(scripted: ScriptedRelay) -> None:
    async with met(scripted) as (client, script, stream, peer):
        await script.say(peer.frames(b"half a mess"), event(EventCode.LEFT, B), event(EventCode.JOINED, B))
        await stream.aclose()
        await script.say(peer.frames(b"raw"))
        assert await client.receive() == ("B", b"raw")


@pytest.mark.parametrize("id", [b"B", LOWER])
async def test_a_broken_stream_is_not_joined_by_a_peer_that_comes_back(scripted: ScriptedRelay, id: bytes) -> None:
    async with scripted.client(id) as (client, script):
        stream = client.stream(id)
        await script.say(event(EventCode.LEFT, id[0]), event(EventCode.JOINED, id[0]))
        peer = Peer(script, id)
        await peer.hear_opening()
        for number in (0, peer.number):
            await peer.say_whole(peer.opening(number))
        with pytest.raises(trio.BrokenResourceError, match="it left"):
            await stream.receive_some()
        assert await peer.heard_whole(client) == []
