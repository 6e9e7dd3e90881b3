"""Handovers that fail: the old relay continues as if nothing had happened, and the successor says why in one line."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.handover.relays import Successor, expect_handed_over, failing_take_over, take_over
from tests.wire.client import EVENTS, JOINED, PATIENCE, event
from tests.wire.relay_process import SOURCE_TREE, RelayProcess
from triorelay.handover._conversation import Greeting, HandoverFailed, Ready, encode
from triorelay.handover._drive import take_over as receive_state
from triorelay.handover._state import READABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GREETING = encode(Greeting(READABLE, "0.1.0"))


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path) as relay:
        yield relay


def connect(relay: RelayProcess) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(f"{relay.unix_path}.handover")
    return sock


def leave_at_once(sock: socket.socket) -> None:
    sock.close()


def say_nonsense(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert b"another protocol" in sock.recv(4096)


def ask_for_an_unknown_version(sock: socket.socket) -> None:
    sock.sendall(encode(Greeting([99], "9.9")))
    assert b"release 9.9 reads states of version [99], and this is 1" in sock.recv(4096)


def say_ready_at_once(sock: socket.socket) -> None:
    sock.sendall(GREETING + encode(Ready()))
    assert b"out of turn" in sock.recv(4096)


def leave_after_the_greeting(sock: socket.socket) -> None:
    sock.sendall(GREETING)
    sock.close()


def leave_with_the_state(sock: socket.socket) -> None:
    receive_state(sock, READABLE, "0.1.0").close()


def refuse_the_state(sock: socket.socket) -> None:
    inheritance = receive_state(sock, READABLE, "0.1.0")
    inheritance.refuse("no room for it")
    inheritance.close()


def answer_the_offer_with_nonsense(sock: socket.socket) -> None:
    sock.sendall(GREETING)
    said = sock.recv(100)
    assert said.startswith(b"{")
    sock.sendall(b"thank you\n")
    while more := sock.recv(65536):
        said += more
    assert b"another protocol" in said


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (leave_at_once, "the successor left"),
        (say_nonsense, "another protocol"),
        (ask_for_an_unknown_version, "release 9.9 reads states of version [99]"),
        (say_ready_at_once, "out of turn"),
        (leave_after_the_greeting, "the successor left"),
        (leave_with_the_state, "the successor left"),
        (refuse_the_state, "no room for it"),
        (answer_the_offer_with_nonsense, "another protocol"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_successor_that_fails_at_any_step_leaves_everything_as_it_was(
    old: RelayProcess, fail: Callable[[socket.socket], None], reason: str
) -> None:
    a, b = old.claim(b"A", EVENTS), old.claim(b"B")
    a.expect(event(JOINED, b"B"))
    a.send(b"B1B")
    b.expect(b"A1")
    with connect(old) as sock:
        fail(sock)
    assert reason in old.wait_for_line("handover failed, this relay continues")
    a.send(b"2")
    b.expect(b"A2")
    a.ping(1)
    with take_over(old):
        a.send(b"B3")
        b.expect(b"A3")


def test_a_successor_that_hangs_is_given_up_after_five_seconds(old: RelayProcess) -> None:
    a, b = old.claim(b"A"), old.claim(b"B")
    with connect(old) as sock:
        inheritance = receive_state(sock, READABLE, "0.1.0")
        a.send(b"B1")
        assert "was not ready after 5 s" in old.wait_for_line("handover failed")
        b.expect(b"A1")
        with pytest.raises(HandoverFailed, match="was not ready after 5 s"):
            inheritance.confirm()
        inheritance.close()


def test_a_successor_serves_if_the_old_relay_dies_with_its_state_handed_over(old: RelayProcess) -> None:
    with connect(old) as sock:
        inheritance = receive_state(sock, READABLE, "0.1.0")
        old.process.send_signal(signal.SIGKILL)
        old.process.wait(PATIENCE)
        inheritance.confirm()
        inheritance.close()
    old._signaled = True


def test_the_successor_of_another_user_is_refused(old: RelayProcess, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can be another user")
    os.chmod(f"{old.unix_path}.handover", 0o666)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "sys.stdout.write(s.recv(999).decode())"
    )
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:3]:
        os.chmod(parent, 0o755)
    said = subprocess.run(
        [sys.executable, "-S", "-c", program, f"{old.unix_path}.handover"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    assert "uid 65534 asked, and the relay is of uid 0" in said


def test_the_socket_for_successors_is_for_the_relays_user_alone(old: RelayProcess) -> None:
    assert os.stat(f"{old.unix_path}.handover").st_mode & 0o777 == 0o600


def test_without_a_relay_a_successor_starts_as_usual(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--take-over") as relay:
        relay.claim(b"A")
        assert "took over" not in "".join(relay.lines)


def test_a_relay_that_hands_nothing_over_keeps_its_place(tmp_path: Path) -> None:
    """As an older release does, which has no such socket."""
    with RelayProcess(tmp_path, "--handover", "none") as old:
        a = old.claim(b"A")
        assert "is in use by another relay" in failing_take_over(tmp_path)
        a.send(b"A1")
        a.expect(b"A1")


def test_a_successor_with_too_few_descriptors_leaves_the_old_relay_serving(old: RelayProcess) -> None:
    clients = [old.claim(bytes((id,))) for id in range(0x30, 0x60)]
    said = failing_take_over(old.directory, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)))
    assert "too few descriptors: raise `ulimit -n`" in said
    clients[0].send(b"11")
    clients[1].expect(b"01")


def test_a_successor_that_cannot_listen_where_it_should_leaves_the_old_relay_serving(old: RelayProcess) -> None:
    a = old.claim(b"A", tcp=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = failing_take_over(old.directory, "--tcp", f"127.0.0.1:{port}")
    assert f"cannot listen on tcp 127.0.0.1:{port}" in said
    assert f"127.0.0.1:{port}" in old.wait_for_line("handover failed, this relay continues")
    assert os.path.exists(old.unix_path)
    a.send(b"A1")
    a.expect(b"A1")


def test_two_successors_at_once_take_over_one_after_the_other(old: RelayProcess) -> None:
    a = old.claim(b"A")
    command = [sys.executable, "-m", "triorelay", "serve", "--unix", old.unix_path, "--admin", "none", "--take-over"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE_TREE)}
    both = [subprocess.Popen(command, cwd=old.directory, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        expect_handed_over(old)
        first, last = in_order_of_their_end(both)
        assert first.wait(PATIENCE) == 0
        a.send(b"A1")
        a.expect(b"A1")
        last.send_signal(signal.SIGTERM)
        a.expect_end()
        a.close()
        assert last.wait(PATIENCE) == 0
    finally:
        for process in both:
            process.kill()
            process.wait()


def in_order_of_their_end(both: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Wait until one of two processes has ended; return that one first."""
    poll = select.poll()
    by_descriptor = {os.pidfd_open(process.pid): process for process in both}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    (descriptor, _), *_ = poll.poll(PATIENCE * 1000)
    first = by_descriptor[descriptor]
    for descriptor in by_descriptor:
        os.close(descriptor)
    return [first, *(process for process in both if process is not first)]


