"""One task reads for all: whatever pieces the input comes in, each pair's frames arrive in order, and none is lost."""

from __future__ import annotations

import os
import select
import socket
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.in_memory import Client, running
from triorelay.protocol import LARGE_CHUNK
from triorelay.relay import Config, Session
from triorelay.relay._pump import BULK_A_PASS, LINGERS_A_PASS, READS_A_PASS, SPINS, EpollPoller, Pump
from triorelay.relay._session import SMALL_CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from triorelay.relay._pump import Watched

IDS = b"ABC"
ABSENT = b"Z"
frames = st.lists(st.tuples(st.sampled_from(IDS + ABSENT), st.integers(0, 255)), max_size=12)
steps = st.lists(st.tuples(st.sampled_from(IDS), frames, st.integers(0, 24)), max_size=20)
Pairs = dict[tuple[int, int], bytes]


def to_pairs(received: dict[int, bytes]) -> Pairs:
    """Return the data of each (source, destination) that has any."""
    pairs: Pairs = defaultdict(bytes)
    for destination, data in received.items():
        for at in range(0, len(data), 2):
            pairs[data[at], destination] += data[at + 1 : at + 2]
    return dict(pairs)


async def read_into(client: Client, received: dict[int, bytes], id: int) -> None:
    while more := await client.stream.receive_some():
        received[id] += more


async def write(client: Client, pieces: list[bytes]) -> None:
    for piece in pieces:
        await client.send(piece)
        await trio.testing.wait_all_tasks_blocked()


@settings(max_examples=60)
@given(script=steps, queue_bytes=st.sampled_from([2, 8, 65536]))
def test_each_pair_gets_all_of_its_frames_in_order(
    script: list[tuple[int, list[tuple[int, int]], int]], queue_bytes: int
) -> None:
    sent: Pairs = defaultdict(bytes)
    written: dict[int, list[bytes]] = defaultdict(list)
    for source, pairs, cut in script:
        data = b"".join(map(bytes, pairs))
        written[source] += [data[:cut], data[cut:]]
        for destination, byte in pairs:
            sent[source, destination] += bytes((byte,))
    lost = sum(len(sent.pop((source, ABSENT[0]), b"")) for source in IDS)

    async def main() -> None:
        received = dict.fromkeys(IDS, b"")
        async with running(Config(queue_bytes=queue_bytes, stall_timeout=0), capacity=16) as world:
            clients = {id: world.bound(bytes((id,))) for id in IDS}
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                for id, pieces in written.items():
                    nursery.start_soon(write, clients[id], pieces)
                for id in IDS:
                    nursery.start_soon(read_into, clients[id], received, id)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            assert to_pairs(received) == {pair: data for pair, data in sent.items() if data}
            assert world.dropped() == ({"no_route": lost} if lost else {})

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_message_alone_comes_before_floods_which_share_a_few_reads_a_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Config(queue_bytes=1 << 20)) as world:
        await world.bound(b"B").settle(b"B")
        ids = [bytes((id,)) for id in range(128, 148)]
        floods = {id[0]: world.bound(id) for id in ids}
        for id in ids:
            await floods[id[0]].settle(id)
        await world.bound(b"A").settle(b"A")
        registry, pump = world.relay.exchange.registry, world.relay.pump
        order: list[int] = []
        seen: set[int] = set()

        def noting(session: Session, data: bytes) -> None:
            def read(size: int) -> bytes:
                order.append(session.id)
                return data

            session.recv_nowait = read

        for session in registry:
            noting(session, b"B!" if session.id == 65 else b"B!" * 1000)
            session.chunk_size = SMALL_CHUNK if session.id == 65 else LARGE_CHUNK
        ready = [(session.connection.fileno, 1) for session in sorted(registry, key=lambda session: -session.id)]
        ready = [one for one in ready if one[0] != registry.holder(66).connection.fileno]  # type: ignore[union-attr]
        for turn in range(4):
            pump._bulk_left = BULK_A_PASS
            order.clear()
            assert pump._serve(ready)
            assert order[0] == 65
            assert len(order) == 1 + BULK_A_PASS
            if turn < 2:
                seen |= set(order[1:])
        assert len(seen) == 2 * BULK_A_PASS
        for session in registry:
            session.recv_nowait = session.connection.recv_nowait


class Endless:
    """A poller that never lacks input, and the source of that; it counts the reads and the waits of each pass."""

    fileno = 7

    def __init__(self, ready: int, passes: int) -> None:
        self.reads: list[int] = []
        self.lingers: list[int] = []
        self.over = trio.CancelScope()
        self.poll: Callable[[float, int], list[tuple[int, int]]] = lambda timeout, most: [(self.fileno, 1)] * ready
        self._passes = passes

    def receive(self) -> bool:
        self.reads[-1] += 1
        return True

    def register(self, connection: Watched) -> None:
        assert connection is self

    unregister = register

    async def wait(self) -> None:
        if len(self.reads) == self._passes:
            self.over.cancel()
        await trio.lowlevel.checkpoint()
        self.reads.append(0)
        self.lingers.append(0)

    def linger(self) -> list[tuple[int, int]]:
        self.lingers[-1] += 1
        return [(self.fileno, 1)]

    def close(self) -> None:
        pass


async def test_other_tasks_wait_for_some_reads_or_some_lingering_but_not_for_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as world:
        for ready, reads, lingers in (
            (100, 300, 0),
            (1, READS_A_PASS, 0),
            (0, LINGERS_A_PASS, LINGERS_A_PASS),
        ):
            endless = Endless(ready, passes=3)
            pump = Pump(world.relay.router, world.relay.exchange.round, endless)
            with pump.watching(endless), endless.over:
                await pump.run()
            assert endless.reads == [reads] * 3
            assert endless.lingers == [lingers] * 3


class Plain:
    """A socket as the pump sees a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno()


@pytest.mark.parametrize("processors", [{0}, {0, 1}], ids=["one processor", "two"])
def test_lingering_finds_input_that_is_there_or_comes_and_ends_without(
    processors: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: processors)
    one, two = socket.socketpair()
    poller = EpollPoller()
    with one, two:
        poller.register(Plain(one))
        assert not poller.linger()
        looks = 0
        poll = poller.poll

        def look(timeout: float, most: int) -> list[tuple[int, int]]:
            nonlocal looks
            looks += 1
            if looks == SPINS:
                two.send(b"A1")
            return poll(timeout, most)

        poller.poll = look
        several = len(processors) > 1
        assert bool(poller.linger()) is several
        assert looks == (SPINS if several else 0)
        two.send(b"A2")
        assert poller.linger() == [(one.fileno(), select.EPOLLIN)]
        poller.close()
