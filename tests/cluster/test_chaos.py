"""Random clients of three relays while the engine fails at random, all from one seed.

At each step of any task every relay's ledger balances (the realm's checker sees to that). What each client received
from each source is a subsequence, in order, of what that source sent it. Some ids are shared by clients of any relays:
each of their sessions writes a number of its own into the upper bits of all that it sends, so the same holds for each
pair of sessions, and no session hears itself. When the faults are over all relays agree on the holders of all ids,
every id is held once or shared, and each holder gets one copy of each frame.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio._core import _run

from tests.cluster.realm import LEASE, Member, Realm, open_realm, until
from tests.cluster.test_shared import share
from tests.simulation.simulation import is_subsequence
from triorelay.protocol import HelloOption, encode_hello
from triorelay.relay import Config

ALONE, SHARED = b"ABCDEF", b"MN"
IDS = ALONE + SHARED
HOLDERS = 3
TAG_BITS = 4
"""Bits of a data byte that say which session of a shared id sent it: more than all clients of that id have sessions."""
SEEDS = 40

Sent = dict[tuple[int, int, int], bytearray]
"""All that was sent, by source, number of the session if its id is shared, and destination."""


def tagged(data: bytes, me: int, number: int) -> bytes:
    """Return `data` as the session of this number sends it in the name of `me`."""
    low = 8 - TAG_BITS
    return bytes(number << low | byte & (1 << low) - 1 for byte in data) if me in SHARED else data


def tag_of(source: int, byte: int) -> int:
    """Return the number of the session that sent a byte in the name of `source`."""
    return byte >> 8 - TAG_BITS if source in SHARED else 0


async def live(realm: Realm, me: int, number: int, chance: random.Random, sent: Sent) -> None:
    """One session at a relay of chance: send, receive, and check the order of what comes."""
    member = chance.choice(realm.members)
    client = member.connect()
    received: dict[tuple[int, int], bytearray] = defaultdict(bytearray)
    options = HelloOption.ACK | (HelloOption.SHARE if me in SHARED else 0) | chance.choice([0, HelloOption.LOSSY])

    async def receive() -> None:
        half = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await client.stream.receive_some(chance.choice([1, 7, 4096])):
                chunk = half + chunk
                half = bytes(chunk[len(chunk) & ~1 :])
                for at in range(0, len(chunk) - 1, 2):
                    received[chunk[at], tag_of(*chunk[at : at + 2])].append(chunk[at + 1])
                if chance.random() < 0.1:
                    await trio.sleep(chance.random())

    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await client.send(encode_hello(me, options))
        if (await client.receive(2))[1]:
            client.stream.close()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(chance.randrange(1, 10)):
                    to = chance.choice(IDS)
                    data = tagged(chance.randbytes(chance.choice([1, 3, 500])), me, number)
                    sent[me, number if me in SHARED else 0, to] += data
                    await client.send(b"".join(bytes((to, byte)) for byte in data))
                    await trio.sleep(chance.choice([0, 0.01, 0.5]))
            await trio.sleep(chance.random())
            client.stream.close()
    for (source, tag), frames in received.items():
        assert is_subsequence(frames, sent[source, tag, me])
        assert me not in SHARED or (source, tag) != (me, number), "it hears itself"


async def fail(realm: Realm, chance: random.Random) -> None:
    """Break something, and repair it."""
    engine = realm.engine
    await trio.sleep(chance.random() * LEASE)
    match chance.randrange(4):
        case 0:
            engine.cut(chance.choice(realm.members).cluster)
        case 1:
            engine.kill()
            await trio.sleep(chance.choice([0.5, 2]) * LEASE)
            engine.restart()
        case 2:
            engine.stop()
            await trio.sleep(chance.choice([0.1, 2]) * LEASE)
            engine.resume()
        case _:
            engine.lose_messages = True
            await trio.sleep(chance.random())
            engine.lose_messages = False


async def world(seed: int) -> None:
    chance = random.Random(seed)
    config = Config(queue_bytes=chance.choice([2, 64, 65536]), overflow=chance.choice(["wait", "drop"]))
    sent: Sent = defaultdict(bytearray)
    numbers = {id: itertools.count() for id in IDS}
    with trio.fail_after(10_000):
        async with open_realm(3, config=config, latency=chance.choice([0, 0.001, 0.05])) as realm:
            realm.engine.unsent = chance.choice([0, 100, 1 << 18])

            async def come_and_go(me: int) -> None:
                for _ in range(chance.randrange(1, 6)):
                    await trio.sleep(chance.random() * LEASE)
                    await live(realm, me, next(numbers[me]), chance, sent)

            async with trio.open_nursery() as clients:
                for me in ALONE + HOLDERS * SHARED:
                    clients.start_soon(come_and_go, me)
                for _ in range(chance.randrange(4)):
                    await fail(realm, chance)
            await realm.agree("")
            await all_reach_all(realm, chance)


async def all_reach_all(realm: Realm, chance: random.Random) -> None:
    """Let every id be held, and see that each frame comes once to each holder that it is for."""
    stay = {id: [await realm.members[at % 3].join(chr(id))] for at, id in enumerate(ALONE)}
    for id in SHARED:
        stay[id] = [await share(chance.choice(realm.members), chr(id)) for _ in range(2 * HOLDERS)]
    await realm.agree(IDS.decode())
    await until(lambda: all(knows_holders(realm, member) for member in realm.members))
    for number, (source, to) in enumerate(itertools.product(IDS, IDS)):
        sender = chance.choice(stay[source])
        await sender.send(bytes((to, number)))
        for receiver in stay[to]:
            if receiver is not sender or to in ALONE:
                await receiver.expect(bytes((source, number)))


def knows_holders(realm: Realm, member: Member) -> bool:
    """Return whether a relay knows which others have a holder of each id."""
    others = [other for other in realm.members if other is not member]
    return all(
        {lease.name for lease in member.cluster.view.holders(id)}
        == {other.cluster.uplink.name for other in others if other.relay.exchange.registry.holder(id) is not None}
        for id in IDS
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_world_of_chance(seed: int) -> None:
    setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010 - to type checkers it is final
    _run._r.seed(seed)
    random.seed(seed)
    trio.run(world, seed, clock=trio.testing.MockClock(autojump_threshold=0))
