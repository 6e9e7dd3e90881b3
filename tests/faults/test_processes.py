"""Clients that are stopped, killed and cut off, against the relay as a process."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import ACK, EVENTS, JOINED, LEFT, LOSSY, SHARE, event, exchange, frames, noise
from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Spawn(Protocol):
        def __call__(self, relay: RelayProcess, id: str, *what: str, tcp: bool = False) -> subprocess.Popen[str]: ...


SCRIPT = Path(__file__).with_name("client_process.py")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path) as relay:
        yield relay


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """A function that starts a client process and waits until it has its id."""
    with ExitStack() as processes:

        def start(relay: RelayProcess, id: str, *what: str, tcp: bool = False) -> subprocess.Popen[str]:
            address = f"127.0.0.1:{relay.tcp_port}" if tcp else relay.unix_path
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), address, id, *what], stdout=subprocess.PIPE, text=True
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_output(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_receiver_that_is_stopped_for_five_seconds_loses_nothing(
    relay: RelayProcess, spawn: Spawn, tcp: bool
) -> None:
    data = noise(2_000_000, 1)
    receiver = spawn(relay, "B", "read", str(2 * len(data)), tcp=tcp)
    sender = relay.claim(b"A", EVENTS, tcp=tcp)
    os.kill(receiver.pid, signal.SIGSTOP)
    resume = threading.Timer(5, os.kill, (receiver.pid, signal.SIGCONT))
    resume.start()
    sender.send(frames(b"B", data))
    assert read_output(receiver) == [2 * len(data), zlib.crc32(frames(b"A", data))]
    resume.join()


def test_a_receiver_killed_in_a_flood_frees_its_id_at_once_and_the_sender_stays(
    relay: RelayProcess, spawn: Spawn
) -> None:
    watcher = relay.observe()
    receiver = spawn(relay, "B", "sink")
    flooder = spawn(relay, "F", "flood", "B")
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "flowing\n"
    os.kill(receiver.pid, signal.SIGKILL)
    killed = time.monotonic()
    while watcher.receive(4) != event(LEFT, b"B"):
        pass
    assert time.monotonic() - killed < 1, "promised are 100 ms on a machine that has nothing else to do"
    assert flooder.poll() is None
    # The flood continues, to the new holder of the id.
    relay.claim(b"B").expect(b"Ff")
    flooder.kill()
    flooder.wait()


def test_a_paused_sender_that_is_killed_makes_nothing_spin_and_its_id_becomes_free(
    tmp_path: Path, spawn: Spawn
) -> None:
    with RelayProcess(tmp_path, "--stall-timeout", "3") as relay:
        watcher = relay.observe()
        relay.claim(b"S")
        flooder = spawn(relay, "F", "flood", "S")
        relay.wait_for_line("client waits")
        os.kill(flooder.pid, signal.SIGKILL)
        flooder.wait()
        before, start = cpu_seconds(relay.process.pid), time.monotonic()
        while watcher.receive(4) != event(LEFT, b"F"):
            pass
        assert cpu_seconds(relay.process.pid) - before < 0.5 * max(1.0, time.monotonic() - start)
        relay.claim(b"F")


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_thousand_clients_of_one_id_one_after_the_other_all_get_through(
    relay: RelayProcess, spawn: Spawn, tcp: bool
) -> None:
    spawn(relay, "K", "read")
    spawn(relay, "F", "flood", "K")
    receiver = relay.claim(b"B")
    received = bytearray()
    for number in range(1000):
        with (relay.tcp() if tcp else relay.unix()).socket as one_shot:
            one_shot.sendall(b"A\x80" + b"B" + bytes((number % 256,)) + b"B" + bytes((number // 256,)))
        received += receiver.receive(4)
    assert received == b"".join(b"A" + bytes((n % 256,)) + b"A" + bytes((n // 256,)) for n in range(1000))


@pytest.mark.parametrize("way", ["unix", "tcp", "bound"])
def test_a_thousand_clients_of_one_id_that_wait_for_nothing_all_get_through(
    relay: RelayProcess, tmp_path: Path, way: str
) -> None:
    receiver, own_path = relay.claim(b"B"), str(tmp_path / "Q")
    for number in range(1000):
        one_shot = relay.tcp() if way == "tcp" else relay.unix(own_path if way == "bound" else None)
        with one_shot.socket:
            one_shot.send((b"" if way == "bound" else b"Q\x80") + b"B" + bytes((number % 256,)))
        if way == "bound":
            Path(own_path).unlink(missing_ok=True)  # the relay may have removed it already
    # Nothing is promised about the order of two sessions.
    received = receiver.receive(2000)
    assert received[0::2] == b"Q" * 1000
    assert sorted(received[1::2]) == sorted(number % 256 for number in range(1000))


def test_a_destination_that_never_reads_slows_no_other(relay: RelayProcess) -> None:
    stuck, flooder = relay.claim(b"S"), relay.claim(b"F")
    first, second = relay.claim(b"1"), relay.claim(b"2")
    flooder.send_until_blocked(frames(b"S", bytes(2_000_000)))
    times = []
    for _ in range(2000):
        start = time.monotonic()
        first.send(b"2x")
        second.expect(b"1x")
        second.send(b"1y")
        first.expect(b"2y")
        times.append(time.monotonic() - start)
    assert statistics.quantiles(times, n=100)[98] < 0.05
    flooder.close()
    stuck.close()


def test_two_clients_that_flood_each_other_flow_once_they_read(relay: RelayProcess) -> None:
    first, second = relay.claim(b"A"), relay.claim(b"B")
    there, back = frames(b"B", noise(500_000, 2)), frames(b"A", noise(500_000, 3))
    sent = first.send_until_blocked(there), second.send_until_blocked(back)
    assert min(sent) < len(there)
    received = exchange({first: there[sent[0] :], second: back[sent[1] :]}, {first: len(back), second: len(there)})
    assert received[first] == frames(b"B", back[1::2])
    assert received[second] == frames(b"A", there[1::2])


def test_a_flood_of_sixteen_under_sigterm_loses_no_accepted_frame(relay: RelayProcess, spawn: Spawn) -> None:
    readers = {id: spawn(relay, id, "read") for id in "abcd"}
    flooders = [spawn(relay, chr(ord("A") + number), "flood", "abcd"[number % 4]) for number in range(16)]
    slow = relay.claim(b"z", ACK)
    feeder = relay.claim(b"y", ACK)
    feeder.send_until_blocked(frames(b"z", bytes(400_000)))
    start = time.monotonic()
    relay.signal()
    # The flooders end when the relay closes, or when an event reports that their destination left.
    received = {id: read_output(reader)[0] for id, reader in readers.items()}
    while slow.socket.recv(65536):
        pass
    for flooder in flooders:
        flooder.kill()
    relay.expect_exit(0)
    assert time.monotonic() - start < 8
    assert sum(received.values()) // 2 <= relay.ledger["written"]
    assert relay.ledger["written"] - sum(received.values()) // 2 <= 400_000, "written to readers and not received"


def test_a_new_session_never_gets_what_was_queued_for_the_old_one(relay: RelayProcess) -> None:
    sender, old = relay.claim(b"A"), relay.claim(b"B")
    sent = sender.send_until_blocked(frames(b"B", bytes(400_000)))
    assert sent < 800_000
    old.close()
    new = relay.claim(b"B")
    fresh = relay.claim(b"C")
    fresh.send(b"B!")
    # What the sender had not yet got rid of may go to the new session; what was read from it before may not.
    received = b""
    while not received.endswith(b"C!"):
        received += new.receive(2)
    assert len(received) <= 2 * 65536 + 2


def test_a_client_that_bound_a_path_is_present_from_the_moment_it_connects(relay: RelayProcess) -> None:
    """As with the article's server, which looks at its listener before it looks at its clients."""
    first = relay.article(b"A")
    for id in b"BCDEFGHIJK":
        relay.process.send_signal(signal.SIGSTOP)
        second = relay.bound(bytes((id,)))
        first.send(bytes((id,)) + b"1")
        relay.process.send_signal(signal.SIGCONT)
        second.expect(b"A1")


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_when_a_holder_of_a_shared_id_dies_in_a_flood_the_others_get_everything(
    tmp_path: Path, spawn: Spawn, what: signal.Signals
) -> None:
    """One that is killed is gone at once, one that is stopped is closed by the stall rule; the id stays held."""
    data = noise(2_000_000, 4)
    size = 2 * len(data)
    with RelayProcess(tmp_path, "--stall-timeout", "3") as relay:
        watcher = relay.observe()
        dying, reader = spawn(relay, f"N{SHARE}", "sink"), spawn(relay, f"N{SHARE}", "read", str(size))
        last, sender = relay.claim(b"N", ACK | SHARE), relay.claim(b"A")
        flood = threading.Thread(target=sender.send, args=(frames(b"N", data),), daemon=True)
        flood.start()
        taken = last.receive(200_000)
        assert dying.stdout is not None
        assert dying.stdout.readline() == "flowing\n"
        dying.send_signal(what)
        assert taken + last.receive(size - len(taken)) == frames(b"A", data)
        assert read_output(reader) == [size, zlib.crc32(frames(b"A", data))]
        flood.join()
        reader.wait()
        relay.hello(b"N", ACK).expect(b"N\1")
        sender.close()
        watcher.expect(event(JOINED, b"N"), event(JOINED, b"A"), event(LEFT, b"A"))
        last.close()
        watcher.expect(event(LEFT, b"N"))
        ledger = relay.stop()
    assert ledger["accepted"] == len(data)
    if what == signal.SIGSTOP:
        assert ledger["dropped.slow_consumer"] > 0


