"""Random clients over real sockets of every kind, some of them stopped and killed; what they sent, against the ledger.

`make soak MINUTES=30` runs more of it. Every choice comes from one seed, which a failure names; timing does not.

1. The relay runs in this process, so that its ledger can be checked at random moments, and what a client that left had
   sent can be held against what was accepted of it.
2. Each id has one client after the other, each of which begins while the one before may still be leaving. So what an
   id sent to another is one sequence, of which every receiver must have got a part, in order; all of it in a world in
   which nothing may be lost.
3. Some ids are shared by several clients. All that these send says in its upper bits which session sent it, so that
   every receiver's part is compared by sending session. One in three is lossy: the ledger must have counted its gaps.
4. Clients cut frames in half, half-close, reset, close in mid-send, read late or not at all. Processes that flood are
   stopped, continued and killed.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.chaos.sessions import HOLDERS, SHARED, Client, by_sender, is_subsequence
from tests.relay.in_process import client_context, port, write_tls_files
from tests.wire.client import LOSSY, NONE, SHARE, frames
from triorelay.protocol import CloseReason, DropReason, EventCode, parse_id_set
from triorelay.relay import Config, Principal, Relay, Session, serve

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

IDS = b"ABCDEF"
ALWAYS_SHARED = b"T"
DESTINATIONS = IDS + SHARED
FLOODERS = b"XY"
CLIENTS = len(IDS) + HOLDERS * len(SHARED)
SECONDS = 60 * float(os.environ["MINUTES"]) / 8 if os.environ.get("MINUTES") else 3.0
PATIENCE = 60.0
BURST = 40_000
"""Frames of each client that go to shared ids at once: together more than the kernel takes for one that never reads."""
CA = trustme.CA()
FLOOD = """
import socket, sys
while True:
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    client.sendall(sys.argv[2].encode() + bytes((0x82,)))
    try:
        while True:
            client.sendall((b"A1B2" + bytes((0, 8, 0, 1)) + b"C3Z4S5") * 500 + b"D")
            client.recv(1000)
    except OSError:
        pass
