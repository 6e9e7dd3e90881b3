"""The fast path and the plain one: the same input gives the same bytes and the same counts."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.in_memory import Client, running
from triorelay.protocol import HelloOption, encode_hello
from triorelay.relay import Config

IDS = b"ABE"
ids = st.sampled_from(IDS + b"Z\0")
frames = st.lists(st.tuples(ids, st.integers(0, 9)), max_size=12).map(lambda pairs: b"".join(map(bytes, pairs)))
pieces = frames | st.binary(max_size=3)
Step = tuple[int, bytes, bool]
steps = st.lists(st.tuples(st.sampled_from(IDS), pieces, st.booleans()), max_size=20)
Outcome = tuple[dict[int, bytes], object, object, object]


async def take(client: Client) -> bytes:
    """Return what has arrived by now."""
    received = b""
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.001):
        while more := await client.stream.receive_some():
            received += more
    return received


async def play(script: list[Step], config: Config, *, pump: bool) -> Outcome:
    received = dict.fromkeys(IDS, b"")
    async with running(config, capacity=16, pump=pump) as world:
        clients = {id: world.bound(bytes((id,))) for id in IDS[:2]}
        clients[IDS[2]] = world.came(world.memory.connect())
        await clients[IDS[2]].send(encode_hello(IDS[2], HelloOption.EVENTS))
        await trio.testing.wait_all_tasks_blocked()
        for id, data, reads in script:
            with trio.move_on_after(0.001):
                await clients[id].send(data)
            await trio.testing.wait_all_tasks_blocked()
            if reads:
                for reader in IDS:
                    received[reader] += await take(clients[reader])
        more = True
        while more:
            more = False
            for reader in IDS:
                last = await take(clients[reader])
                received[reader] += last
                more = more or bool(last)
        status = world.relay.snapshot()
    return received, status["pairs"], status["drops"], status["ledger"]


def outcome(script: list[Step], config: Config, *, pump: bool) -> Outcome:
    async def main() -> Outcome:
        return await play(script, config, pump=pump)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=60)
@given(script=steps, queue_bytes=st.sampled_from([2, 8, 65536]))
def test_with_the_pump_and_without_every_byte_and_count_is_the_same(script: list[Step], queue_bytes: int) -> None:
    config = Config(queue_bytes=queue_bytes, stall_timeout=0)
    assert outcome(script, config, pump=True) == outcome(script, config, pump=False)
