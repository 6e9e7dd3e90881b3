"""The pause that a client sees when a relay is replaced: ``python -m benchmarks.handover``, part of ``make bench``.

A probe sends a frame to itself over and over. The longest round trip while one relay takes over from another is the
pause of that handover. The other clients are idle, or half of them do not read, so that their queues are full and the
other half waits.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0
FIRST_ID = 1
PROBE = 255


class Probe(threading.Thread):
    """Round trips without end; `longest` is that of the longest since it was set to 0."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self._socket = connect(path, PROBE)

    def run(self) -> None:
        frame = bytes((PROBE, 1))
        with suppress(OSError):
            while True:
                start = time.perf_counter()
                self._socket.sendall(frame)
                if self._socket.recv(2) != frame:
                    return
                self.longest = max(self.longest, time.perf_counter() - start)


def connect(path: str, id: int) -> socket.socket:
    """Return a client that holds `id`."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while sock.connect_ex(path) != 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    sock.sendall(bytes((id, 0x81)))
    if sock.recv(2) != bytes((id, 0)):
        raise SystemExit(f"id {id} was refused")
    return sock


def start(directory: str) -> subprocess.Popen[str]:
    """Start a relay that takes over from the one in `directory`, if there is one, and wait until it is ready."""
    command = [sys.executable, "-m", "triorelay", "serve", "--unix", "socket", "--admin", "none", "--take-over"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--stall-timeout", "0"], cwd=directory, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if " ready " in line:
            return process
    raise SystemExit("the relay did not start")


def fill(clients: list[socket.socket]) -> None:
    """Let the second half send to the first, which does not read, until nothing more goes."""
    half = len(clients) // 2
    for index, sender in enumerate(clients[half:]):
        sender.setblocking(False)
        chunk = bytes((FIRST_ID + index % half, 7)) * 32768
        with suppress(BlockingIOError):
            while True:
                sender.send(chunk)


def pauses(count: int, full: bool, handovers: int) -> list[float]:
    """Return the pause of each of so many handovers among `count` clients, in seconds."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        relay = start(directory)
        try:
            path = f"{directory}/socket"
            clients = [stack.enter_context(connect(path, FIRST_ID + index)) for index in range(count - 1)]
            if full:
                fill(clients)
            probe = Probe(path)
            probe.start()
            found = []
            for _ in range(handovers):
                probe.longest = 0.0
                old, relay = relay, start(directory)
                old.communicate(timeout=PATIENCE)
                found.append(probe.longest)
            return found
        finally:
            relay.terminate()
            relay.communicate(timeout=PATIENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handovers", type=int, default=20, metavar="N", help="of each kind; default 20")
    handovers = parser.parse_args().handovers
    for name, value in machine.describe().items():
        print(f"{name}: {value}")
    print(f"\nthe pause that a client sees in a handover, of {handovers}, in ms\n")
    print(f"{'clients':30} {'p50':>8} {'p99':>8} {'worst':>8}")
    for count, full in ((2, False), (64, False), (64, True), (255, False), (255, True)):
        found = [1000 * pause for pause in pauses(count, full, handovers)]
        p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
        kind = f"{count}, {'full queues' if full else 'idle'}"
        print(f"{kind:30} {statistics.median(found):8.1f} {p99:8.1f} {max(found):8.1f}", flush=True)


if __name__ == "__main__":
    main()
