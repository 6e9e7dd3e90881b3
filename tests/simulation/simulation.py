"""A relay in memory among random clients, every choice of which comes from one seed.

The sessions, registry, router and outboxes are the real ones. The scheduler is seeded, the clock jumps. Clients come,
claim ids, share some of them, send in random pieces, stall, half-close, reset and are cancelled in mid-send; observers
look on, an operator closes sessions and changes the policy. After each step of any task the ledger must balance; what
clients with events are told is checked as it comes (`events`); of a client that left all must have been accepted that
it wrote; at the end, what each client received from each source must be what that source sent it, in order, with no
more missing than the ledger says.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing
from trio._core import _run

from tests.simulation.events import EventLog
from triorelay.handover._state import HandoverState, PeerState, decode, encode
from triorelay.protocol import CloseReason, EventCode, encode_event, encode_hello
from triorelay.protocol._hello import HelloOption
from triorelay.relay import Config, Principal, Relay, Session, capture, restore
from triorelay.relay._connection import Peer
from triorelay.relay._server import run_relay
from triorelay.testing._memory import MemoryConnection, MemoryListener, MemoryPoller, MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = b"ABCDEF"
BURST = ord("G")
CLIENTS_OWN = (".receive", ".live", ".observe", ".come_and_go")
"""How the names of the clients' tasks end."""