"""


@dataclass
class World:
    """What clients sent and received."""

    chance: random.Random
    lossless: bool
    relay: Relay
    path: str
    tls: ssl.SSLContext
    sent: dict[tuple[Client, int], bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    """By sender and destination; all sessions of an id that is not shared are one sender."""
    received: list[tuple[Client, dict[int, bytearray]]] = field(default_factory=list)
    """What each session got, by source."""
    sessions: Counter[int] = field(default_factory=Counter)
    frames: dict[str, int] = field(default_factory=dict)
    """Frames that a client has written in whole, by its address."""
    accepted: dict[Session, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    compared: int = 0
    clients: int = 0
    finished: int = 0
    all_here: trio.Event = field(default_factory=trio.Event)

    def check_ledger(self) -> None:
        ledger = self.relay.ledger
        accounted = ledger.written + self.relay.exchange.queued_frames() + sum(ledger.dropped.values())
        assert sum(ledger.accepted) + ledger.copied == accounted

    def notice(self, code: EventCode, session: Session) -> None:
        """Hold what was accepted of a client that left against what it wrote."""
        if session.shared:
            return
        if code is EventCode.JOINED:
            self.accepted[session] = self.relay.ledger.accepted[session.id]
        elif session.ended is CloseReason.LEFT:
            written = self.frames.get(session.connection.peer.address)
            if written is not None:
                accepted = self.relay.ledger.accepted[session.id] - self.accepted[session]
                # What a watcher raises ends a client's task, and not the test.
                if accepted != written:
                    self.faults.append(f"{chr(session.id)}: {accepted} of {written} frames accepted")
                self.compared += 1


async def connect(world: World, client: Client) -> tuple[trio.abc.HalfCloseableStream, trio.SocketStream, str]:
    """Connect in one way or another, with what says which id; return the stream, its socket, and its address."""
    id, kinds = client.id, ["unix", "tcp", "tls", "bound"]
    if client.shared and client.id not in ALWAYS_SHARED:
        kinds.remove("bound")
    kind = world.chance.choice(kinds) if not client.lossy else "unix"
    world.clients += 1
    if kind in ("bound", "unix"):
        sock = socket.socket(socket.AF_UNIX)
        address = f"{os.path.dirname(world.path)}/{world.clients}"
        if kind == "bound":
            os.mkdir(address)
            address = f"{address}/{chr(id)}"
            sock.bind(address)
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await plain.socket.connect(world.path)
    else:
        plain = await trio.open_tcp_stream("127.0.0.1", port(world.relay, kind))
        name = plain.socket.getsockname()
        address = f"{name[0]}:{name[1]}"
    stream: trio.abc.HalfCloseableStream = plain
    if kind == "tls":
        stream = trio.SSLStream(plain, world.tls, server_hostname="127.0.0.1")  # type: ignore[assignment]
    if kind != "bound":
        options = (SHARE if client.shared else NONE) | (LOSSY if client.lossy else NONE)
        await stream.send_all(bytes((id, 0x80 | options)))
    return stream, plain, address if kind != "unix" else ""


async def read(world: World, stream: trio.abc.ReceiveStream, client: Client, done: trio.Event) -> None:
    log: dict[int, bytearray] = defaultdict(bytearray)
    pace, half = world.chance.choice([0, 0, 0.001, 0.05]), b""
    # A burst comes to those that share an id.
    sizes = [65536] if client.shared else [1, 100, 65536]
    try:
        if client.lossy and world.lossless:
            await done.wait()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await stream.receive_some(world.chance.choice(sizes)):
                chunk = half + chunk
                half = chunk[len(chunk) & ~1 :]
                for at in range(0, len(chunk) - 1, 2):
                    log[chunk[at]].append(chunk[at + 1])
                if not done.is_set():
                    await trio.sleep(pace)
    finally:
        world.received.append((client, log))


async def live(world: World, id: int, done: trio.Event) -> None:
    """One session of the client `id`, until it has sent all that it means to."""
    chance = world.chance
    client = Client(id, world.sessions[id] if id in SHARED else 0)
    world.sessions[id] += 1
    stream, plain, address = await connect(world, client)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, world, stream, client, done)
            count = 0
            if world.lossless:
                await world.all_here.wait()
                if not client.shared:
                    for destination in SHARED:
                        await stream.send_all(burst(world, client, destination))
                        count += BURST
            for _ in range(chance.randrange(1, 8) if client.sends else 0):
                data = some_frames(world, client)
                cut = chance.randrange(len(data) + 1)
                await stream.send_all(data[:cut])
                await trio.sleep(chance.choice([0, 0, 0.01]))
                await stream.send_all(data[cut:])
                count += len(data) // 2
            if address and not client.shared:
                world.frames[address] = count
            world.finished += 1
            end = "wait" if world.lossless else chance.choice(["leave", "leave", "reset", "close", "cut"])
            if end == "wait":
                await done.wait()
                await plain.send_eof()
                return
            elif end == "leave":
                with suppress(trio.BrokenResourceError):
                    await plain.send_eof()
                with trio.move_on_after(chance.choice([0, 0.05, 0.5])):
                    await trio.sleep_forever()
            elif end == "cut":
                await stream.send_all(bytes((chance.choice(DESTINATIONS),)))
            elif end == "reset" and plain.socket.family != socket.AF_UNIX:
                world.frames.pop(address, None)
                plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        world.frames.pop(address, None)
    finally:
        with trio.CancelScope(shield=True), suppress(trio.BrokenResourceError):
            await trio.aclose_forcefully(stream)


def some_frames(world: World, client: Client) -> bytes:
    """Return what `client` sends next: frames to one or to all, which count as sent."""
    chance = world.chance
    to = [chance.choice(DESTINATIONS)] if chance.random() < 0.5 else list(DESTINATIONS)
    data = client.mark(chance.randbytes(chance.choice([1, 5, 300])))
    pairs = [(chance.choice(to), byte) for byte in data]
    for destination, byte in pairs:
        world.sent[client, destination].append(byte)
    return b"".join(map(bytes, pairs))


def burst(world: World, client: Client, destination: int) -> bytes:
    data = world.chance.randbytes(BURST)
    world.sent[client, destination] += data
    return frames(bytes((destination,)), data)


async def come_and_go(world: World, id: int, done: trio.Event) -> None:
    while not done.is_set():
        with suppress(OSError, trio.BrokenResourceError):
            await live(world, id, done)
        await trio.sleep(world.chance.choice([0, 0, 0.01]))


async def disturb(world: World, config: Config) -> None:
    """Check the ledger, close sessions, reload, stop and kill."""
    chance = world.chance
    processes: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while True:
            await trio.sleep(chance.random() / 10)
            world.check_ledger()
            if world.lossless:
                continue
            match chance.randrange(5):
                case 0:
                    world.relay.close_client(chance.choice(DESTINATIONS))
                case 1:
                    world.relay.reload(replace(config, principals=principals(chance)))
                case 2:
                    id = chance.choice(FLOODERS)
                    if id not in processes:
                        processes[id] = start_flood(world.path, id)
                case 3:
                    for process in processes.values():
                        process.send_signal(chance.choice([signal.SIGSTOP, signal.SIGCONT]))
                case _:
                    if processes and chance.random() < 0.3:
                        _, process = processes.popitem()
                        process.kill()
                        await trio.to_thread.run_sync(process.wait)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def start_flood(path: str, id: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FLOOD, path, chr(id)], stderr=subprocess.DEVNULL)


def principals(chance: random.Random) -> tuple[Principal, ...]:
    ids = DESTINATIONS + FLOODERS
    to = frozenset(ids) if chance.random() < 0.5 else frozenset(chance.sample(ids, 5))
    return (
        Principal(name="local", uid=os.getuid(), ids=parse_id_set("*"), to=to),
        Principal(name="net", address=ip_network("127.0.0.0/8"), ids=parse_id_set("*"), to=to),
    )


async def run(directory: Path, seed: int, *, lossless: bool) -> World:
    chance = random.Random(seed)
    path = str(directory / "socket")
    files = write_tls_files(directory, CA)
    config = Config(
        unix=(path,),
        tcp=(("127.0.0.1", 0),),
        tls=(("127.0.0.1", 0),),
        tls_files=files,
        queue_bytes=chance.choice([2, 200, 65536]),
        overflow="wait" if lossless else chance.choice(["wait", "drop"]),
        share=frozenset(ALWAYS_SHARED),
        duplicate="reject" if lossless else chance.choice(["reject", "replace"]),
        hold_frames=0 if lossless else chance.choice([0, 1]),
        stall_timeout=0 if lossless else 2,
        principals=() if lossless else principals(chance),
    )
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        relay: Relay = await nursery.start(serve, config)
        world = World(chance, lossless, relay, path, client_context(CA))
        relay.exchange.registry.watchers.add(world.notice)
        async with trio.open_nursery() as others:
            others.start_soon(disturb, world, config)
            async with trio.open_nursery() as clients:
                for id in IDS + SHARED * HOLDERS:
                    clients.start_soon(live if lossless else come_and_go, world, id, done)
                if lossless:
                    await settle(world)
                else:
                    await trio.sleep(SECONDS)
                done.set()
            others.cancel_scope.cancel()
        relay.drain()
    world.check_ledger()
    assert not world.faults
    assert relay.exchange.queued_frames() == 0
    return world


async def settle(world: World) -> None:
    """Wait until all have sent what they mean to, and it has been written."""
    with trio.fail_after(PATIENCE):
        while True:
            await trio.sleep(0.05)
            exchange = world.relay.exchange
            if len(exchange.registry) == CLIENTS:
                world.all_here.set()
            sent = sum(map(len, world.sent.values()))
            # One that is lossy reads only at the end.
            queued = sum(outbox.queued_frames() for outbox in exchange.outboxes if not outbox.lossy)
            if world.finished == CLIENTS and not queued and sum(world.relay.ledger.accepted) >= sent:
                return


@pytest.mark.parametrize("seed", range(4))
async def test_clients_of_all_kinds_that_come_go_and_die_get_nothing_wrong(tmp_path: Path, seed: int) -> None:
    world = await run(tmp_path, seed, lossless=False)
    assert world.clients > 20
    assert world.compared > 0
    assert world.relay.ledger.copied > 0
    for client, log in world.received:
        for source in DESTINATIONS:
            for sender, part in by_sender(source, log[source]).items():
                assert sender != client or not client.shared, f"{client} hears itself"
                assert is_subsequence(part, world.sent[sender, client.id]), f"{sender} to {client}: not in order"


@pytest.mark.parametrize("seed", range(4))
async def test_without_lossy_clients_every_byte_arrives(tmp_path: Path, seed: int) -> None:
    """Only what is for the lossy ones may be lost: as much as the ledger says, by source and destination."""
    world = await run(tmp_path, seed, lossless=True)
    assert len(world.received) == CLIENTS
    assert world.compared > 0
    lost: Counter[tuple[int, int, DropReason]] = Counter()
    copies = -sum(map(len, world.sent.values()))
    for client, log in world.received:
        parts = {sender: part for source in log for sender, part in by_sender(source, log[source]).items()}
        for (sender, destination), sent in world.sent.items():
            if destination != client.id or (sender == client and client.shared):
                continue
            part = parts.pop(sender, b"")
            copies += len(sent)
            if client.lossy:
                assert is_subsequence(part, sent), f"{sender} to {client}: not in order"
                lost[sender.id, destination, DropReason.QUEUE_FULL] += len(sent) - len(part)
            else:
                assert part == sent, f"{sender} to {client}"
        assert not parts, f"{client} got what was not for it"
    assert world.relay.ledger.copied == copies
    assert lost.total() > 0
    assert +lost == +Counter(world.relay.ledger.dropped)
