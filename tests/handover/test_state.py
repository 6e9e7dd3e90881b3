"""The state of a relay as bytes: what a successor reads, of every version, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.handover.record import HOLD, recorded
from tests.relay.in_memory import running
from triorelay.handover._state import READABLE, VERSION, BadState, PeerState, decode, encode
from triorelay.protocol import EventCode, HelloOption, encode_event, encode_hello
from triorelay.relay import Config, Relay, capture, restore
from triorelay.relay._connection import Peer
from triorelay.relay._server import run_relay
from triorelay.relay._session import FLUSHES_AT_ONCE
from triorelay.testing._memory import MemoryListener, MemoryPoller

if TYPE_CHECKING:
    from trio.testing import MockClock

    from triorelay.testing._memory import MemoryConnection

QUEUED, ACCEPTED = 37, 40
STATES = Path(__file__).parent / "states"


def test_there_is_a_recorded_state_of_every_version_that_can_be_read() -> None:
    assert sorted(int(path.stem) for path in STATES.glob("*.msgpack")) == sorted(READABLE)


@pytest.mark.parametrize("version", READABLE)
async def test_a_relay_continues_from_a_recorded_state_of_every_version(version: int) -> None:
    state = decode((STATES / f"{version}.msgpack").read_bytes())
    listener = MemoryListener()
    connections = [listener.connection(peer.peer()) for peer in state.peers]
    relay = Relay(Config(hold_frames=HOLD))
    restore(relay, state.relay, connections)
    assert relay.exchange.registry.ids() == [*b"ABCN"]
    assert [session.shared for session in relay.exchange.registry.holders(ord("N"))] == [True, True]
    assert [session.waiting_for for session in relay.exchange.registry] == [None, None, ord("B"), None, None]
    assert relay.exchange.queued_frames() == QUEUED
    holder = relay.exchange.registry.holder(ord("A"))
    assert holder is not None
    assert (holder.half, len(holder.flushes), holder.events) == (b"B", 1, True)
    assert sum(relay.ledger.accepted) == ACCEPTED
    # What is captured of it is what it was made of, but for what time has changed.
    again, _ = capture(relay)
    assert replace_times(again) == replace_times(state.relay)


async def test_a_sender_that_waits_for_several_queues_waits_for_the_same_afterwards(autojump_clock: MockClock) -> None:
    def waits(relay: Relay) -> list[tuple[int, int | None, int, int]]:
        sessions = relay.exchange.registry
        return [(one.id, one.waiting_for, one.waits, len(one.flushes)) for one in sessions]

    config = Config(queue_bytes=64, stall_timeout=0)
    async with running(config, capacity=4) as world:
        clients = [await world.claim(name) for name in (b"A", b"B", b"F", b"G")]
        clients.append(await world.claim(b"C", HelloOption.EVENTS))
        asker = await world.claim(b"E", HelloOption.EVENTS)
        flushes = encode_event(EventCode.FLUSH, 3) * FLUSHES_AT_ONCE
        async with trio.open_nursery() as nursery:
            for client, frames in ((4, b"B3B3B3" + flushes), (2, b"B!" * 80), (3, b"C!" * 80), (0, b"C1B1")):
                nursery.start_soon(clients[client].send, frames)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(
                asker.send, encode_event(EventCode.FLUSH, 1) + b"C2B2" + encode_event(EventCode.FLUSH, 2)
            )
            await trio.testing.wait_all_tasks_blocked()
            state, connections = capture(world.relay)
            before = waits(world.relay)
            nursery.cancel_scope.cancel()
    assert [one[:3] for one in before if one[2]] == [(65, 66, 2), (67, None, 1), (69, 66, 2), (70, 66, 1), (71, 67, 1)]
    listener, relay = MemoryListener(), Relay(config)
    restore(relay, state, [listener.connection(one.peer) for one in connections])
    assert waits(relay) == before
    assert replace_times(capture(relay)[0]) == replace_times(state)


async def test_a_flush_of_a_client_that_sends_no_more_waits_for_the_same_frames_afterwards(
    autojump_clock: MockClock,
) -> None:
    async with running(Config(stall_timeout=0), capacity=4) as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        b = await world.claim(b"B")
        await a.send(b"B1B2B3B4" + encode_event(EventCode.FLUSH, 7))
        await a.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        state, connections = capture(world.relay)
        successor = Relay(Config())
        restore(successor, state, connections)
        (asker,) = [session for session in successor.exchange.sessions if session.freed.is_set()]
        assert (asker.id, bytes(asker.flushes)) == (ord("A"), b"\7")
        (receiver,) = successor.exchange.registry.holders(ord("B"))
        assert await b.stream.receive_some() == b"A1A2"
        receiver.outbox.write_more()
        assert await b.stream.receive_some() == b"A3A4"
        assert not asker.flushes


def replace_times(state: object) -> object:
    """Return the state as plain data without what depends on the clock."""
    plain = msgspec.to_builtins(state)
    for session in plain["sessions"]:
        session["age"] = session["waiting"] = session["stalled"] = 0
    for held in plain["held"]:
        held["expiries"] = [(0, end) for _, end in held["expiries"]]
    plain["uptime"] = plain["handovers"] = 0
    return plain


async def test_this_release_writes_the_newest_version_as_it_is_recorded(autojump_clock: MockClock) -> None:
    """A change to the state needs a new version, and a recorded state of it: python -m tests.handover.record."""
    written, kept = await recorded(), decode((STATES / f"{VERSION}.msgpack").read_bytes())
    assert replace_times(written.relay) == replace_times(kept.relay)
    assert written.peers == kept.peers


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BadState):
        decode(data)


def test_garbage_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(BadState):
        decode(b"\x81\xa1x" + b"\x91" * 100_000)


def test_an_unknown_version_is_refused() -> None:
    state = decode((STATES / f"{VERSION}.msgpack").read_bytes())
    with pytest.raises(BadState, match="the state has version 99"):
        decode(encode(replace(state, version=99)))


def test_a_connection_that_cannot_move_is_refused() -> None:
    with pytest.raises(BadState, match="with TLS"):
        PeerState("tls", "127.0.0.1:1").peer()
    with pytest.raises(BadState, match="no address"):
        PeerState("tcp", "somewhere", "somewhere").peer()


async def test_a_state_that_contradicts_itself_makes_no_relay() -> None:
    state = decode((STATES / f"{VERSION}.msgpack").read_bytes()).relay
    connections = [MemoryListener().connection(Peer("unix", ""))]
    queue = replace(state.sessions[0].queue, paused=[(99, b"B!")])
    with pytest.raises(IndexError):
        restore(Relay(Config()), replace(state, sessions=[replace(state.sessions[0], queue=queue)]), connections)
    with pytest.raises(ValueError, match="longer"):
        restore(Relay(Config()), state, [])


@given(st.sampled_from([Peer("unix", "/run/x/A", None, 65, 1000, 7, "cat"), Peer("unix", "")]))
def test_a_peer_is_the_same_afterwards(peer: Peer) -> None:
    assert PeerState.of(peer).peer() == peer


async def test_a_successor_with_fewer_places_for_connections_without_an_id_keeps_the_oldest(
    autojump_clock: MockClock,
) -> None:
    async with running() as world, trio.open_nursery() as nursery:
        oldest, *others = [world.memory.connect() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        state, connections = capture(world.relay)
        successor = Relay(Config(max_pending_per_address=1))
        restore(successor, state, [cast("MemoryConnection", connection).move() for connection in connections])
        await nursery.start(partial(run_relay, successor, [MemoryListener()], (), MemoryPoller))
        assert [await other.receive_some() for other in others] == [b"", b""]
        await oldest.send_all(encode_hello(ord("A"), HelloOption.ACK))
        assert await oldest.receive_some() == b"A\0"
        oldest.close()
        successor.drain()


async def test_capturing_changes_nothing() -> None:
    async with running() as world:
        a, b = await world.claim(b"A", HelloOption.EVENTS), await world.claim(b"B")
        await a.send(b"B1")
        await b.expect(b"A1")
        before = capture(world.relay)[0]
        with trio.fail_after(1000):
            await a.send(b"B2")
            await b.expect(b"A2")
        assert sum(before.ledger.accepted) == 1
        assert sum(world.relay.ledger.accepted) == 2


async def test_the_stall_clock_continues_and_wrong_tokens_are_remembered(autojump_clock: MockClock) -> None:
    async with running(Config(stall_timeout=100), capacity=4) as world:
        a = await world.claim(b"A")
        await world.claim(b"B")
        await a.send(b"B1B2B3B4")
        world.relay.wrong_tokens.count("10.0.0.5")
        await trio.sleep(0.25)
        state, connections = capture(world.relay)
        successor = Relay(Config(stall_timeout=100))
        await trio.sleep(50)  # what passes between the two does not count
        restore(successor, state, connections)
        (holder,) = successor.exchange.registry.holders(ord("B"))
        assert holder.progress_at is not None
        assert trio.current_time() - holder.progress_at == pytest.approx(0.25, abs=0.1)
        assert [origin for origin, _ in successor.wrong_tokens.capture()] == ["10.0.0.5"]
