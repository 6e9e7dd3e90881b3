"""What a relay survives: silent crowds, other protocols, no descriptors left, many claims of one id at once."""

from __future__ import annotations

import os
import random
import re
import resource
import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from tests.relay.in_process import (
    claim,
    client_context,
    connect_silently,
    hello,
    leaving_slowly,
    refusal,
    running,
    write_tls_files,
)
from tests.wire.client import ACK, EVENTS, PATIENCE, QUIET, frames
from tests.wire.relay_process import SOURCE_TREE, RelayProcess
from triorelay import testing
from triorelay.protocol import CloseReason, DropReason, EventCode, HelloOption, HelloRefused, Refusal
from triorelay.relay import Config, Grant
from triorelay.relay._admission import HELLO_BYTES
from triorelay.relay._claims import OBSERVERS_OF_AN_ORIGIN
from triorelay.relay._connection import Peer
from triorelay.relay._exchange import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCALHOST = (("127.0.0.1", 0),)
CA = trustme.CA()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path) as relay:
        yield relay


@contextmanager
def many_connections(port: int, count: int, source: str) -> Iterator[list[socket.socket]]:
    """Open `count` TCP connections from the address `source`, which say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, hard), hard))
    try:
        with ExitStack() as stack:
            sockets = []
            for _ in range(count):
                sockets.append(stack.enter_context(socket.socket()))
                sockets[-1].bind((source, 0))
                sockets[-1].connect(("127.0.0.1", port))
            yield sockets
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def wait_until_closed(sockets: list[socket.socket], deadline: float) -> None:
    """Wait until the relay has closed them all; fail at the deadline."""
    poll = select.poll()
    open_ones = {sock.fileno(): sock for sock in sockets}
    for descriptor in open_ones:
        poll.register(descriptor, select.POLLIN)
    while open_ones:
        ready = poll.poll(max(0.0, 1000 * (deadline - time.monotonic())))
        assert ready, f"{len(open_ones)} of {len(sockets)} are still open"
        for descriptor, _ in ready:
            with suppress(ConnectionResetError):
                assert open_ones[descriptor].recv(1) == b""
            poll.unregister(descriptor)
            del open_ones[descriptor]


# -- sessions without an id


def test_a_thousand_silent_connections_keep_no_client_out_and_are_closed(relay: RelayProcess) -> None:
    begun = time.monotonic()
    with many_connections(relay.tcp_port, 1000, "127.0.0.2") as silent:
        connected = time.monotonic()
        relay.claim(b"A", tcp=True)
        assert time.monotonic() - connected < 1
        wait_until_closed(silent, begun + 6 + (connected - begun))
    # The lines about them are few.
    relay.stop()
    assert len([line for line in relay.lines if "refused" in line]) < 50


async def test_one_address_has_only_so_many_places_and_others_have_theirs() -> None:
    async with running(Config(tcp=LOCALHOST, max_pending_per_address=3)) as relay:
        silent = [await connect_silently(relay, "tcp", "127.0.0.2") for _ in range(3)]
        more = await connect_silently(relay, "tcp", "127.0.0.2")
        assert await more.read_to_end() == b""
        await claim(relay, b"A")
        await silent[0].send(hello(b"B"))
        await silent[0].expect(b"B\0")
        # Who has an id is not counted any more.
        await claim(relay, b"C", source="127.0.0.2")


async def test_when_all_places_are_taken_the_oldest_of_the_greediest_goes() -> None:
    async with running(Config(tcp=LOCALHOST, max_pending=5)) as relay:
        few = [await connect_silently(relay, "tcp", "127.0.0.3") for _ in range(2)]
        many = [await connect_silently(relay, "tcp", "127.0.0.2") for _ in range(3)]
        a = await claim(relay, b"A")
        assert await many[0].read_to_end() == b""
        assert relay.sessions_ended["tcp", "crowded_out"] == 1
        for client, id in zip([*few, *many[1:]], (b"B", b"C", b"D", b"E"), strict=True):
            await client.send(hello(id))
            await client.expect(id, b"\0")
        await a.settle(b"A")


async def test_users_and_ipv6_networks_count_as_one_each(autojump_clock: trio.testing.MockClock) -> None:
    async with testing.open_relay(Config(max_pending_per_address=1)) as memory:

        async def closed_at_once(peer: Peer) -> bool:
            stream = memory._listener.connect(peer)
            with trio.move_on_after(1):
                return await stream.receive_some() == b""
            return False

        def user(uid: int) -> Peer:
            return Peer("memory", "", uid=uid)

        def host(text: str) -> Peer:
            return Peer("memory", "", IPv6Address(text))

        assert not await closed_at_once(user(1))
        assert not await closed_at_once(user(2))
        assert await closed_at_once(user(1))
        assert not await closed_at_once(host("2001:db8:0:1::1"))
        assert not await closed_at_once(host("2001:db8:0:2::1"))
        assert await closed_at_once(host("2001:db8:0:1:2:3:4:5"))


async def test_before_its_id_a_session_is_read_no_further_than_its_hello() -> None:
    sent = hello(b"A") + frames(b"B", bytes(5_000))
    async with leaving_slowly(Config()) as (memory, _):
        claimant = memory.connect()
        await claimant.send_all(sent)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) - len(claimant._outgoing.buffer) <= HELLO_BYTES
        claimant.close()


async def test_a_drain_answers_clients_that_wait_for_an_id(autojump_clock: trio.testing.MockClock) -> None:
    async with leaving_slowly(Config()) as (memory, _):
        claimant = memory.connect()
        await claimant.send_all(hello(b"A"))
        await trio.testing.wait_all_tasks_blocked()
        memory.relay.drain()
        assert await claimant.receive_some() == bytes((ord("A"), Refusal.DRAINING))
        claimant.close()


# -- what is no hello


OTHERS = {
    "tls": bytes.fromhex("16030100f8010000f40303") + random.Random(1).randbytes(240),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "memcached": bytes.fromhex("80000000000000000000000000000000000000000000000000"),
    "noise": random.Random(2).randbytes(100),
    "text": b"hello?\r\n",
    "zeros": bytes(50),
}


@pytest.mark.parametrize("first", OTHERS.values(), ids=OTHERS)
def test_another_protocol_gets_no_id_and_one_line(relay: RelayProcess, first: bytes) -> None:
    client = relay.tcp()
    client.send(first)
    assert client.read_to_end() == b""
    relay.wait_for_line("refused")
    # Nobody is here.
    relay.observe()
    ledger = relay.stop()
    assert ledger["accepted"] == 0
    assert len([line for line in relay.lines if "refused" in line]) == 1


# -- one id


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_one_of_fifty_that_claim_an_id_at_once_gets_it(relay: RelayProcess, tcp: bool) -> None:
    b = relay.claim(b"B", tcp=tcp)
    for round in range(5):
        clients = [relay.tcp() if tcp else relay.unix() for _ in range(50)]
        for client in clients:
            client.send(b"A", bytes((0x80 | ACK,)))
        answers = [client.receive(2)[1] for client in clients]
        assert sorted(answers) == [Refusal.WELCOME] + [Refusal.TAKEN] * 49
        winner = clients[answers.index(Refusal.WELCOME)]
        b.send(b"A", bytes((round,)))
        winner.expect(b"B", bytes((round,)))
        for client in clients:
            client.close()


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_the_end_of_an_old_session_takes_nothing_from_a_new_one(relay: RelayProcess, tcp: bool) -> None:
    b = relay.claim(b"B", tcp=tcp)
    for round in range(200):
        client = relay.claim(b"A", tcp=tcp)
        b.send(b"A", bytes((round,)))
        client.expect(b"B", bytes((round,)))
        client.close()


# -- descriptors


def test_without_descriptors_traffic_continues_and_accepting_begins_again(relay: RelayProcess) -> None:
    a, b = relay.claim(b"A", tcp=True), relay.claim(b"B", tcp=True)
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with many_connections(relay.tcp_port, 200, "127.0.0.2"):
        lines = [relay.wait_for_line("cannot accept")]
        while len(lines) < 4:
            for round in range(500):
                a.send(b"B", bytes((round & 255,)))
                b.expect(b"A", bytes((round & 255,)))
            lines.append(relay.wait_for_line("cannot accept"))
    over = time.monotonic()
    relay.claim(b"C", tcp=True)
    assert time.monotonic() - over < 1
    assert "Too many open files" in lines[0]
    times = [datetime.fromisoformat(line.split()[0]) for line in lines]
    # Two lines a second at most: the third is at least a second after the first.
    assert all((later - first).total_seconds() >= 1 for first, later in zip(times, times[2:], strict=False))
    # And few attempts: the relay does not spin over a connection that it cannot accept.
    kept_back = [int(count) for count in re.findall(r"similar_kept_back=(\d+)", "".join(lines))]
    assert len(kept_back) == 3
    assert max(kept_back) <= 30


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "warned"), [(100, 1000, 1000, False), (100, 200, 200, True), (1000, 1000, 1000, False)]
)
def test_the_soft_limit_is_raised_and_a_low_hard_one_logged(
    tmp_path: Path, soft: int, hard: int, expected: int, warned: bool
) -> None:
    command = [sys.executable, "-m", "triorelay", "serve", "--unix", str(tmp_path / "socket")]
    limits = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    with subprocess.Popen(
        ["sh", "-c", limits, "sh", *command], cwd=SOURCE_TREE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " ready " in line:
                break
        limits_of_relay = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert limits_of_relay == (expected, expected)
    assert any("few descriptors" in line for line in lines) is warned


# -- socket options


async def test_the_kernel_detects_vanished_peers_and_holds_little(tmp_path: Path) -> None:
    files = write_tls_files(tmp_path, CA)
    async with running(Config(tcp=LOCALHOST, tls=LOCALHOST, tls_files=files)) as relay:
        await claim(relay, b"A")
        await claim(relay, b"B", tls=client_context(CA))
        for id in (b"A", b"B"):
            session = relay.exchange.registry.holder(ord(id))
            assert session is not None
            with socket.socket(fileno=os.dup(session.connection.fileno)) as sock:
                options = {
                    name: sock.getsockopt(level, option)
                    for name, level, option in (
                        ("keepalive", socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                        ("idle", socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                        ("interval", socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                        ("probes", socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                        ("no delay", socket.IPPROTO_TCP, socket.TCP_NODELAY),
                        # The kernel doubles the requested size, for its own accounting.
                        ("send buffer", socket.SOL_SOCKET, socket.SO_SNDBUF),
                    )
                }
            assert options == {
                "keepalive": 1,
                "idle": 10,
                "interval": 5,
                "probes": 3,
                "no delay": 1,
                "send buffer": 2 * 65_536,
            }


# -- memory


async def test_sessions_that_a_claim_freed_have_no_queue_where_others_need_the_place() -> None:
    async with testing.open_relay() as memory:
        exchange = memory.relay.exchange
        connections = [_Silent(Peer("memory", "")) for _ in range(PLACES + 50)]
        for connection in connections:
            session = exchange.open_session(65, connection, Grant(), HelloOption.NONE)  # type: ignore[arg-type]
            exchange.registry.free(session)
        going_on = [session for session in exchange.sessions if not session.scope.cancel_called]
        assert len(going_on) == PLACES
        assert {session.since for session in going_on} <= {session.since for session in exchange.sessions}
        exchange.sessions.clear()


class _Silent:
    """A connection that nothing comes from."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def recv_nowait(self, size: int) -> bytes:
        raise BlockingIOError

    def send_nowait(self, data: bytes) -> int:
        raise BlockingIOError

    send_small = send_nowait