def test_a_lossy_holder_that_is_stopped_in_a_flood_slows_no_client(tmp_path: Path, spawn: Spawn) -> None:
    with RelayProcess(tmp_path, "--stall-timeout", "0") as relay:
        spawn(relay, f"N{SHARE}", "sink")
        stopped = spawn(relay, f"N{SHARE | LOSSY}", "sink")
        first, second = relay.claim(b"1"), relay.claim(b"2")
        flooder = spawn(relay, "F", "flood", "N")
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "flowing\n"
        stopped.send_signal(signal.SIGSTOP)
        times = []
        for _ in range(200):
            start = time.monotonic()
            first.send(b"2x")
            second.expect(b"1x")
            second.send(b"1y")
            first.expect(b"2y")
            times.append(time.monotonic() - start)
        assert statistics.median(times) < 0.5
        # The flood continues: a holder that joins now gets it.
        late = relay.claim(b"N", ACK | SHARE)
        for _ in range(10):
            assert set(late.receive(100_000)[0::2]) == set(b"F")
        late.close()
        flooder.kill()
        flooder.wait()
        # A relay that drains would wait for it.
        stopped.kill()
        assert stopped.wait() == -signal.SIGKILL
        assert relay.stop()["dropped.queue_full"] > 0


@pytest.mark.slow
def test_a_reader_of_one_kilobyte_a_second_is_not_taken_for_one_that_reads_nothing(tmp_path: Path) -> None:
    """Five times as quick and with a fifth of the patience, so that the test takes no minute."""
    with RelayProcess(tmp_path, "--stall-timeout", "2") as relay:
        watcher, sender = relay.observe(), relay.claim(b"A")
        reader = relay.claim(b"B")
        watcher.expect(event(1, b"A"), event(1, b"B"))
        sender.send_until_blocked(frames(b"B", bytes(400_000)))
        for _ in range(100):
            reader.receive(500)
            assert not select.select([watcher.socket], [], [], 0.1)[0], "a client was closed"
        sender.close()
        reader.close()
