"""After any input the relay continues, and admits no client without a hello."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.relay.in_memory import running
from triorelay.protocol import HelloOption, encode_hello
from triorelay.relay import Config

hellos = st.builds(
    encode_hello,
    st.integers(1, 255),
    st.integers(0, 31).map(HelloOption),
    st.just(b"") | st.binary(min_size=1, max_size=255),
)
sessions = st.lists(st.binary(max_size=600) | hellos | st.tuples(hellos, st.binary()).map(b"".join), max_size=5)


def may_be_in(said: bytes) -> bool:
    return len(said) >= 2 and 0x80 <= said[1] <= 0x9F


@given(said=sessions, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_garbage_harms_no_client(said: list[bytes], cuts: list[int]) -> None:
    async def main() -> None:
        async with running(Config(hello_timeout=1, stall_timeout=1)) as world:
            await world.settled(b"W")
            for words in said:
                client = world.came(world.memory.connect())
                at = 0
                while at < len(words):
                    size = cuts[at % len(cuts)]
                    with trio.move_on_after(1):
                        try:
                            await client.send(words[at : at + size])
                        except trio.BrokenResourceError:
                            break
                    at += size
                await trio.testing.wait_all_tasks_blocked()
            assert len(world.relay.exchange.registry) <= 1 + sum(map(may_be_in, said))
            await trio.sleep(3)
            assert world.relay.exchange.registry.holder(87) is not None
            assert not world.relay.sessions_ended["memory", "error"]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
