"""Random clients of three relays while the engine fails at random, all from one seed.

At each step of any task every relay's ledger balances (the realm's checker sees to that). What each client received
from each source is a subsequence, in order, of what that source sent it. When the faults are over all relays agree on
who holds what, and every id is held once.
"""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio._core import _run

from tests.cluster.realm import LEASE, Realm, open_realm, present
from tests.simulation.simulation import is_subsequence
from triorelay.protocol import HelloOption, encode_hello
from triorelay.relay import Config

IDS = b"ABCDEF"
SEEDS = 40


async def live(realm: Realm, me: int, chance: random.Random, sent: dict[tuple[int, int], bytearray]) -> None:
    """One session at a relay of chance: send, receive, and check the order of what comes."""
    member = chance.choice(realm.members)
    client = member.connect()
    received: dict[int, bytearray] = defaultdict(bytearray)

    async def receive() -> None:
        half = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await client.stream.receive_some(chance.choice([1, 7, 4096])):
                chunk = half + chunk
                half = bytes(chunk[len(chunk) & ~1 :])
                for at in range(0, len(chunk) - 1, 2):
                    received[chunk[at]].append(chunk[at + 1])
                if chance.random() < 0.1:
                    await trio.sleep(chance.random())

    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await client.send(encode_hello(me, HelloOption.ACK))
        if (await client.receive(2))[1]:
            client.stream.close()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(chance.randrange(1, 10)):
                    to = chance.choice(IDS)
                    data = chance.randbytes(chance.choice([1, 3, 500]))
                    sent[me, to] += data
                    await client.send(b"".join(bytes((to, byte)) for byte in data))
                    await trio.sleep(chance.choice([0, 0.01, 0.5]))
            await trio.sleep(chance.random())
            client.stream.close()
    for source, frames in received.items():
        assert is_subsequence(frames, sent[source, me])


async def fail(realm: Realm, chance: random.Random) -> None:
    """Break something, and mend it."""
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
    sent: dict[tuple[int, int], bytearray] = defaultdict(bytearray)
    with trio.fail_after(10_000):
        async with open_realm(3, config=config, latency=chance.choice([0, 0.001, 0.05])) as realm:
            realm.engine.unsent = chance.choice([0, 100, 1 << 18])

            async def come_and_go(me: int) -> None:
                for _ in range(chance.randrange(1, 6)):
                    await trio.sleep(chance.random() * LEASE)
                    await live(realm, me, chance, sent)

            async with trio.open_nursery() as clients:
                for me in IDS:
                    clients.start_soon(come_and_go, me)
                for _ in range(chance.randrange(4)):
                    await fail(realm, chance)
            await realm.agree("")
            stay = [await realm.members[at % 3].join(chr(id)) for at, id in enumerate(IDS)]
            await realm.agree("ABCDEF")
            held = [member.relay.exchange.registry.ids() for member in realm.members]
            assert sorted(id for ids in held for id in ids) == list(IDS)
            assert all(present(member.relay) == set(IDS) for member in realm.members)
            for at, client in enumerate(stay):
                to = (at + 1) % len(IDS)
                await client.send(bytes((IDS[to], at)))
                await stay[to].expect(bytes((IDS[at], at)))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_world_of_chance(seed: int) -> None:
    setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010 - to type checkers it is final
    _run._r.seed(seed)
    random.seed(seed)
    trio.run(world, seed, clock=trio.testing.MockClock(autojump_threshold=0))