async def test_drops_of_more_pairs_than_are_kept_are_summed_up_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triorelay.relay._exchange.DROPS_KEPT", 10)
    async with testing.open_relay() as memory:
        for destination in range(1, 100):
            memory.relay.exchange.drop(1, destination, DropReason.NO_ROUTE, 2)
        assert len(memory.relay.ledger.dropped) == 11
        assert sum(memory.relay.ledger.dropped.values()) == 198
        memory.relay.ledger.dropped.clear()


async def test_clients_that_left_have_no_queue_if_others_need_the_place() -> None:
    async with testing.open_relay(Config(queue_bytes=4096, stall_timeout=1000), capacity=16) as memory:
        sender = memory.connect("S")
        for _ in range(PLACES + 50):
            a = memory.connect("A")
            await sender.send_all(b"Ax" * 100)
            await a.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert len(memory.relay.exchange.sessions) <= PLACES
        assert len(memory.relay.exchange.sessions) == PLACES
        ledger = memory.relay.snapshot()["ledger"]
        assert isinstance(ledger, dict)
        assert ledger["dropped"] == {"slow_consumer": 92 * 51}
        assert ledger["queued"] == 92 * (PLACES - 1)


async def test_observers_are_evicted_for_clients_and_refused_if_clients_have_all_places() -> None:
    async with testing.open_relay() as memory, memory.open_client(observer=True) as observer:
        events = observer.events()
        for id in range(1, PLACES):
            memory.connect(id)
        await observer.wait_for(PLACES - 1)
        last = memory.connect(PLACES)
        async for event in events:
            if event.code == EventCode.CLOSING:
                assert event.argument == CloseReason.CROWDED_OUT
                break
        with pytest.raises(HelloRefused, match="full"):
            async with memory.open_client(observer=True):
                pass
        await last.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with memory.open_client(observer=True) as again:
            assert len(again.peers) == PLACES - 1


