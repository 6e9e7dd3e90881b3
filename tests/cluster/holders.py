"""The ids of the realm's chaos, of which some are shared, and what their holders send so that each byte is known."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict

import trio

from tests.wire.client import frames

ALONE, SHARED = b"ABCDEF", b"MN"
IDS = ALONE + SHARED
HOLDERS = 3
"""Clients that share each of the ids that are shared."""
TAGS = 16
SIZE = 3000
"""Bytes that each client sends to each id at the end."""

Holder = tuple[int, int, trio.SocketStream]
"""Its id, its number among those that share it, and its connection."""


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Return so many bytes; fewer if the connection ends."""
    received = b""
    while len(received) < size and (more := await stream.receive_some(size - len(received))):
        received += more
    return received


def tagged(data: bytes, me: int, number: int) -> bytes:
    """Return `data` as the session of this number sends it in the name of `me`."""
    return bytes(number * TAGS + byte % TAGS for byte in data) if me in SHARED else data


async def exchange(clients: list[Holder], relays: int) -> None:
    """Let each client send to each id, and see that each of its holders gets exactly that, but not its own."""
    await _all_reached(clients, ALONE[:relays])
    data = {
        (id, number, to): tagged(random.Random(f"{id} {number} {to}").randbytes(SIZE), id, number)
        for (id, number, _), to in itertools.product(clients, IDS)
    }

    async def send(id: int, number: int, stream: trio.SocketStream) -> None:
        for at, to in itertools.product(range(0, SIZE, SIZE // 10), IDS):
            await stream.send_all(frames(bytes((to,)), data[id, number, to][at : at + SIZE // 10]))

    async def receive(me: int, mine: int, stream: trio.SocketStream) -> None:
        expected = {
            (id, number): sent
            for (id, number, to), sent in data.items()
            if to == me and ((id, number) != (me, mine) or me in ALONE)
        }
        received = await receive_exactly(stream, 2 * sum(map(len, expected.values())))
        got: defaultdict[tuple[int, int], bytearray] = defaultdict(bytearray)
        for source, byte in zip(received[0::2], received[1::2], strict=True):
            got[source, byte // TAGS if source in SHARED else 0].append(byte)
        assert got == expected

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(send, *client)
            nursery.start_soon(receive, *client)


async def _all_reached(clients: list[Holder], probes: bytes) -> None:
    """Wait until every relay knows of every holder of the shared ids: each hears the `probes`, one of each relay."""
    holders = [stream for id, _, stream in clients if id in SHARED]
    hears_nothing_yet, all_hear = set(holders), trio.Event()

    async def probe(stream: trio.SocketStream) -> None:
        while not all_hear.is_set():
            await stream.send_all(b"".join(bytes((to, 1)) for to in SHARED))
            await trio.sleep(0.05)
        await stream.send_all(b"".join(bytes((to, 0)) for to in SHARED))

    async def hear(stream: trio.SocketStream) -> None:
        unheard, going_on = set(probes), set(probes)
        while going_on:
            source, goes_on = await receive_exactly(stream, 2)
            unheard.discard(source)
            if not goes_on:
                going_on.discard(source)
            if not unheard:
                hears_nothing_yet.discard(stream)
            if not hears_nothing_yet:
                all_hear.set()

    async with trio.open_nursery() as nursery:
        for stream in holders:
            nursery.start_soon(hear, stream)
        for id, _, stream in clients:
            if id in probes:
                nursery.start_soon(probe, stream)
