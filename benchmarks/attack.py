"""An innocent pair under attack: how long its round trips take while other clients make the relay work.

``python -m benchmarks.attack ATTACK SOCKET`` attacks the relay at a Unix socket until it is killed, after a line on
standard output that says that it is at work; the pair is measured by `measure`.

1. The pair sends one frame there and one back, over and over, as `round-trip` does, with a pause between two of them,
   so that it stays a client that sends little. p50, p99 and the longest are over all its round trips.
2. The attackers share one process of their own. They send what each attack says as fast as the relay takes it, and read
   and forget what comes, but for those that are there to be full.
3. Afterwards the relay gets SIGTERM in the middle of the attack: `end` is how long it takes to end.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.programs import ROOT, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.servers import Running

EVENTS = 0x82
ACK = 0x81
FLUSH, LIST = 8, 7
PAIR = (1, 2)
FIRST = 3
PAUSE = 0.002
PATIENCE = 120.0


def _claim(path: str, id: int, options: int = ACK) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(path)
    client.sendall(bytes((id, options)))
    if client.recv(2) != bytes((id, 0)):
        raise Failed(f"id {id} was refused")
    return client


class Crowd:
    """Clients that send the same over and over, as fast as the relay takes it, and forget what they receive."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, client: socket.socket, data: bytes) -> None:
        client.setblocking(False)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if data else 0)
        self._selector.register(client, events, [data, 0])

    def serve(self, timeout: float = 1.0) -> None:
        for key, events in self._selector.select(timeout):
            client, state = key.fileobj, key.data
            assert isinstance(client, socket.socket)
            with contextlib.suppress(BlockingIOError):
                if events & selectors.EVENT_READ and not client.recv(1 << 16):
                    self._selector.unregister(client)
                    continue
                if events & selectors.EVENT_WRITE:
                    data, offset = state
                    state[1] = (offset + client.send(data[offset:])) % len(data)


def flush(path: str, crowd: Crowd) -> Iterator[None]:
    """100 clients with events that send FLUSH, beside 60 queues that are full."""
    kept = []
    for id in range(FIRST, FIRST + 60):
        full = _claim(path, id)
        kept.append(full)
        crowd.add(_claim(path, id + 60), bytes((id, 33)) * 4096)
    for id in range(FIRST + 120, FIRST + 220):
        crowd.add(_claim(path, id, EVENTS), (bytes((FIRST + id % 60, 33)) + bytes((0, FLUSH, 0, 1)) * 15) * 100)
    while kept:
        yield


def list_ids(path: str, crowd: Crowd) -> Iterator[None]:
    """200 clients with events that send LIST."""
    for id in range(FIRST, FIRST + 200):
        crowd.add(_claim(path, id, EVENTS), bytes((0, LIST, 0, 0)) * 512)
    while True:
        yield


def joins(path: str, crowd: Crowd) -> Iterator[None]:
    """One client that joins and leaves in a loop, beside 240 clients with events."""
    for id in range(FIRST, FIRST + 240):
        crowd.add(_claim(path, id, EVENTS), b"")
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(bytes((FIRST + 241, 0x80)))
        yield


def absent(path: str, crowd: Crowd) -> Iterator[None]:
    """100 clients that send large chunks to 150 absent ids."""
    ids = [id for id in range(FIRST + 100, 256) if id not in PAIR]
    order = random.Random(1).choices(ids, k=32768)
    chunk = bytes(byte for id in order for byte in (id, 33))
    for id in range(FIRST, FIRST + 100):
        crowd.add(_claim(path, id), chunk)
    while True:
        yield


def connects(path: str, crowd: Crowd) -> Iterator[None]:
    """Connections that say hello and close, as many as the relay takes, beside 8 clients that send to absent ids."""
    for id in range(FIRST, FIRST + 8):
        crowd.add(_claim(path, id), bytes((id + 100, 33)) * 32768)
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(bytes((200, 0x80)))
        yield


ATTACKS: dict[str, Callable[[str, Crowd], Iterator[None]]] = {
    "flush": flush,
    "list": list_ids,
    "joins": joins,
    "absent": absent,
    "connects": connects,
}


def main(attack: str, path: str) -> None:
    """Attack until killed."""
    crowd = Crowd()
    steps = ATTACKS[attack](path, crowd)
    next(steps)
    print("at work", flush=True)
    with contextlib.suppress(OSError):
        for _ in steps:
            crowd.serve(0 if attack in ("joins", "connects") else 1.0)


def _round_trips(first: socket.socket, second: socket.socket, seconds: float) -> list[float]:
    trips: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        first.sendall(bytes((PAIR[1], 33)))
        second.recv(2)
        second.sendall(bytes((PAIR[0], 33)))
        first.recv(2)
        trips.append(time.perf_counter() - begun)
        time.sleep(PAUSE)
    return sorted(trips)


def measure(started: Running, attack: str | None, seconds: float) -> dict[str, float]:
    """Return p50, p99 and worst of the pair's round trips, and how long the relay took to end, all in seconds.

    Raises:
        Failed: the relay refused a client or ended, or the pair waited for longer than `PATIENCE`.
    """
    path = str(started.place.socket)
    try:
        first, second = (_claim(path, id) for id in PAIR)
        with contextlib.ExitStack() as stack:
            if attack is not None:
                command = [sys.executable, "-m", "benchmarks.attack", attack, path]
                attacker = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
                stack.callback(attacker.kill)
                assert attacker.stdout is not None
                if attacker.stdout.readline() != b"at work\n":
                    raise Failed("the attackers did not get in")
            trips = _round_trips(first, second, seconds)
            begun = time.monotonic()
            started.process.send_signal(signal.SIGTERM)
            for client in (first, second):
                client.recv(2)  # the relay's end of file
                client.close()
            started.process.wait(PATIENCE)
            ended = time.monotonic() - begun
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{type(error).__name__}: {error}") from None
    return {
        "p50": trips[len(trips) // 2],
        "p99": trips[len(trips) * 99 // 100],
        "worst": trips[-1],
        "end": ended,
    }


if __name__ == "__main__":
    main(*sys.argv[1:3])
