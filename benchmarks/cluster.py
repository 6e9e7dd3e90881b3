"""Two relays over a NATS server, beside plain NATS: ``python -m benchmarks.cluster``, and the last part of all work.

Everything is started here, on the loopback interface: the server, two relays, and the clients, which are plain sockets
in processes of their own. Ratios are what counts; they are taken within each round.

Plain NATS is nats-py: two processes, each with asyncio's event loop.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.programs import Failed, last_line
from benchmarks.servers import SEARCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.msg import Msg

CHUNK = 65536
PATIENCE = 20.0
PAIRS = 32
RATE_TARGET, LATENCY_TARGET, PAIRS_TARGET = 50e6, 1.5, 100e3
SENDER, RECEIVER = 128, 129


def claim(path: str, id: int) -> socket.socket:
    """Connect to a relay as `id`."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(path)
    client.sendall(bytes((id, 0x81)))
    answer = client.recv(2)
    if answer != bytes((id, 0)):
        raise SystemExit(f"benchmarks: the relay refused an id: {answer!r}")
    return client


def wait_for(path: str, ids: list[int]) -> None:
    """Wait until the relay knows all `ids`."""
    observer = socket.socket(socket.AF_UNIX)
    observer.settimeout(PATIENCE)
    observer.connect(path)
    observer.sendall(b"\0\x82")
    observer.recv(2, socket.MSG_WAITALL)
    missing = set(ids)
    while missing:
        event = observer.recv(4, socket.MSG_WAITALL)
        if event[1] == 1:
            missing.discard(event[3])
    observer.close()


# -- what runs in processes of their own


def receive(path: str, seconds: float) -> None:
    """Print how many frames a second arrive."""
    client = claim(path, RECEIVER)
    print("ready", flush=True)
    buffer = bytearray(1 << 20)
    client.recv_into(buffer)
    begun, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < begun + seconds:
        count += client.recv_into(buffer)
    print(count / 2 / (now - begun))