def test_one_address_has_only_so_many_observers(relay: RelayProcess) -> None:
    observers = [relay.observe() for _ in range(OBSERVERS_OF_AN_ORIGIN)]
    more = relay.unix()
    more.send(b"\0\x82")
    more.expect(b"\0\x04")
    observers[0].close()
    relay.wait_for_line("observer left")
    relay.observe()


def test_memory_stays_below_the_logged_ceiling(relay: RelayProcess) -> None:
    (ready,) = (line for line in relay.lines if " ready " in line)
    found = re.search(r"memory_ceiling=(\d+)", ready)
    assert found is not None
    before = _resident(relay.process.pid)
    chunk = frames(b"B", bytes(32_768))
    with ExitStack() as stack:
        pairs = []
        for number in range(40):
            receiver = relay.claim(bytes((200 + number,)))
            sender = relay.claim(bytes((100 + number,)))
            pairs.append((sender, receiver))
            stack.callback(receiver.reset)
        sent = _flood(
            {sender.socket: chunk.replace(b"B", bytes((200 + n,))) for n, (sender, _) in enumerate(pairs)},
            relay.process.pid,
        )
        grown = _resident(relay.process.pid) - before
    assert sent > 40 * len(chunk)
    assert grown < int(found[1]), f"{grown / 1e6:.0f} MB for {sent / 1e6:.0f} MB sent"


