"""Faults that real relays and a real NATS server showed: what each of them must not do to clients."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cluster.link import Link
from tests.cluster.test_nats import reachable
from tests.wire.client import ACK, JOINED, LEFT, PATIENCE, PING, PONG, SHARE, Client, event
from tests.wire.relay_process import SOURCE_TREE, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.conftest import StartMember
    from tests.cluster.nats_server import NatsServer

pytestmark = pytest.mark.needs("nats-server")

TAKEN = 1
UNREAD = 8192
"""Frames that a kernel may hold for a sender whose buffer is small: the relay reads them when G is another session."""


@pytest.fixture
def link(nats: NatsServer) -> Iterator[Link]:
    """A way to the server that can be cut."""
    with Link(nats.port) as link:
        yield link


@pytest.fixture
def start_linked(tmp_path: Path, link: Link) -> Iterator[StartMember]:
    """A function that runs a relay whose way to the server is `link`."""
    with ExitStack() as running:

        def start(*options: str) -> RelayProcess:
            directory = tmp_path / "linked"
            directory.mkdir()
            return running.enter_context(RelayProcess(directory, "--cluster", link.url, *options))

        yield start


def stop(relay: RelayProcess) -> None:
    """Stop the process, and wait until it has stopped."""
    relay.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, relay.process.pid, os.WSTOPPED)


def go_on(relay: RelayProcess) -> None:
    relay.process.send_signal(signal.SIGCONT)


def quiet(client: Client, seconds: float) -> bool:
    """Return whether nothing comes for so long."""
    return not select.select([client.socket], [], [], seconds)[0]


def events_of(observer: Client, id: bytes, last: int) -> list[int]:
    """Return the codes of the events about `id`, up to and with the first that is `last`."""
    codes: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while last not in codes:
        assert time.monotonic() < deadline, codes
        told = observer.receive(4)
        if told[3:] == id:
            codes.append(told[1])
    return codes


def test_a_relay_that_was_stopped_while_a_client_left_lives_on(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    a, c = one.claim(b"A"), one.claim(b"C")
    for _ in range(2):
        observer.receive(4)
    stop(one)
    try:
        a.close()
        assert events_of(observer, b"C", LEFT) == [LEFT]  # its leases ran out
    finally:
        go_on(one)
    assert events_of(observer, b"C", JOINED) == [JOINED]
    c.settle(b"C")
    two.claim(b"A")


def test_relays_live_on_where_clients_leave_while_the_engine_is_silent(
    start_member: StartMember, nats: NatsServer
) -> None:
    one = start_member()
    leaving, c = [one.claim(id) for id in (b"A", b"B", b"D")], one.claim(b"C")
    nats.signal(signal.SIGSTOP)
    try:
        for client in leaving:
            client.close()
        waiting = one.hello(b"E")
        waiting.close()  # a claim that is given up midway
        one.wait_for_line("cluster away")
        c.settle(b"C")
    finally:
        nats.signal(signal.SIGCONT)
    one.wait_for_line("cluster joined")
    for id in (b"A", b"B", b"D", b"E"):
        one.claim(id)


def test_a_claim_that_waits_while_the_engine_restarts_is_reached_afterwards(
    start_member: StartMember, nats: NatsServer
) -> None:
    one, two, three = start_member(), start_member(), start_member()
    observer = three.observe()
    two.claim(b"B")
    a = three.claim(b"A")
    for _ in range(2):
        observer.receive(4)
    stop(two)
    try:
        waiting = one.hello(b"B")  # the holder does not answer, so this waits
        assert quiet(waiting, 0.5)
        nats.kill()
        nats.start()
        waiting.expect(b"B\0")
        assert events_of(observer, b"B", JOINED)[-1] == JOINED
        for _ in range(5):
            a.send(b"B!")
        waiting.expect(b"A!" * 5)
    finally:
        go_on(two)


def test_a_new_session_gets_nothing_that_was_for_the_one_before(
    start_linked: StartMember, start_member: StartMember, link: Link
) -> None:
    one, two = start_linked(), start_member()
    observer = two.observe()
    g = one.claim(b"G")
    a = two.claim(b"A")
    for _ in range(2):
        observer.receive(4)
    a.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so the kernel holds little of what A sends
    a.send_until_blocked(b"Gx" * 4_000_000)  # G reads nothing
    link.cut()
    one.wait_for_line("cluster away")
    g.close()
    new = one.hello(b"G")
    new.expect(b"G\0")
    link.mend()
    one.wait_for_line("cluster joined")
    assert events_of(observer, b"G", JOINED) == [LEFT, JOINED]
    b = two.claim(b"B")
    b.send(b"G!")
    stale = 0
    while new.receive(2) == b"Ax":
        stale += 1
    assert stale <= UNREAD, "frames that the relay had for the session before"


def test_an_id_that_is_held_elsewhere_is_not_granted_when_the_engine_goes_away(
    start_member: StartMember, nats: NatsServer
) -> None:
    one, two = start_member(), start_member()
    observer = one.observe()
    b = two.claim(b"B")
    observer.expect(event(JOINED, b"B"))
    nats.kill()
    one.wait_for_line("cluster away")
    claim = one.hello(b"B")
    nats.start()
    claim.expect(b"B" + bytes((TAKEN,)))
    one.wait_for_line("cluster joined")
    a = one.claim(b"A")
    observer.expect(event(JOINED, b"A"))  # and nothing about B, which was there all the time
    while quiet(b, 0.1):
        a.send(b"B1")
    assert b.receive(2) == b"A1"


def test_an_id_that_was_held_elsewhere_is_granted_after_its_lease(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member(), start_member()
    observer = one.observe()
    two.claim(b"B")
    observer.expect(event(JOINED, b"B"))
    nats.kill()
    one.wait_for_line("cluster away")
    one.hello(b"B").expect(b"B\0")
    observer.expect(event(LEFT, b"B"), event(JOINED, b"B"))


def test_a_relay_that_wakes_grants_no_id_that_another_relay_has(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    one.claim(b"C")
    assert events_of(observer, b"C", JOINED) == [JOINED]
    stop(one)
    try:
        late = one.unix()
        late.send(b"A" + bytes((0x80 | ACK,)))  # it waits until the relay continues
        assert events_of(observer, b"C", LEFT) == [LEFT]
        a = two.claim(b"A")
    finally:
        go_on(one)
    late.expect(b"A" + bytes((TAKEN,)))
    one.wait_for_line("cluster joined")
    a.settle(b"A")
    assert events_of(observer, b"C", JOINED)[-1] == JOINED


def test_a_relay_that_was_stopped_shares_its_ids_again(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    near, far = one.claim(b"N", ACK | SHARE), two.claim(b"N", ACK | SHARE)
    observer.expect(event(JOINED, b"N"))
    one.claim(b"C")
    observer.expect(event(JOINED, b"C"))
    a = two.claim(b"A")
    observer.expect(event(JOINED, b"A"))
    stop(one)
    try:
        observer.expect(event(LEFT, b"C"))  # the leases of that relay ran out
        a.send(b"N1")
        far.expect(b"A1")
    finally:
        go_on(one)
    observer.expect(event(JOINED, b"C"))  # and nothing about N
    reachable(a, near, b"A", b"N")
    near.send(b"A2")
    a.expect(b"N2")


def test_a_relay_that_wakes_loses_a_shared_id_that_another_client_has_alone(start_member: StartMember) -> None:
    one, two = start_member(), start_member()
    observer = two.observe()
    holders = [one.claim(b"N", ACK | SHARE) for _ in range(2)]
    observer.expect(event(JOINED, b"N"))
    stop(one)
    try:
        observer.expect(event(LEFT, b"N"))
        n = two.claim(b"N")
        observer.expect(event(JOINED, b"N"))
    finally:
        go_on(one)
    for holder in holders:
        holder.expect_end()
    n.settle(b"N")
    one.wait_for_line("cluster joined")


def test_shared_ids_outlast_a_restart_of_the_engine(start_member: StartMember, nats: NatsServer) -> None:
    one, two = start_member("--share", "N"), start_member()
    observer = one.observe()
    near = one.bound(b"N")
    observer.expect(event(JOINED, b"N"))
    far = two.claim(b"N", ACK | SHARE)
    a, c = one.claim(b"A"), two.claim(b"C")
    for _ in range(2):
        assert observer.receive(4)[1] == JOINED
    nats.kill()
    for relay in (one, two):
        relay.wait_for_line("cluster away")
    a.send(b"N1")
    near.expect(b"A1")
    nats.start()
    for relay in (one, two):
        relay.wait_for_line("cluster joined")
    reachable(a, far, b"A", b"N")
    reachable(c, near, b"C", b"N")
    assert two.hello(b"N").receive(2) == b"N" + bytes((TAKEN,))
    observer.send(event(PING, 1))
    while (told := observer.receive(4)) != event(PONG, 1):
        assert told[3:] != b"N", "N had a holder all the time"


def test_ids_of_a_relay_that_drains_are_free_although_its_clients_stay(start_member: StartMember) -> None:
    one, two = start_member("--drain-timeout", "0"), start_member()
    observer, b = two.observe(), two.claim(b"B")
    a, n = one.claim(b"A"), one.claim(b"N", ACK | SHARE)
    for id in (b"B", b"A", b"N"):
        observer.expect(event(JOINED, id))
    a.send(b"B1")
    b.expect(b"A1")
    one.signal()
    assert {observer.receive(4), observer.receive(4)} == {event(LEFT, b"A"), event(LEFT, b"N")}
    new = two.claim(b"A")
    new.settle(b"A")
    a.expect_end()
    n.expect_end()
    a.close()
    n.close()
    one.expect_exit(0)


def test_a_server_that_cannot_be_named_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triorelay", "serve", "--cluster", "nats://a..b"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "an engine's address is nats://HOST:PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_server_that_is_not_found_makes_one_line(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--cluster", "nats://nothing.invalid") as relay:
        relay.claim(b"A")
        assert sum("cluster away" in line for line in relay.lines) == 1