def send(path: str) -> None:
    """Send for ever."""
    client = claim(path, SENDER)
    wait_for(path, [RECEIVER])
    chunk = bytes((RECEIVER, 0x78)) * (CHUNK // 2)
    with contextlib.suppress(OSError):
        while True:
            client.sendall(chunk)


def echo(path: str, first: int, count: int) -> None:
    """Answer each frame to `count` clients from `first` on."""
    clients = [claim(path, first + at) for at in range(count)]
    print("ready", flush=True)
    answering(clients)


def answering(clients: list[socket.socket]) -> None:
    poll = select.epoll()
    for client in clients:
        poll.register(client, select.EPOLLIN)
    by_number = {client.fileno(): client for client in clients}
    while True:
        for number, _ in poll.poll():
            data = by_number[number].recv(4096)
            if not data:
                return
            by_number[number].send(data)


def ask(path: str, first: int, count: int, seconds: float) -> None:
    """Send to the echoes, one frame under way each; print the median round trip in µs, and round trips a second."""
    others = [first + count + at for at in range(count)]
    clients = [claim(path, first + at) for at in range(count)]
    wait_for(path, others)
    poll = select.epoll()
    sent: dict[int, float] = {}
    by_number = {client.fileno(): (client, bytes((to, 0x78))) for client, to in zip(clients, others, strict=True)}
    for number, (client, frame) in by_number.items():
        poll.register(client, select.EPOLLIN)
        sent[number] = time.perf_counter()
        client.send(frame)
    took: list[float] = []
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        for number, _ in poll.poll(PATIENCE):
            client, frame = by_number[number]
            client.recv(4096)
            arrived = time.perf_counter()
            took.append(arrived - sent[number])
            sent[number] = arrived
            client.send(frame)
    print(statistics.median(took) * 1e6, len(took) / (now - begun))


def plain(url: str, role: str, seconds: float) -> None:
    """nats-py: answer, or ask and print the median round trip in µs."""
    import asyncio

    import nats

    async def run() -> None:
        connection = await nats.connect(url)
        if role == "echo":

            async def answer(message: Msg) -> None:
                await connection.publish("bench.ask", message.data)

            await connection.subscribe("bench.echo", cb=answer)
            await connection.flush()
            print("ready", flush=True)
            await asyncio.Event().wait()
        took: list[float] = []
        sent, over = 0.0, asyncio.Event()

        async def again(message: Msg) -> None:
            nonlocal sent
            now = time.perf_counter()
            took.append(now - sent)
            if now >= end:
                over.set()
                return
            sent = time.perf_counter()
            await connection.publish("bench.echo", b"xx")

        await connection.subscribe("bench.ask", cb=again)
        await connection.flush()
        end = time.perf_counter() + seconds
        sent = time.perf_counter()
        await connection.publish("bench.echo", b"xx")
        await over.wait()
        print(statistics.median(took) * 1e6)
        await connection.close()

    asyncio.run(run())


# -- what starts them


@contextlib.contextmanager
def started(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run a process for the length of the block."""
    process: subprocess.Popen[str] = subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def role(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.cluster", "--role", *map(str, arguments)]


@contextlib.contextmanager
def answerer(*arguments: object) -> Iterator[None]:
    """Run a role that says when it is ready."""
    with started(role(*arguments), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise Failed("a client failed")
        yield


def figures(*arguments: object) -> list[float]:
    done = subprocess.run(role(*arguments), stdout=subprocess.PIPE, text=True, timeout=6 * PATIENCE)
    if done.returncode:
        raise Failed("a client failed")
    return [float(word) for word in done.stdout.split()]


@contextlib.contextmanager
def relay(directory: Path, url: str) -> Iterator[str]:
    """Run a relay of the realm; gives its path."""
    directory.mkdir()
    path = str(directory / "socket")
    command = [sys.executable, "-m", "triorelay", "serve", "--unix", path, "--admin", "none", "--cluster", url]
    with (directory / "log").open("w") as log, started([*command, "--cluster-required"], stderr=log) as process:
        deadline = time.monotonic() + PATIENCE
        while " ready " not in (directory / "log").read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"a relay does not start: {last_line((directory / 'log').read_text())}")
            time.sleep(0.05)
        yield path


@contextlib.contextmanager
def server(directory: Path) -> Iterator[str]:
    """Run a NATS server; gives its address."""
    program = shutil.which("nats-server", path=SEARCH)
    assert program is not None, "the caller has asked what is missing"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-js", "-sd", str(directory), "-a", "127.0.0.1", "-p", str(port)]
    with started(command, stderr=subprocess.DEVNULL):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed("nats-server does not start") from None
                time.sleep(0.05)
            else:
                break
        yield f"nats://127.0.0.1:{port}"


def measure(one: str, two: str, url: str, seconds: float) -> dict[str, float]:
    """Return the figures of one round."""
    with started(role("receive", two, seconds), stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        with started(role("send", one)):
            rate = float(receiver.communicate(timeout=6 * PATIENCE)[0])
    with answerer("plain", url, "echo", seconds):
        (bare,) = figures("plain", url, "ask", seconds)
    with answerer("echo", two, 131, 1):
        across, _ = figures("ask", one, 130, 1, seconds)
    with answerer("echo", two, 128 + PAIRS, PAIRS):
        busy, trips = figures("ask", one, 128, PAIRS, seconds)
    return {
        "rate": rate,
        "bare": bare / 2,
        "across": across / 2,
        "ratio": across / bare,
        "pairs": 2 * trips,
        "busy": busy / 2,
    }


def missing() -> str | None:
    """Why this can't be measured on this machine, or None."""
    if shutil.which("nats-server", path=SEARCH) is None:
        return "no program nats-server (Debian: apt install nats-server)"
    return None if importlib.util.find_spec("nats") else "no nats-py (make bench installs it in .venv-bench)"


def medians(rounds: int, seconds: float) -> dict[str, float]:
    """Measure so many rounds.

    Raises:
        Failed: something did not start, or a client failed.
    """
    with tempfile.TemporaryDirectory(prefix="triorelay-bench-") as place:
        directory = Path(place)
        with server(directory / "nats") as url, relay(directory / "1", url) as one, relay(directory / "2", url) as two:
            samples = [measure(one, two, url, seconds) for _ in range(rounds)]
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def text(median: dict[str, float]) -> str:
    """The figures as a table, with their targets."""
    rate, pairs = median["rate"] / 1e6, median["pairs"] / 1e3
    return f"""\
two relays over NATS, medians
one to one across two relays, large writes  {rate:8.1f} M frames/s  (target {RATE_TARGET / 1e6:.0f})
one way across two relays, one frame        {median["across"]:8.1f} µs median
one way by nats-py alone                    {median["bare"]:8.1f} µs median
  ratio                                     {median["ratio"]:8.2f}  (target at most {LATENCY_TARGET})
{PAIRS} pairs across two relays, closed loop     {pairs:8.1f} k frames/s  (stretch {PAIRS_TARGET / 1e3:.0f}), \
{median["busy"]:.0f} µs one way"""


def play(name: str, *rest: str) -> None:
    """Be one of the processes that a measurement consists of."""
    match name:
        case "receive":
            receive(rest[0], float(rest[1]))
        case "send":
            send(rest[0])
        case "echo":
            echo(rest[0], int(rest[1]), int(rest[2]))
        case "ask":
            ask(rest[0], int(rest[1]), int(rest[2]), float(rest[3]))
        case "plain":
            plain(rest[0], rest[1], float(rest[2]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.role:
        play(*chosen.role)
        return 0
    try:
        if reason := missing():
            raise Failed(reason)
        found = medians(chosen.rounds, chosen.seconds)
    except Failed as failure:
        print(f"benchmarks: {failure}", file=sys.stderr)
        return 1
    print(f"{os.cpu_count()} cores, {chosen.rounds} rounds of {chosen.seconds:g} s each")
    print(text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