def test_with_everything_full_at_once_memory_stays_below_the_logged_ceiling(tmp_path: Path) -> None:
    """255 clients with events that take nothing and send to all, held frames, counters of drops, 512 half hellos."""
    options = ("--hold-frames=1000", "--stall-timeout=0", "--hello-timeout=0")
    with ExitStack() as stack:
        relay = stack.enter_context(RelayProcess(tmp_path, *options))
        (ready,) = (line for line in relay.lines if " ready " in line)
        found = re.search(r"memory_ceiling=(\d+)", ready)
        assert found is not None
        before = _resident(relay.process.pid)
        for place in range(2, 6):
            for half in stack.enter_context(many_connections(relay.tcp_port, 128, f"127.0.0.{place}")):
                half.sendall(b"A\x84\xff" + bytes(200))
        clients = {}
        for id in range(1, 256):
            client = clients[id] = relay.hello(bytes((id,)), EVENTS)
            # For those that come later: some are held, the others count as dropped.
            client.send(*(bytes((later, 33)) * 9 for later in range(id + 1, 256)))
        ids = [id for seed in range(129) for id in random.Random(seed).sample(list(clients), 255)]
        chunk = bytes(byte for place, id in enumerate(ids[:32_768]) for byte in (id, place & 255))
        pid = relay.process.pid
        sent = _flood({client.socket: chunk for client in clients.values()}, pid)
        grown = _peak(pid) - before
    assert sent > 255 * 2 * 65_536, "not all queues are full"
    assert grown < int(found[1]), f"{grown / 1e6:.0f} MB for {sent / 1e6:.0f} MB sent"


def _flood(chunks: dict[socket.socket, bytes], pid: int) -> int:
    """Send over each socket 4 MB of its chunk, or as much as the relay takes; return how many bytes."""
    left = dict.fromkeys(chunks, 4_000_000)
    for sock in left:
        sock.setblocking(False)
    worked = -1
    while True:
        writable = select.select([], [sock for sock in left if left[sock] > 0], [], QUIET)[1]
        # A relay that only waits for a processor is not done.
        before, worked = worked, _worked(pid)
        if not writable and worked == before and _waits(pid):
            return sum(4_000_000 - rest for rest in left.values())
        for sock in writable:
            # Whole frames, so that each piece begins with one.
            left[sock] -= sock.send(chunks[sock])


def _worked(pid: int) -> int:
    """The ticks of processor time that a process has had."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def _waits(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def test_a_principal_has_only_so_many_clients_and_one_that_left_makes_room(tmp_path: Path) -> None:
    async with running(Config(tcp=LOCALHOST, max_clients_per_principal=2)) as relay:
        first = await claim(relay, b"A")
        await claim(relay, b"B")
        assert await refusal(relay, b"C") == Refusal.FULL
        await claim(relay, b"D", source="127.0.0.2")
        await first.close()
        await claim(relay, b"A")
        assert await refusal(relay, b"C") == Refusal.FULL


async def test_no_more_connections_are_accepted_than_can_be_served(autojump_clock: trio.testing.MockClock) -> None:
    async with testing.open_relay(Config(max_pending=10, max_pending_per_address=10, hello_timeout=0)) as memory:
        streams = [memory.connect() for _ in range(1000)]
        for _ in range(20):
            assert len(memory.relay.arrivals) <= 10
            await trio.testing.wait_all_tasks_blocked()
        ended = memory.relay.sessions_ended
        assert ended["memory", "crowded_out"] + ended["memory", "full"] == 990
        for stream in streams:
            stream.close()