def test_a_relay_that_shuts_down_hands_nothing_over(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--drain-timeout", "30") as old:
        a = old.claim(b"A", EVENTS)
        old.signal()
        old.wait_for_line("draining")
        with connect(old) as sock:
            sock.sendall(GREETING)
            assert b"the relay is shutting down" in sock.recv(4096)
        a.close()


def test_sigusr2_starts_a_successor_with_the_same_command_line(old: RelayProcess) -> None:
    a = old.claim(b"A")
    old.signal(signal.SIGUSR2)
    old.wait_for_line("starting a successor")
    # The successor has the standard error of the old one.
    old.wait_for_lines("handed over sessions=1 frames=0", " ready ")
    assert old.process.wait(PATIENCE) == 0
    a.send(b"A1")
    a.expect(b"A1")
    with Successor(old) as last:
        a.send(b"A2")
        a.expect(b"A2")
        assert last.stop()["accepted"] == 2


def test_a_successor_that_sigusr2_starts_without_success_is_logged(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    with RelayProcess(tmp_path, config="hold_frames = 0") as old:
        a = old.claim(b"A")
        config.write_text("hold_frames = 'many'")
        old.process.send_signal(signal.SIGUSR2)
        line = old.wait_for_line("the successor ended, this relay continues")
        assert "status=2" in line
        a.send(b"A1")
        a.expect(b"A1")
