"""A relay of a realm that hands over: other relays do not notice. Over a real NATS server, but for what is lost."""

from __future__ import annotations

import signal
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from tests.cluster.realm import LEASE, Member, Realm, open_realm, until
from tests.cluster.test_nats import reachable
from tests.cluster.test_shared import share
from tests.handover.relays import Successor, take_over
from tests.wire.client import ACK, EVENTS, JOINED, LEFT, PATIENCE, SHARE, Client, event, exchange, frames, noise
from tests.wire.relay_process import RelayProcess
from triorelay.cluster import Cluster
from triorelay.handover._drive import take_over as receive_state
from triorelay.handover._state import READABLE, VERSION, HandoverState, decode, encode
from triorelay.protocol import EventCode, HelloOption, encode_event
from triorelay.relay import Config, Principal, Relay, capture, restore
from triorelay.relay._server import run_relay
from triorelay.testing._memory import MemoryConnection, MemoryListener, MemoryPoller

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.cluster.conftest import StartMember
    from tests.cluster.nats_server import NatsServer
    from triorelay.relay import RelayState

pytestmark = pytest.mark.needs("nats-server")

TAKEN = 1


def test_other_relays_and_clients_on_both_sides_do_not_notice(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, b = one.claim(b"A", EVENTS), two.claim(b"B", EVENTS)
    a.expect(event(JOINED, b"B"))
    b.send(b"A0")
    a.expect(b"B0")
    old = one
    for number in b"123":
        byte = bytes((number,))
        new = take_over(old, "--cluster", nats.url)
        a.send(b"B" + byte)
        b.expect(b"A" + byte)
        b.send(b"A" + byte)
        a.expect(b"B" + byte)
        old = new
    with old:
        assert two.hello(b"A", ACK).receive(2) == b"A\1"
        # No LEFT, JOINED, NO_ROUTE or DROPPED came, and none is under way.
        a.ping(1)
        b.ping(2)
        a.close()
        b.expect(event(LEFT, b"A"))
        c = two.claim(b"A", EVENTS)
        b.expect(event(JOINED, b"A"))
        c.send(b"B9")
        b.expect(b"A9")
        ledger = old.stop()
    assert ledger["forwarded"] == 3
    assert ledger["imported"] == 4


def test_frames_in_flight_in_both_directions_are_in_order_and_counted(
    start_member: StartMember, nats: NatsServer
) -> None:
    """Frames are lost at most, never doubled, and each client gets only what was sent to it."""
    one, two = start_member(), start_member()
    observer = two.observe()
    a, b = one.claim(b"A"), two.claim(b"B")
    observer.expect(event(JOINED, b"A"))
    observer.expect(event(JOINED, b"B"))
    done = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not done.wait(0.0005):
            a.send(b"B" + bytes((sent % 251,)))
            b.send(b"A" + bytes((sent % 251,)))
            sent += 1

    sending = threading.Thread(target=send)
    sending.start()
    try:
        with take_over(one, "--cluster", nats.url) as new:
            done.set()
            sending.join()
            arrived = {}
            for sender, receiver, source, to in ((a, b, b"A", b"B"), (b, a, b"B", b"A")):
                sender.send(to + b"\xff")
                # Counted from the bytes: a frame that came twice would seem to be 251 after itself.
                newest, count = -1, 1
                while (frame := receiver.receive(2)) != source + b"\xff":
                    assert frame[:1] == source
                    newest += (frame[1] - newest % 251) % 251 or 251
                    count += 1
                assert count - 1 <= newest + 1 <= sent
                arrived[source] = count
            a.close()
            b.close()
            ledger = new.stop()
    finally:
        done.set()
        sending.join()
    fenced = ledger["dropped.fenced"]
    assert arrived[b"B"] <= ledger["imported"] <= arrived[b"B"] + fenced
    assert two.stop()["imported"] == arrived[b"A"] <= ledger["forwarded"]


def test_a_flood_continues_after_a_handover(start_member: StartMember, nats: NatsServer) -> None:
    """Its receiver had not read, so that the credit of the sender was all but used up."""
    one, two = start_member(), start_member()
    observer = one.observe()
    a, b = one.claim(b"A"), two.claim(b"B")
    assert {observer.receive(4), observer.receive(4)} == {event(JOINED, b"A"), event(JOINED, b"B")}
    sent = frames(b"A", noise(4_000_000, 3))
    at = b.send_until_blocked(sent)
    with take_over(one, "--cluster", nats.url) as new:
        received = exchange({b: sent[at:]}, {a: len(sent)})[a]
        assert received == frames(b"B", noise(4_000_000, 3))
        b.close()
        a.close()
        assert new.stop()["imported"] == 4_000_000


def test_sigusr2_replaces_a_relay_of_a_realm(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, b = one.claim(b"A"), two.claim(b"B", EVENTS)
    one.signal(signal.SIGUSR2)
    one.wait_for_lines("handed over sessions=1 frames=0", "cluster joined")
    reachable(a, b, b"A", b"B")
    reachable(b, a, b"B", b"A")
    assert one.process.wait(PATIENCE) == 0
    with Successor(one, "--cluster", nats.url) as last:
        reachable(a, b, b"A", b"B")
        last.stop()


def leave_with_the_state(sock: socket.socket) -> None:
    receive_state(sock, READABLE, "0.1.0").close()


def test_a_successor_that_fails_leaves_the_realm_working(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, c, b = one.claim(b"A"), one.claim(b"C"), two.claim(b"B", EVENTS)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(f"{one.unix_path}.handover")
        inheritance = receive_state(sock, READABLE, "0.1.0")
        inheritance.refuse("no room for it")
        inheritance.close()
    assert "no room for it" in one.wait_for_line("handover failed, this relay continues")
    a.send(b"C1")
    c.expect(b"A1")
    one.wait_for_line("cluster joined")
    a.send(b"B1")
    b.expect(b"A1")
    b.send(b"A1")
    a.expect(b"B1")
    b.ping(1)
    with take_over(one, "--cluster", nats.url):
        a.send(b"B2")
        b.expect(b"A2")
        b.ping(2)


def test_a_relay_comes_into_a_realm_and_out_of_it_by_a_handover(
    start_member: StartMember, nats: NatsServer, tmp_path: Path
) -> None:
    two = start_member()
    b = two.claim(b"B", EVENTS)
    (tmp_path / "alone").mkdir()
    with RelayProcess(tmp_path / "alone") as alone:
        a = alone.claim(b"A")
        with take_over(alone, "--cluster", nats.url) as member:
            b.expect(event(JOINED, b"A"))
            a.send(b"B1")
            b.expect(b"A1")
            with take_over(member) as last:
                a.send(b"A2")
                a.expect(b"A2")
                b.expect(event(LEFT, b"A"))
                last.stop()


def receive_up_to(client: Client, frame: bytes) -> None:
    """Receive frames up to this one."""
    while client.receive(2) != frame:
        pass


def test_ids_that_are_shared_come_into_a_realm_and_stay_shared(
    start_member: StartMember, nats: NatsServer, tmp_path: Path
) -> None:
    two = start_member()
    b, far = two.claim(b"B", EVENTS), two.claim(b"N", ACK | SHARE)
    b.expect(event(JOINED, b"N"))
    (tmp_path / "alone").mkdir()
    with RelayProcess(tmp_path / "alone") as alone:
        near = [alone.claim(b"N", ACK | SHARE) for _ in range(2)]
        with take_over(alone, "--cluster", nats.url) as member:
            reachable(near[0], far, b"N", b"N")
            b.send(b"N1")
            for holder in (*near, far):
                receive_up_to(holder, b"B1")
            b.ping(1)  # and nothing about N, which was there all the time
            member.stop()


def test_holders_of_a_shared_id_do_not_notice_a_handover(start_member: StartMember, nats: NatsServer) -> None:
    one, two, three = start_member(), start_member(), start_member()
    a = three.claim(b"A", EVENTS)
    near, far = [one.claim(b"N", ACK | SHARE) for _ in range(2)], two.claim(b"N", ACK | SHARE)
    a.expect(event(JOINED, b"N"))
    reachable(near[0], far, b"N", b"N")
    old = one
    for number in b"123":
        byte = bytes((number,))
        new = take_over(old, "--cluster", nats.url)
        near[0].send(b"A" + byte)
        a.expect(b"N" + byte)
        far.send(b"N" + byte)
        for holder in near:
            receive_up_to(holder, b"N" + byte)
        a.send(b"N" + byte)
        for holder in (*near, far):
            holder.expect(b"A" + byte)
        old = new
    with old:
        assert two.hello(b"N", ACK).receive(2) == b"N\1"
        a.ping(1)
        far.close()
        near[0].close()
        assert old.hello(b"N", ACK | SHARE).receive(2) == b"N\0"
        a.ping(2)
        old.stop()
        assert a.receive(4) == event(LEFT, b"N")


def test_a_successor_serves_its_clients_while_the_engine_is_away(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    a, c, b = one.claim(b"A"), one.claim(b"C"), two.claim(b"B")
    nats.kill()
    one.wait_for_line("cluster away")
    with take_over(one, "--cluster", nats.url, "--cluster-required") as new:
        a.send(b"C1")
        c.expect(b"A1")
        nats.start()
        new.wait_for_line("cluster joined")
        reachable(a, b, b"A", b"B")
        reachable(b, a, b"B", b"A")


def stop_and_capture(realm: Realm, old: Member) -> tuple[RelayState, list[MemoryConnection]]:
    """End a relay of the realm as a handover does; return its state and connections."""
    state, connections = capture(old.relay)
    moved = [connection.move() for connection in connections if isinstance(connection, MemoryConnection)]
    old.running.cancel()
    realm.members.remove(old)
    return state, moved


async def start_successor(
    realm: Realm, old: Member, state: RelayState, connections: list[MemoryConnection], config: Config | None = None
) -> Member:
    """Return a relay that continues where `old` has stopped."""
    cluster = Cluster(replace(old.cluster.config, name=""), realm.engine)
    successor = Member(Relay(config or Config(), cluster), MemoryListener(), cluster)
    handed_over = decode(encode(HandoverState(VERSION, "0", [], [], state))).relay

    async def run(*, task_status: trio.TaskStatus[Relay]) -> None:
        with successor.running:
            await run_relay(
                successor.relay,
                [successor.listener],
                (),
                MemoryPoller,
                begin=lambda relay: restore(relay, handed_over, connections),
                task_status=task_status,
            )

    await realm.nursery.start(run)
    realm.members.append(successor)
    successor.clients.extend(old.clients)
    return successor


@pytest.mark.parametrize("after", [0.05, 0.15, 0.25, 0.35, 0.45])
async def test_a_handover_in_the_middle_of_a_renewal_keeps_all_tokens(after: float, autojump_clock: MockClock) -> None:
    async with open_realm(2, latency=0.1) as realm:
        one, two = realm.members
        await one.join("A")
        shares = [await share(member) for member in (one, one, two)]
        await realm.agree("AN")
        leases = [one.cluster.leases.get(ord(id)) for id in "AN"]
        await until(lambda: all(lease is not None and lease.changing.locked() for lease in leases))
        await trio.sleep(after)
        tokens = {lease: lease.token for lease in two.cluster.view}
        successor = await start_successor(realm, one, *stop_and_capture(realm, one))
        await realm.agree("AN")
        assert successor.cluster.uplink.up
        assert {lease: lease.token for lease in two.cluster.view} == tokens
        await trio.sleep(2 * LEASE)
        assert {lease: lease.token for lease in two.cluster.view} == tokens
        await shares[2].send(b"N1")
        for holder in shares[:2]:
            await holder.expect(b"N1")


async def test_what_is_lost_meanwhile_is_counted_and_its_credit_comes_back(autojump_clock: MockClock) -> None:
    """The sender's credit is for 4096 bytes: it is used up several times, the last time by what is lost."""
    async with open_realm(0) as realm:
        one, two = await realm.add(window=4096), await realm.add(window=4096)
        a, b = await one.join("A"), await two.join("B")
        await realm.agree("AB")
        await b.send(b"A1" * 3000)
        await a.expect(b"B1" * 3000)
        await trio.lowlevel.checkpoint()
        token = two.cluster.view.holders(ord("A"))
        before = stop_and_capture(realm, one)
        await b.send(b"A2" * 2000)
        await trio.sleep(0.1)
        cluster = (await start_successor(realm, one, *before)).cluster
        await realm.agree("AB")
        assert two.cluster.view.holders(ord("A")) == token
        await b.send(b"A3" * 5000)
        received = b""
        while received.count(b"3") < 5000:
            received += await a.receive(2)
        lost = 2000 - received.count(b"2")
        assert received == b"B2" * (2000 - lost) + b"B3" * 5000
        assert 0 < lost == cluster.status().lost
        await a.send(b"B4")
        await b.expect(b"A4")


async def test_a_successor_that_takes_rights_says_which_ids_elsewhere_left(autojump_clock: MockClock) -> None:
    def config(to: bytes) -> Config:
        near = Principal(name="near", certificate="near", to=frozenset(to))
        return Config(principals=(near, Principal(name="far", certificate="far", to=frozenset(b"X"))))

    async with open_realm(0) as realm:
        one, two = await realm.add(config(b"BC")), await realm.add(config(b"BC"))
        for id in "BC":
            await two.join(id, names=("far",))
        await realm.agree("BC")
        a, _ = await one.claim("A", HelloOption.ACK | HelloOption.EVENTS, names=("near",))
        present = [(EventCode.JOINED, id) for id in b"BC"]
        await a.expect(b"".join(encode_event(code, id) for code, id in (*present, (EventCode.SYNCED, 0))))
        await start_successor(realm, one, *stop_and_capture(realm, one), config=config(b"B"))
        await a.expect(encode_event(EventCode.LEFT, ord("C")))
