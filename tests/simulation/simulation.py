"""A relay in memory among random clients, every choice of which comes from one seed.

The sessions, registry, router and outboxes are the real ones. The scheduler is seeded, the clock jumps. Clients come,
claim ids, share some of them, send in random pieces, stall, half-close, reset and are cancelled in mid-send; observers
look on, an operator closes sessions and changes the policy. After each step of any task the ledger must balance; what
clients with events get is checked as it comes (`events`); of a client that left all must have been accepted that
it wrote; at the end, what each client received from each source must be what that source sent it, in order, with no
more missing than the ledger says.
"""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing
from trio._core import _run

from tests.simulation.balance import BalanceChecker
from tests.simulation.clients import burst, live, observe, until
from tests.simulation.world import IDS, RELAYS, World, make_policy, make_world
from triorelay.handover._state import HandoverState, PeerState, decode, encode
from triorelay.protocol import EventCode
from triorelay.relay import Relay, capture, restore
from triorelay.relay._server import run_relay
from triorelay.testing._memory import MemoryConnection, MemoryListener, MemoryPoller

if TYPE_CHECKING:
    import random

    from triorelay.relay import Session


def notice(world: World, relay: Relay, code: EventCode, session: Session) -> None:
    """Note a session that joined, and check one that left."""
    for wire in world.wires:
        if wire.leads_to(session):
            if code is EventCode.JOINED:
                wire.joined(relay, session)
            else:
                world.left += wire.left(relay, session)


async def operate(world: World, chance: random.Random) -> None:
    """Close sessions, change the policy and replace the relay now and then."""
    for _ in range(chance.randrange(4)):
        await trio.sleep(chance.random())
        relay = RELAYS[world.seed]
        if relay.draining:
            return
        if chance.random() < 0.3:
            replace_relay(world)
        elif chance.random() < 0.5:
            relay.close_client(chance.choice(IDS))
        elif world.config.principals:
            relay.reload(replace(world.config, principals=make_policy(chance)))


async def drain(seed: int) -> None:
    """Drain the relay once it is in charge; before that it is not handed out."""
    while not (relay := RELAYS[seed]).in_charge.is_set():
        await relay.in_charge.wait()
    relay.drain()


def replace_relay(world: World) -> None:
    """Let a relay that is made of the state of the running one continue in its place."""
    state, connections = capture(RELAYS[world.seed])
    peers = [PeerState.of(connection.peer) for connection in connections]
    handed_over = decode(encode(HandoverState(1, "0", peers, [], state)))
    moved = [connection.move() for connection in connections if isinstance(connection, MemoryConnection)]
    assert [connection.peer for connection in moved] == [peer.peer() for peer in handed_over.peers]
    successor = Relay(RELAYS[world.seed].config)
    restore(successor, handed_over.relay, moved)
    RELAYS[world.seed] = successor
    world.running.cancel()


async def settle(world: World, chance: random.Random) -> None:
    """Wait until everything that was sent in a lossless world has been accepted and written."""
    for _ in range(chance.randrange(4)):
        await until(lambda: world.finished_senders > 0, chance.random() / 10)
        replace_relay(world)
    await until(lambda: world.finished_senders == world.sessions, 1)
    sent = sum(map(len, world.sent.values()))

    def is_settled() -> bool:
        relay = RELAYS[world.seed]
        return sum(relay.ledger.accepted[1:]) >= sent and not relay.exchange.queued_frames()

    await until(is_settled, 1)


async def simulate(seed: int) -> World:
    """Run one world to its end and check it."""
    world, chance = make_world(seed)
    RELAYS[seed] = Relay(world.config)
    listener = MemoryListener(world.capacity)
    checker = BalanceChecker(world)
    trio.lowlevel.add_instrument(checker)

    async def run(*, task_status: trio.TaskStatus[Relay]) -> None:
        relay = None
        while relay is not RELAYS[seed]:
            relay = RELAYS[seed]
            relay.exchange.registry.watchers.add(partial(notice, world, relay))
            with trio.CancelScope() as world.running:
                await run_relay(relay, [listener], (), MemoryPoller, task_status=task_status)
            task_status = trio.TASK_STATUS_IGNORED

    async def come_and_go(me: int) -> None:
        for _ in range(chance.randrange(1, 4)):
            await trio.sleep(chance.random())
            with suppress(ConnectionRefusedError):
                await live(world, listener, me, chance, done)

    done = trio.Event()
    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            if world.lossless:
                async with trio.open_nursery() as clients:
                    if chance.random() < 0.5:
                        clients.start_soon(observe, world, listener, chance, done)
                    holders = [*IDS, *sorted(world.config.share)]
                    world.sessions = len(holders)
                    for me in holders:
                        clients.start_soon(live, world, listener, me, chance, done)
                    await settle(world, chance)
                    done.set()
            else:
                async with trio.open_nursery() as clients:
                    clients.start_soon(operate, world, chance)
                    clients.start_soon(observe, world, listener, chance, done)
                    if not world.config.principals and not world.config.stall_timeout:
                        clients.start_soon(burst, world, listener, chance)
                    for me in IDS:
                        clients.start_soon(come_and_go, me)
                        if chance.random() < 0.3 or me in world.config.share:
                            clients.start_soon(come_and_go, me)
                    if chance.random() < 0.3:
                        await trio.sleep(chance.random() * 3)
                        await drain(seed)
            await drain(seed)
    trio.lowlevel.remove_instrument(checker)
    assert RELAYS[seed].exchange.queued_frames() == 0
    checker.check(RELAYS[seed])
    check_end(RELAYS[seed], world)
    return world


def check_end(relay: Relay, world: World) -> None:
    """Hold what clients saw against what they sent and what the ledger says."""
    assert not relay.exchange.sessions
    assert not len(relay.exchange.registry)
    for (source, me), pieces in world.received.items():
        if source == 0:
            continue
        for piece in pieces:
            sent = world.sent[source, me]
            assert Counter(piece) <= Counter(sent), f"{source} to {me}: more than was sent"
            # Sessions that share an id send side by side, in no order among them.
            assert may_share(world, source) or is_subsequence(piece, sent), f"{source} to {me}: not in order"
    if world.lossless:
        dropped = {pair: count for pair, count in relay.ledger.dropped.items() if pair[0]}  # observers may send a half
        assert not dropped, dropped
        for (source, me), sent in world.sent.items():
            pieces = world.received.get((source, me), [])
            if source == me and me in world.config.share:
                pieces = [bytearray().join(pieces)]  # each of the two got what the other sent
            assert len(pieces) == (2 if me in world.config.share and source != me else 1), f"{source} to {me}"
            for got in pieces:
                same = Counter(got) == Counter(sent) if source in world.config.share else got == sent
                assert same, f"{source} to {me}: {len(got)} of {len(sent)} frames, or out of order"


def may_share(world: World, id: int) -> bool:
    """Return whether several sessions of `id` may have been there at once; in a lossy world any client may ask."""
    return id in world.config.share or not world.lossless


def is_subsequence(part: bytearray, whole: bytearray) -> bool:
    """Return whether `part` can be had from `whole` by leaving bytes out."""
    rest = iter(whole)
    return all(byte in rest for byte in part)


def run_seed(seed: int) -> World:
    """Run the world of one seed; everything in it happens again in the same order whenever it is run again."""
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    gc.disable()  # one collection after the run takes a tenth of the time of many in it
    try:
        return trio.run(simulate, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        gc.enable()
        RELAYS.pop(seed, None)
