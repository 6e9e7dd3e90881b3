"""Clients of all kinds come and go for a while; then nothing of them is left. `make soak MINUTES=30` takes longer."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.wire.client import event, frames

SECONDS = 60 * float(os.environ.get("MINUTES") or 0.25)
SAMPLES = 40
CLIENTS = 12
IDS = b"ABCDEFGH"
SLACK = 3 << 20
"""Bytes of resident memory that vary with the allocator; a leak of a byte a frame would be many times that."""
PATIENCE = 30.0
MISFITS = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x80\x00", b"\0\x80", b"A", b"A\x84\0", b"")


class Relay:
    """The relay's process, and what it says about itself."""

    def __init__(self, path: str) -> None:
        self.path = path
        script = Path(__file__).with_name("relay_process.py")
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": root},
        )
        self.tcp = self.ask()["tcp"]

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"?")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the relay is gone"
        return dict(json.loads(answer))

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


async def connect(relay: Relay, chance: random.Random, directory: Path, number: int) -> tuple[trio.SocketStream, bool]:
    """Connect in one of three ways; return whether the client is bound, and says no hello."""
    if chance.random() < 0.4:
        return await trio.open_tcp_stream("127.0.0.1", relay.tcp), False
    sock = trio.socket.socket(socket.AF_UNIX)
    bound = chance.random() < 0.5
    if bound:
        place = directory / str(number)
        place.mkdir(exist_ok=True)
        path = place / chr(chance.choice(IDS))
        path.unlink(missing_ok=True)
        await sock.bind(str(path))
    await sock.connect(relay.path)
    return trio.SocketStream(sock), bound


async def talk(stream: trio.SocketStream, chance: random.Random, *, events: bool) -> None:
    for _ in range(chance.randrange(1, 20)):
        to = bytes((chance.choice(IDS),))
        data = frames(to, chance.randbytes(chance.choice([1, 2, 100, 20_000])))
        if events and chance.random() < 0.5:
            data += event(chance.choice([6, 7, 8, 99]), chance.randrange(256))
        await stream.send_all(data + b"?" * (chance.random() < 0.1))
        if chance.random() < 0.2:
            await trio.sleep(chance.random() * 0.1)


async def read(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def live(stream: trio.SocketStream, chance: random.Random, *, bound: bool) -> None:
    """Be one client, of any kind, until it is over."""
    kind = chance.random()
    if kind < 0.1 and not bound:
        await stream.send_all(chance.choice(MISFITS))
        await trio.sleep(chance.random())
        return
    options = chance.choice([0, 1, 2])
    if not bound:
        id = chance.choice([b"\0", bytes((chance.choice(IDS),))]) if options else bytes((chance.choice(IDS),))
        await stream.send_all(id + bytes((0x80 | options,)))
    async with trio.open_nursery() as nursery:
        if kind < 0.8:
            nursery.start_soon(read, stream)
        with trio.move_on_after(chance.choice([0.1, 1, 4])):
            await talk(stream, chance, events=options == 2)
        if chance.random() < 0.5:
            await stream.send_eof()
            await trio.sleep(chance.random())
        nursery.cancel_scope.cancel()


async def come_and_go(relay: Relay, directory: Path, number: int) -> None:
    chance = random.Random(number)
    while True:
        with suppress(OSError):
            stream, bound = await connect(relay, chance, directory, number)
            async with stream:
                try:
                    await live(stream, chance, bound=bound)
                except* (OSError, trio.BrokenResourceError):
                    await trio.sleep(0.01)  # the relay closed it: refused, denied, slow
                if chance.random() < 0.3:
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def all_gone(relay: Relay) -> dict[str, Any]:
    for _ in range(100):
        state = relay.ask()
        if not state["sessions"] and not state["ledger"]["queued"]:
            return state
        await trio.sleep(PATIENCE / 100)
    raise AssertionError(f"something stays: {state}")


async def churn(relay: Relay, directory: Path, seconds: float) -> list[int]:
    """Let clients come and go; return the relay's resident memory, sampled evenly."""
    samples: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(come_and_go, relay, directory, number)
        for _ in range(SAMPLES):
            await trio.sleep(seconds / SAMPLES)
            samples.append(relay.ask()["resident"])
        nursery.cancel_scope.cancel()
    return samples


@pytest.mark.slow
async def test_after_a_churn_of_all_kinds_nothing_is_left(tmp_path: Path) -> None:
    relay = Relay(str(tmp_path / "server_socket"))
    try:
        before = relay.ask()
        samples = await churn(relay, tmp_path, SECONDS)
        after = await all_gone(relay)
        assert after["ledger"]["accepted"] > 1000
        assert after["descriptors"] == before["descriptors"]
        assert after["tasks"] <= before["tasks"]
        ledger = after["ledger"]
        assert ledger["accepted"] == ledger["written"] + sum(ledger["dropped"].values())
        third, last = samples[SAMPLES // 2 : 3 * SAMPLES // 4], samples[3 * SAMPLES // 4 :]
        assert max(last) <= max(third) + SLACK, samples
        assert relay.end() == 0
    finally:
        relay.process.kill()
        relay.process.wait()
        for pipe in (relay.process.stdin, relay.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
