"""The random clients: they come, claim ids, send in pieces, stall, half-close, reset, and look on."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.simulation.events import EventLog
from tests.simulation.wires import Wire
from tests.simulation.world import BURST, IDS, NARROW, RELAYS
from triorelay.protocol import EventCode, encode_event, encode_hello
from triorelay.protocol._hello import HelloOption
from triorelay.relay._connection import Peer

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.simulation.world import World
    from triorelay.testing._memory import MemoryListener, MemoryStream


async def receive(
    stream: MemoryStream,
    chance: random.Random,
    log: dict[int, bytearray],
    done: trio.Event,
    events: EventLog | None = None,
) -> None:
    """Read until the relay closes, at a pace of chance until `done`; note what came from which client."""
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
            if pace and not done.is_set() and chance.random() < 0.2:
                await trio.sleep(5 * pace * chance.random())
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def send(world: World, stream: MemoryStream, me: int, chance: random.Random, events: EventLog | None) -> None:
    """Send random frames in random pieces; in a lossless world only to clients that are sure to be connected."""
    for _ in range(chance.randrange(1, 12 if world.capacity > NARROW else 4)):
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
                await world.all_here.wait()
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
    """Watch for a while, as an observer or as a client of any free id, and check the events."""
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


async def until(condition: Callable[[], bool], pause: float) -> None:
    """Look every `pause` seconds of the clock that jumps, until `condition` holds."""
    while True:
        if condition():
            return
        await trio.sleep(pause)