@dataclass
class World:
    """What the clients did, to be held against what the relay did."""

    seed: int
    lossless: bool
    config: Config
    capacity: int
    sessions: int = len(IDS)
    running: trio.CancelScope = field(default_factory=trio.CancelScope)
    sent: dict[tuple[int, int], bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    received: dict[tuple[int, int], list[bytearray]] = field(default_factory=lambda: defaultdict(list))
    wires: list[Wire] = field(default_factory=list)
    steps: int = 0
    finished_senders: int = 0
    left: int = 0


class Wire:
    """What one client wrote to its connection, to be held against what the relay accepted from it until it left."""

    def __init__(self, stream: MemoryStream, *, hello: bool, events: bool) -> None:
        self._pipe = stream._outgoing
        self._hello = hello
        self._events = events
        self._written = bytearray()
        self._before = (0, 0, 0)
        self.has_joined = False
        write = self._pipe.write

        def note(data: bytes | bytearray | memoryview) -> int:
            count = write(data)
            self._written += data[:count]
            return count

        self._pipe.write = note  # type: ignore[method-assign]

    def leads_to(self, session: Session) -> bool:
        """Return whether `session` reads what was written here."""
        return isinstance(session.connection, MemoryConnection) and session.connection._incoming is self._pipe

    def joined(self, relay: Relay, session: Session) -> None:
        self._before = counted(relay, session.id)
        self.has_joined = True

    def left(self, relay: Relay, session: Session) -> bool:
        """Check a session whose client shut its sending side; return whether it did so, and nothing else ended it."""
        if session.ended is not CloseReason.LEFT or session.shared or self._pipe.reset:
            return False
        now = counted(relay, session.id)
        difference = tuple(after - before for before, after in zip(self._before, now, strict=True))
        accepted, control, partial = self._expected()
        # Requests and halves are counted for all ids together, so others may have had some meanwhile.
        assert difference[0] == accepted, f"{difference[0]} of {accepted} frames of {session.id} accepted"
        assert difference[1] >= control
        assert difference[2] >= partial
        return True

    def _expected(self) -> tuple[int, int, int]:
        """Return how many frames of what was written are accepted, how many are requests, and the bytes left over."""
        data = bytes(self._written[2 * self._hello :])
        whole, at, accepted, control = len(data) & ~1, 0, 0, 0
        while at < whole:
            if data[at] or not self._events:
                accepted, at = accepted + 1, at + 2
            elif at + 2 == whole:
                break  # the first half of a request
            elif data[at + 2] == 0:
                understood = data[at + 1] in (6, 7, 8)
                accepted, control, at = accepted + 2 * (not understood), control + 2 * understood, at + 4
            else:
                accepted, at = accepted + 1, at + 2
        return accepted + (at < whole), control, len(data) - whole


def notice(world: World, relay: Relay, code: EventCode, session: Session) -> None:
    """Note a session that joined, and check one that left."""
    for wire in world.wires:
        if wire.leads_to(session):
            if code is EventCode.JOINED:
                wire.joined(relay, session)
            else:
                world.left += wire.left(relay, session)


def counted(relay: Relay, id: int) -> tuple[int, int, int]:
    return relay.ledger.accepted[id], relay.ledger.control, relay.ledger.partial


class BalanceChecker(trio.abc.Instrument):
    """Checks the ledger after each step of each task that can change it.

    Half of all steps are the clients' own. What they do waits in their streams until the relay's next step. Checking
    what cannot have changed would take as long as all else.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._world.steps += 1
        if not task.name.endswith(CLIENTS_OWN):
            check_balance(RELAYS[self._world.seed])


def check_balance(relay: Relay) -> None:
    """Assert that every accepted frame is written, queued or dropped, and no queue is over its bound."""
    ledger = relay.ledger
    queued = relay.exchange.queued_frames()
    accepted, written, dropped = sum(ledger.accepted), ledger.written, sum(ledger.dropped.values())
    copied = ledger.copied
    assert accepted + copied == written + queued + dropped, f"{accepted} + {copied} != {written} + {queued} + {dropped}"
    for outbox in relay.exchange.outboxes:
        assert outbox.queued_bytes <= relay.config.queue_bytes + 65536 + 8192 + 4096


def make_world(seed: int) -> tuple[World, random.Random]:
    chance = random.Random(seed)
    lossless = chance.random() < 0.4
    queue_bytes = chance.choice([2, 16, 200, 65536])
    config = Config(
        overflow="wait" if lossless or chance.random() < 0.5 else "drop",
        duplicate=chance.choice(["reject", "replace"]),
        queue_bytes=queue_bytes,
        stall_timeout=0 if lossless else chance.choice([0, 0.5, 2, 10]),
        drain_timeout=0 if lossless else chance.choice([0.5, 5]),
        hold_frames=0 if lossless else chance.choice([0, 0, min(3, queue_bytes // 2)]),
        hold_time=chance.choice([0, 0.3, 3]),
        principals=() if lossless or chance.random() < 0.6 else make_policy(chance),
        share=frozenset(chance.sample(IDS, 2)) if chance.random() < 0.3 else frozenset(),
    )
    world = World(seed, lossless, config, chance.choice([1, 2, 3, 50, 4096]))
    return world, chance


def make_policy(chance: random.Random) -> tuple[Principal, ...]:
    """Two users, of which each may hold and reach some of the ids."""
    return tuple(
        Principal(
            name=f"user{uid}",
            uid=uid,
            ids=frozenset(chance.sample(IDS, 4)) | {200 + uid},
            to=frozenset(chance.sample(IDS, chance.randrange(1, 7))),
        )
        for uid in (1, 2)
    )


async def receive(
    stream: MemoryStream,
    chance: random.Random,
    log: dict[int, bytearray],
    done: trio.Event,
    events: EventLog | None = None,
) -> None:
    """Read until the relay closes, at a pace of chance until `done`; note what came from whom."""
    half = b""
    pace = chance.choice([0, 0, 0.01, 0.5])
    try:
        while chunk := await stream.receive_some(chance.choice([1, 3, 1000])):
            chunk = half + chunk
            half = chunk[len(chunk) & ~1 :]
            for at in range(0, len(chunk) - 1, 2):
                log[chunk[at]].append(chunk[at + 1])
                if events is not None:
                    events.receives(chunk[at], chunk[at + 1])
            if pace and not done.is_set():
                await trio.sleep(pace * chance.random())
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def send(world: World, stream: MemoryStream, me: int, chance: random.Random, events: EventLog | None) -> None:
    """Send random frames in random pieces; in a lossless world only to those who are sure to be there."""
    for _ in range(chance.randrange(1, 12)):
        frames = bytearray()
        to = [chance.choice(IDS)] if chance.random() < 0.5 else list(IDS)
        for _ in range(chance.choice([1, 2, 5, 60])):
            destination, data = chance.choice(to), chance.randrange(256)
            frames += bytes((destination, data))
            world.sent[me, destination].append(data)
            if events is not None and chance.random() < 0.1:
                frames += encode_event(
                    chance.choice([6, 7, 8] if world.lossless else [6, 7, 8, 77]), chance.randrange(256)
                )
        if events is not None:
            events.sends(frames)
        while frames:
            size = chance.choice([1, 2, 3, len(frames)])
            piece, frames = frames[:size], frames[size:]
            await stream.send_all(bytes(piece))
            if chance.random() < 0.2:
                await trio.sleep(chance.choice([0, 0.01, 0.3]))


async def live(world: World, listener: MemoryListener, me: int, chance: random.Random, done: trio.Event) -> None:
    """One session of the client `me`."""
    options = chance.choice([HelloOption.NONE, HelloOption.ACK, HelloOption.EVENTS])
    if not world.lossless:
        options |= chance.choice([0, 0, 0, HelloOption.LOSSY, HelloOption.SHARE])
    bound = chance.random() < 0.4
    stream = listener.connect(Peer("memory", "", None, me if bound else 0, uid=chance.choice([1, 1, 2])))
    if options & HelloOption.SHARE == 0:
        world.wires.append(Wire(stream, hello=not bound, events=not bound and bool(options & HelloOption.EVENTS)))
    events = None
    if not bound and options & HelloOption.EVENTS:
        events = EventLog(lambda: RELAYS[world.seed], me, bool(world.config.hold_frames))
    log: dict[int, bytearray] = defaultdict(bytearray)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, stream, chance, log, done, events)
            if not bound:
                await stream.send_all(encode_hello(me, options))
            if world.lossless:
                await all_here(world, listener)
                await send(world, stream, me, chance, events)
                world.finished_senders += 1
                await done.wait()
                await stream.send_eof()
                return
            with trio.move_on_after(chance.choice([0.1, 1, 100])):
                await send(world, stream, me, chance, events)
            end = chance.randrange(4)
            if end == 0:
                await stream.send_eof()
                await trio.sleep(chance.random() * 3)
            elif end == 1:
                stream.reset()
            elif end == 2:
                await trio.sleep(chance.random() * 3)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        stream.close()
        if not bound and options & (HelloOption.ACK | HelloOption.EVENTS):
            del log[me][:1]  # the answer to the hello
        for source, data in log.items():
            world.received[source, me].append(data)


async def burst(world: World, listener: MemoryListener, chance: random.Random) -> None:
    """Several clients of one id that send and leave, one after the other, while earlier ones still wait for the id."""
    await trio.sleep(chance.random())
    wires: list[Wire] = []
    for _ in range(chance.randrange(2, 6)):
        if RELAYS[world.seed].draining:
            return
        bound = chance.random() < 0.5
        options = chance.choice([HelloOption.NONE, HelloOption.EVENTS])
        try:
            stream = listener.connect(Peer("memory", "", None, BURST if bound else 0, uid=1))
        except ConnectionRefusedError:
            return
        events = not bound and options is HelloOption.EVENTS
        wires.append(Wire(stream, hello=not bound, events=events))
        world.wires.append(wires[-1])
        flush = encode_event(EventCode.FLUSH, 1) * chance.randrange(3) if events else b""
        frames = bytearray()
        for _ in range(chance.choice([1, 5, 60])):
            destination, data = chance.choice(IDS), chance.randrange(256)
            frames += bytes((destination, data))
            world.sent[BURST, destination].append(data)
        hello = b"" if bound else encode_hello(BURST, options)
        # It reads nothing, and so may be kept waiting until it gives up.
        with suppress(trio.BrokenResourceError), trio.move_on_after(5):
            await stream.send_all(hello + flush + bytes(frames[:20]) + flush + bytes(frames[20:]))
        stream.close()
        if chance.random() < 0.3:
            await trio.sleep(chance.choice([0, 0.01]))
    await until(lambda: RELAYS[world.seed].draining or all(wire.has_joined for wire in wires), 1)


async def observe(world: World, listener: MemoryListener, chance: random.Random, done: trio.Event) -> None:
    """Look on for a while, as an observer or as a client of any free id, and check what is told."""
    await trio.sleep(chance.random())
    if RELAYS[world.seed].draining:
        return
    log: dict[int, bytearray] = defaultdict(bytearray)
    events = EventLog(lambda: RELAYS[world.seed], 0, bool(world.config.hold_frames))
    stream = listener.connect(Peer("memory", "", uid=chance.choice([1, 2])))
    with suppress(trio.BrokenResourceError), trio.move_on_after(chance.choice([0.5, 5])):
        await stream.send_all(encode_hello(0, HelloOption.EVENTS))
        if chance.random() < 0.5:
            await stream.send_all(b"A1" if not world.lossless else b"")
            events.lists += 3
            await stream.send_all(encode_event(7, 0) * 3)
        await receive(stream, chance, log, done, events)
    stream.close()


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


async def all_here(world: World, listener: MemoryListener) -> None:
    await until(lambda: len(RELAYS[world.seed].exchange.registry) == world.sessions, 0.01)


RELAYS: dict[int, Relay] = {}


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


async def until(condition: Callable[[], bool], pause: float) -> None:
    """Look every `pause` seconds of the clock that jumps, until `condition` holds."""
    while True:
        if condition():
            return
        await trio.sleep(pause)


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
                await run_relay(relay, [listener], (), MemoryPoller(), task_status=task_status)
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
                        RELAYS[seed].drain()
            RELAYS[seed].drain()
    trio.lowlevel.remove_instrument(checker)
    check_end(RELAYS[seed], world)
    return world


def check_end(relay: Relay, world: World) -> None:
    """Hold what clients saw against what they sent and what the ledger says."""
    check_balance(relay)
    assert relay.exchange.queued_frames() == 0
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
    try:
        return trio.run(simulate, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        RELAYS.pop(seed, None)
