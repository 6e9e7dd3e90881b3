"""A cable is pulled: hosts are network namespaces, the cable is a veth pair, and iptables drops what is sent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import LEFT, event
from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.needs("ip", "iptables", "netns")]

CLIENT = Path(__file__).with_name("client_process.py")
LIBRARY = Path(__file__).with_name("library_process.py")
NAMESPACE = f"triorelay-{os.getpid()}"
# A network of four addresses for each process: tests that run at the same time are on different cables.
HERE, THERE = (str(ip_address("10.213.0.0") + os.getpid() % 16384 * 4 + host) for host in (1, 2))
PROMISED = 30.0


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def other_host() -> Iterator[None]:
    """A second host, THERE, one cable away from this one, HERE."""
    ours, theirs = f"tr{os.getpid()}a", f"tr{os.getpid()}b"
    with ExitStack() as stack:
        run("ip", "netns", "add", NAMESPACE)
        stack.callback(run, "ip", "netns", "delete", NAMESPACE)
        # The interfaces go with the namespace, but later.
        stack.callback(run, "ip", "link", "delete", ours)
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", NAMESPACE)
        run("ip", "address", "add", f"{HERE}/30", "dev", ours)
        run("ip", "link", "set", ours, "up")
        for command in (("address", "add", f"{THERE}/30", "dev", theirs), ("link", "set", theirs, "up")):
            run("ip", "-n", NAMESPACE, *command)
        yield


def pull_cable() -> None:
    """From now on nothing arrives on the other host or leaves it, and neither side gets an error."""
    for chain in ("INPUT", "OUTPUT"):
        run("ip", "netns", "exec", NAMESPACE, "iptables", "-A", chain, "-j", "DROP")


def start_there(
    relay: RelayProcess, id: str, what: str, stack: ExitStack, script: Path = CLIENT
) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", NAMESPACE, sys.executable, str(script), f"{HERE}:{relay.tcp_port}", id, what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_when_the_cable_is_pulled_ids_are_free_within_thirty_seconds(tmp_path: Path, other_host: None) -> None:
    """One client is idle, to one something is under way; frames wait for neither, so only the silence can tell."""
    with RelayProcess(tmp_path, "--tcp", f"{HERE}:0") as relay, ExitStack() as stack:
        watcher, sender = relay.observe(), relay.claim(b"A")
        for id in "IB":
            start_there(relay, id, "read", stack)
        for _ in range(3):
            watcher.receive(4)
        pull_cable()
        pulled = time.monotonic()
        sender.send(b"Bx")
        assert {watcher.receive(4), watcher.receive(4)} == {event(LEFT, b"B"), event(LEFT, b"I")}
        assert time.monotonic() - pulled < PROMISED
        # Everybody else continues.
        sender.send(b"A!")
        sender.expect(b"A!")


def test_when_the_cable_is_pulled_a_client_notices_within_thirty_seconds(tmp_path: Path, other_host: None) -> None:
    """While something is under way keepalive is silent, so it alone would not tell the one that talks."""
    with RelayProcess(tmp_path, "--tcp", f"{HERE}:0") as relay, ExitStack() as stack:
        clients = [start_there(relay, id, what, stack, LIBRARY) for id, what in (("I", "idle"), ("T", "talk"))]
        pull_cable()
        pulled = time.monotonic()
        lines = [client.communicate(timeout=pulled + PROMISED - time.monotonic())[0] for client in clients]
        assert lines[0].endswith(("timed out\n", "the relay does not answer any more\n"))
        assert lines[1].endswith("the relay does not answer any more\n")


def test_frames_for_a_client_behind_a_cut_cable_end_it_by_the_stall_rule(tmp_path: Path, other_host: None) -> None:
    with RelayProcess(tmp_path, "--tcp", f"{HERE}:0", "--stall-timeout", "5") as relay, ExitStack() as stack:
        watcher, sender = relay.observe(), relay.claim(b"A")
        start_there(relay, "B", "sink", stack)
        for _ in range(2):
            watcher.receive(4)
        pull_cable()
        pulled = time.monotonic()
        sender.send_until_blocked(b"Bx" * 1_000_000)
        assert watcher.receive(4) == event(LEFT, b"B")
        assert time.monotonic() - pulled < PROMISED
        assert "reason=slow_consumer" in relay.wait_for_line("client left id=B")
        sender.close()
        assert relay.stop()["dropped.slow_consumer"] > 0
