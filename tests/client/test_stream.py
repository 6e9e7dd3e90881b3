"""A byte stream to one peer, through the real relay."""

from __future__ import annotations

import random
import ssl
from array import array
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from tests.client.conftest import check_ledger
from tests.client.peer import Peer
from triorelay.client import Backoff, PeerStream, open_client
from triorelay.client._bare import open_bare_nursery
from triorelay.client._stream import ROUND
from triorelay.protocol import ConnectionLost, StreamKind
from triorelay.relay import Config
from triorelay.testing import MemoryRelay, open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import trustme
    from trio.testing import MockClock

    from tests.client.conftest import Listen
    from tests.client.scripted import ScriptedRelay
    from triorelay.client import Client

A, B = b"AB"


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([part async for part in stream])


@asynccontextmanager
async def pair(relay: MemoryRelay) -> AsyncIterator[tuple[Client, Client]]:
    async with relay.open_client("A") as a, relay.open_client("B") as b:
        await a.wait_for("B")
        yield a, b


async def send_forever(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(bytes(16_384))


async def send_until_it_breaks(stream: trio.abc.SendStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await send_forever(stream)


# -- what Trio asks of a stream


async def test_it_is_what_trio_calls_a_half_closeable_stream(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):

        async def make() -> tuple[PeerStream, PeerStream]:
            return a.stream("B"), b.stream("A")

        await trio.testing.check_half_closeable_stream(make, None)


async def test_it_is_one_when_it_is_clogged_too(autojump_clock: MockClock) -> None:
    async with open_relay(Config(stall_timeout=0)) as relay, pair(relay) as (a, b):

        async def make() -> tuple[PeerStream, PeerStream]:
            return a.stream("B"), b.stream("A")

        async def make_clogged() -> tuple[PeerStream, PeerStream]:
            streams = await make()
            for stream in streams:
                with trio.move_on_after(1):
                    await send_forever(stream)
            return streams

        await trio.testing.check_half_closeable_stream(make, make_clogged)


# -- what it carries


async def test_bytes_arrive_as_they_were_sent(relay: MemoryRelay) -> None:
    data = random.Random(1).randbytes(300_000)
    async with pair(relay) as (a, b), a.stream("B") as out, b.stream("A") as into, trio.open_nursery() as nursery:
        assert (out.peer, repr(out)) == ("B", "<triorelay.PeerStream to B>")

        async def send() -> None:
            await out.send_all(data)
            await out.send_eof()
            with assert_checkpoints():
                await out.send_eof()

        nursery.start_soon(send)
        assert await receive_all(into) == data


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("size", [1, 1000, 65_536, 65_537, 3_000_000])
async def test_writes_of_any_size_arrive_as_they_were_sent_by_every_transport(
    listen: Listen, transport: str, size: int
) -> None:
    data = random.Random(size).randbytes(min(3_000_000, 400 * size))
    listening = await listen()
    open_here = partial(open_client, getattr(listening, transport))
    if transport == "tls":
        open_here = partial(open_here, ssl_context=listening.trusting)
    async with open_here("A") as a, open_here("B") as b:
        await a.wait_for("B")
        async with a.stream("B") as out, b.stream("A") as into, trio.open_nursery() as nursery:

            async def send() -> None:
                for start in range(0, len(data), size):
                    await out.send_all(data[start : start + size])
                await out.send_eof()

            nursery.start_soon(send)
            assert await receive_all(into) == data


async def test_a_long_send_lets_other_tasks_run(listen: Listen) -> None:
    async with open_client((await listen()).unix, "A") as a, a.stream("A") as stream, trio.open_nursery() as nursery:
        done = False

        async def send() -> None:
            nonlocal done
            await stream.send_all(bytes(10 * ROUND))
            done = True

        nursery.start_soon(send)
        nursery.start_soon(receive_all, stream)
        turns = 0
        while not done:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns >= 10
        await stream.send_eof()


async def test_data_of_another_type_is_refused_and_the_stream_continues(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b), a.stream("B") as out, b.stream("A") as into:
        for wrong in ("text", 5, None):
            with pytest.raises(
                TypeError, match=r"data must be bytes, bytearray or memoryview, not .*: encode text first"
            ):
                await out.send_all(wrong)  # type: ignore[arg-type]
        await out.send_all(memoryview(array("I", [1])))
        assert await into.receive_some() == array("I", [1]).tobytes()


async def test_each_direction_ends_on_its_own(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b), a.stream("B") as one, b.stream("A") as other:
        await one.send_eof()
        assert await other.receive_some() == b""
        await other.send_all(b"answer")
        await other.send_eof()
        assert await receive_all(one) == b"answer"


@pytest.mark.parametrize("early", ["A", "B"])
async def test_what_is_sent_waits_until_the_peer_opens_its_side(relay: MemoryRelay, early: str) -> None:
    async with pair(relay) as (a, b), trio.open_nursery() as nursery:
        first, second = (a, b) if early == "A" else (b, a)
        async with first.stream(second.id) as out:
            nursery.start_soon(out.send_all, b"early")
            await wait_all_tasks_blocked()
            async with second.stream(first.id) as into:
                assert await into.receive_some() == b"early"


async def test_a_send_that_waits_for_the_peer_to_open_can_be_cancelled(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b), a.stream("B") as out:
        with trio.CancelScope() as scope:
            scope.cancel()
            await out.send_all(b"never sent")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.send_all, b"never sent")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with b.stream("A") as into:
            await out.send_all(b"sent")
            assert await into.receive_some() == b"sent"


@pytest.mark.parametrize("by", ["A", "B"])
async def test_a_stream_that_is_closed_before_the_peer_opens_its_side_ends_there(relay: MemoryRelay, by: str) -> None:
    async with pair(relay) as (a, b):
        first, second = (a, b) if by == "A" else (b, a)
        async with first.stream(second.id):
            await wait_all_tasks_blocked()
        async with second.stream(first.id) as late:
            assert await late.receive_some() == b""
            with pytest.raises(trio.BrokenResourceError, match=f"{by} reads no more from this stream"):
                await late.send_all(b"1")


@pytest.mark.parametrize("by", ["A", "B"])
async def test_a_stream_that_is_closed_before_the_peer_opens_its_side_is_replaced_by_the_next(
    relay: MemoryRelay, by: str
) -> None:
    async with pair(relay) as (a, b):
        first, second = (a, b) if by == "A" else (b, a)
        for _ in range(3):
            async with first.stream(second.id):
                await wait_all_tasks_blocked()
        async with first.stream(second.id) as out, second.stream(first.id) as into:
            await out.send_all(b"to the last one")
            assert await into.receive_some() == b"to the last one"


async def test_a_client_may_have_a_stream_to_itself(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.stream("A") as stream:
        await stream.send_all(b"echo")
        assert await stream.receive_some() == b"echo"
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_a_stream_may_be_opened_before_the_peer_is_there(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, a.stream("B") as out, relay.open_client("B") as b, b.stream("A") as into:
        await a.wait_for("B")
        await out.send_all(b"1")
        assert await into.receive_some() == b"1"


async def test_a_client_that_comes_back_has_streams_that_know_nothing_of_its_last_ones(relay: MemoryRelay) -> None:
    async with relay.open_client("B") as b:
        for turn in range(3):
            async with relay.open_client("A") as a:
                unopened = a.stream("B")
                await wait_all_tasks_blocked()
            await unopened.aclose()
            async with relay.open_client("A") as a, a.stream("B") as out, b.stream("A") as into:
                await out.send_all(bytes((turn,)))
                assert await into.receive_some() == bytes((turn,))


async def test_streams_follow_one_another(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        for turn in range(5):
            text = f"turn {turn}".encode()
            async with a.stream("B") as out, b.stream("A") as into:
                await out.send_all(text)
                await out.send_eof()
                await into.send_eof()
                assert await receive_all(into) == text
                assert await receive_all(out) == b""
        for client in (a, b):
            with trio.move_on_after(0) as nothing_left:
                await client.receive()
            assert nothing_left.cancelled_caught


async def test_the_next_stream_may_begin_before_the_peer_has_closed_the_last(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        texts = (b"one", b"two", b"three")

        async def send() -> None:
            for text in texts:
                async with a.stream("B") as out:
                    await out.send_all(text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for text in texts:
                async with b.stream("A") as into:
                    assert await receive_all(into) == text
                    await wait_all_tasks_blocked()


async def test_late_bytes_of_a_closed_stream_are_discarded(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        into = b.stream("A")
        out = a.stream("B")
        await out.send_all(b"in time")
        assert await into.receive_some() == b"in time"
        await out.send_all(b"late")
        await into.aclose()
        await a.flush()
        async with b.stream("A") as second, trio.open_nursery() as nursery:

            async def begin_again() -> None:
                await out.aclose()
                async with a.stream("B") as out_again:
                    await out_again.send_all(b"new")

            nursery.start_soon(begin_again)
            assert await receive_all(second) == b"new"


async def test_raw_data_goes_its_own_way_once_both_ends_are_closed(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        async with a.stream("B"), b.stream("A"):
            pass
        await wait_all_tasks_blocked()
        await a.send("B", b"raw")
        assert await b.receive() == ("A", b"raw")


class Partner:
    """A client that opens streams to another one, uses each for a while in some way, leaves, and comes back.

    Attributes:
        sent: what each of its streams was given to send, by label; its first four bytes are the label.
        received: what each of its streams received, by label.
        is_heard: whether the other one has received something since this one came for the last time.
    """

    def __init__(self, relay: MemoryRelay, id: str, peer: str, chance: random.Random) -> None:
        self._relay, self._id, self._peer, self._chance = relay, id, peer, chance
        self.sent: dict[int, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.is_heard = False

    async def live(self, labels: Iterator[int], other: Partner) -> None:
        for _ in range(6):
            async with self._relay.open_client(self._id) as client:
                for _ in range(self._chance.randint(0, 4)):
                    await trio.sleep(self._chance.choice([0, 0, 1, 3]))
                    with suppress(trio.BrokenResourceError):
                        await self._use(client, next(labels))
                await trio.sleep(self._chance.choice([0, 1]))
        # Whatever happened before, in the end both hear from one another.
        async with self._relay.open_client(self._id) as client:
            self.is_heard = False
            while not (self.is_heard and other.is_heard):
                label = next(labels)
                with suppress(trio.BrokenResourceError):
                    await self._use(client, label)
                other.is_heard = other.is_heard or bool(self.received[label])
                await trio.sleep(self._chance.random())

    async def _use(self, client: Client, label: int) -> None:
        self.sent[label] = label.to_bytes(4) + self._chance.randbytes(self._chance.choice([0, 50, 100_000]))
        self.received[label] = b""
        with trio.move_on_after(self._chance.choice([0, 0.5, 2, 8])):
            async with client.stream(self._peer) as stream, open_bare_nursery() as nursery:
                nursery.start_soon(self._send, client, stream, self.sent[label])
                if self._chance.random() < 0.9:
                    async for part in stream:
                        self.received[label] += part

    async def _send(self, client: Client, stream: PeerStream, data: bytes) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await client.wait_for(self._peer)
            await stream.send_all(data)
            if self._chance.random() < 0.5:
                await stream.send_eof()


@pytest.mark.parametrize("seed", range(8))
async def test_streams_of_clients_that_come_and_go_never_mix(
    relay: MemoryRelay, autojump_clock: MockClock, seed: int
) -> None:
    chance, labels = random.Random(seed), count(1)
    a, b = Partner(relay, "A", "B", chance), Partner(relay, "B", "A", chance)
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.live, labels, b)
            nursery.start_soon(b.live, labels, a)
    partners: dict[int, int] = {}
    for one, other in ((a, b), (b, a)):
        for label, received in one.received.items():
            if len(received) >= 4:
                partners[label] = int.from_bytes(received[:4])
                assert other.sent[partners[label]].startswith(received)
    assert partners
    assert all(partners.get(partner, label) == label for label, partner in partners.items())


# -- how it breaks


async def test_a_peer_that_leaves_breaks_it_after_its_last_byte(relay: MemoryRelay, nursery: trio.Nursery) -> None:
    async with relay.open_client("A") as a:
        async with relay.open_client("B") as left:
            into, out = a.stream("B"), left.stream("A")
            await out.send_all(b"last")
        assert await into.receive_some() == b"last"
        for call in (into.receive_some, lambda: into.send_all(b"1"), into.send_eof):
            with pytest.raises(trio.BrokenResourceError, match="the stream to B is broken: it left"):
                await call()
        await into.aclose()


@pytest.mark.parametrize("opened", [True, False])
async def test_a_peer_that_leaves_wakes_a_sender(relay: MemoryRelay, opened: bool) -> None:
    async with relay.open_client("A") as a, trio.open_nursery() as nursery, relay.open_client("B") as peer:
        await a.wait_for("B")
        out = a.stream("B")

        async def send_on() -> None:
            while True:  # a client that leaves reads on for a while, so one piece may still be taken
                await out.send_all(bytes(1_000_000))

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError, match=r"it left|frames to it were dropped"):
                await send_on()

        nursery.start_soon(send)
        if opened:
            peer.stream("A")
        await wait_all_tasks_blocked()


async def test_a_peer_that_was_never_there_breaks_it(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a:
        out = a.stream("B")
        for call in (partial(out.send_all, b"1"), out.wait_send_all_might_not_block):
            with pytest.raises(trio.BrokenResourceError, match=r"no client holds B; wait_for\(\) waits until one does"):
                await call()


async def test_an_end_of_file_before_leaving_is_no_break(relay: MemoryRelay, nursery: trio.Nursery) -> None:
    async with relay.open_client("A") as a:
        async with relay.open_client("B") as b, b.stream("A") as out:
            into = a.stream("B")
            await out.send_all(b"all of it")
        assert await receive_all(into) == b"all of it"
        with pytest.raises(trio.BrokenResourceError):
            await into.send_all(b"too late")


async def test_a_cancelled_close_is_a_break_for_the_peer(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        out, into = a.stream("B"), b.stream("A")
        await out.send_all(b"half of i")
        await trio.aclose_forcefully(out)
        assert await into.receive_some() == b"half of i"
        with pytest.raises(trio.BrokenResourceError, match="it broke the stream off"):
            await into.receive_some()


async def test_dropped_frames_break_both_ends(autojump_clock: MockClock) -> None:
    config = Config(overflow="drop", queue_bytes=40_000, stall_timeout=0)
    async with open_relay(config, capacity=1000) as relay:
        async with pair(relay) as (a, b):
            out, into = a.stream("B"), b.stream("A")
            with pytest.raises(trio.BrokenResourceError, match="frames to it were dropped"):
                await send_forever(out)
            with pytest.raises(trio.BrokenResourceError):
                await receive_all(into)
        check_ledger(relay.relay)


async def test_a_damaged_message_breaks_it(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        into = client.stream("B")
        peer = await Peer(script).meet()
        await peer.say(b"good")
        assert await into.receive_some() == b"good"
        await script.say(peer.frames(b"damaged\0"))
        with pytest.raises(trio.BrokenResourceError, match="a message from it arrived damaged"):
            await into.receive_some()
        assert await peer.heard(client) == [StreamKind.BROKEN]


async def test_a_peer_that_speaks_something_else_breaks_it(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B") as (client, script):
        into = client.stream("B")
        await Peer(script).say_whole(b"\x09?")
        with pytest.raises(trio.BrokenResourceError, match="begins with its kind"):
            await into.receive_some()


async def test_a_lost_relay_breaks_it(scripted: ScriptedRelay) -> None:
    async with scripted.client(b"B", goodbye=False) as (client, script):
        stream = client.stream("B")
        await Peer(script).meet()
        script.take_no_more()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError, match="the stream to B is broken: the connection"):
                    await stream.send_all(bytes(1_000_000))

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await script.hang_up()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(ConnectionLost):
            await client.flush()


async def test_a_stream_may_be_opened_and_closed_while_the_relay_is_away(scripted: ScriptedRelay) -> None:
    async with scripted.client(goodbye=False, reconnect=Backoff(first=10)) as (client, script):
        await script.hang_up()
        async with client.stream("B"):
            pass


async def test_leaving_the_client_closes_it(relay: MemoryRelay) -> None:
    async with relay.open_client("A") as a, relay.open_client("B"):
        stream = a.stream("B")
    with pytest.raises(trio.ClosedResourceError, match="this client is closed"):
        await stream.send_all(b"1")
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError, match="this stream is closed"):
        await stream.receive_some()


async def test_a_peer_that_stops_reading_after_our_end_is_not_forgotten(relay: MemoryRelay) -> None:
    async with pair(relay) as (a, b):
        asking, answering = a.stream("B"), b.stream("A")
        await asking.send_eof()
        await asking.aclose()
        with pytest.raises(trio.BrokenResourceError, match="A reads no more from this stream"):
            await send_forever(answering)


# -- beside others


async def flood(client: Client, destination: str) -> None:
    while True:
        await client.send(destination, bytes(32_768))


async def discard(client: Client) -> None:
    with suppress(trio.ClosedResourceError):
        async for _ in client:
            pass


@asynccontextmanager
async def over_tls(
    out: PeerStream, into: PeerStream, authority: trustme.CA
) -> AsyncIterator[tuple[trio.SSLStream[PeerStream], trio.SSLStream[PeerStream]]]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("b.invalid").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    yield (
        trio.SSLStream(out, client, server_hostname="b.invalid"),
        trio.SSLStream(into, server, server_side=True),
    )


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
async def test_tls_from_end_to_end_by_every_transport_while_a_third_client_floods(
    listen: Listen, authority: trustme.CA, transport: str
) -> None:
    secret = bytes(range(256)) * 1000
    listening = await listen()
    open_here = partial(open_client, getattr(listening, transport))
    if transport == "tls":
        open_here = partial(open_here, ssl_context=listening.trusting)
    async with (
        trio.open_nursery() as receiving,
        open_here("A") as a,
        open_here("B") as b,
        open_here("C") as c,
        trio.open_nursery() as flooding,
    ):
        await a.wait_for("B")
        receiving.start_soon(discard, b)
        flooding.start_soon(flood, c, "B")
        async with over_tls(a.stream("B"), b.stream("A"), authority) as (out, into), trio.open_nursery() as nursery:

            async def send() -> None:
                await out.send_all(secret)
                await out.aclose()

            nursery.start_soon(send)
            assert await receive_all(into) == secret
        flooding.cancel_scope.cancel()


class Tap:
    """A connection to the relay that keeps a copy of all that comes out of it."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, seen: bytearray) -> None:
        self._stream = stream
        self._seen = seen

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._seen += data
        return data


@asynccontextmanager
async def flooded(seen: bytearray, received: trio.Event) -> AsyncIterator[tuple[PeerStream, PeerStream]]:
    """Two ends of a stream, A's and B's, while C floods B, which receives the flood once the test asks for it."""
    async with open_relay(Config(stall_timeout=0)) as relay:

        async def connect() -> Tap:
            return Tap(relay.connect(), seen)

        async with (
            trio.open_nursery() as receiving,
            relay.open_client("A") as a,
            open_client(connect, "B") as b,  # type: ignore[arg-type]
            relay.open_client("C") as c,
            trio.open_nursery() as flooding,
        ):

            async def receive() -> None:
                await received.wait()
                await discard(b)

            receiving.start_soon(receive)
            flooding.start_soon(flood, c, "B")
            yield a.stream("B"), b.stream("A")
            flooding.cancel_scope.cancel()
        check_ledger(relay.relay)


async def test_tls_from_end_to_end_while_a_third_client_floods(
    authority: trustme.CA, autojump_clock: MockClock
) -> None:
    secret, seen, received = b"the relay sees only ciphertext" * 2000, bytearray(), trio.Event()
    received.set()
    async with (
        flooded(seen, received) as (out, into),
        over_tls(out, into, authority) as (sender, receiver),
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            await sender.send_all(secret)
            await sender.aclose()

        nursery.start_soon(send)
        assert await receive_all(receiver) == secret
    from_a = bytes(data for source, data in zip(seen[0::2], seen[1::2], strict=True) if source == A)
    assert len(from_a) > len(secret)
    assert secret[:8] not in from_a


async def test_a_stream_that_is_not_opened_stops_no_other_client(autojump_clock: MockClock) -> None:
    async with (
        open_relay() as relay,
        pair(relay) as (a, b),
        relay.open_client("C") as c,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            unopened = b.stream("A")
            with trio.move_on_after(20) as waiting:
                await send_forever(unopened)
            assert waiting.cancelled_caught
            await c.send("A", b"1")
            with trio.fail_after(1):
                while (await a.receive())[0] != "C":
                    pass
            nursery.start_soon(send_until_it_breaks, unopened)
            async with a.stream("B") as opened:
                assert set(await opened.receive_some()) == {0}
            await unopened.aclose()


async def test_a_flood_that_no_task_receives_stops_the_stream_until_one_does(autojump_clock: MockClock) -> None:
    received = trio.Event()
    async with flooded(bytearray(), received) as (out, into):
        await wait_all_tasks_blocked()
        await out.send_all(b"behind the flood")
        with trio.move_on_after(60) as waiting:
            await into.receive_some()
        assert waiting.cancelled_caught
        received.set()
        assert await into.receive_some() == b"behind the flood"
