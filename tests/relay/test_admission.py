"""From a connection to a session: in which order claims begin."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.relay.in_memory import running
from triorelay.protocol import EventCode, HelloOption, Refusal, encode_event, encode_hello
from triorelay.relay import capture
from triorelay.relay._admission import JOINS_A_STEP, Admission

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock

    from triorelay.testing._memory import MemoryConnection


@pytest.mark.parametrize("second_binds", [False, True], ids=["both say hello", "the second binds its path"])
async def test_a_hello_between_two_accepts_in_one_step_is_not_overtaken(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, second_binds: bool
) -> None:
    """The first client is accepted without its hello. It says hello, sends and leaves before the second is accepted."""
    enter, accepted = Admission.enter, list["MemoryConnection"]()

    async with running() as world:
        first = world.memory.connect()
        second = world.bound(b"G") if second_binds else world.came(world.memory.connect())

        def enter_both_in_one_step(self: Admission, connection: MemoryConnection) -> None:
            accepted.append(connection)
            if connection is accepted[0]:
                return
            enter(self, accepted[0])
            first._outgoing.write(encode_hello(ord("G"), HelloOption.NONE) + b"Bx")
            first.close()
            enter(self, connection)

        monkeypatch.setattr(Admission, "enter", enter_both_in_one_step)
        if not second_binds:
            second.stream._outgoing.write(encode_hello(ord("G"), HelloOption.NONE))
        await second.settle(b"G")
        assert world.relay.ledger.accepted[ord("G")] == 2
        assert world.dropped() == {"no_route": 1}
        assert len(accepted) == 2


async def test_clients_join_in_the_order_of_their_hellos(autojump_clock: Clock) -> None:
    """The first is accepted without its hello, which comes before another client connects that needs none."""
    async with running() as world:
        watcher = await world.claim(b"W", HelloOption.EVENTS)
        first = world.memory.connect()
        await trio.testing.wait_all_tasks_blocked()
        first._outgoing.write(encode_hello(ord("G"), HelloOption.NONE))
        world.bound(b"H")
        await watcher.expect(encode_event(EventCode.JOINED, ord("G")) + encode_event(EventCode.JOINED, ord("H")))
        first.close()


async def test_of_many_hellos_at_once_a_few_are_read_before_other_tasks_run(autojump_clock: Clock) -> None:
    async with running() as world:
        streams = [world.memory.connect() for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()
        for id, stream in enumerate(streams, 1):
            stream._outgoing.write(encode_hello(id, HelloOption.NONE))
        joined = [0]
        while joined[-1] < len(streams):
            await trio.lowlevel.checkpoint()
            joined.append(len(world.relay.exchange.registry))
        # The reader and this test run once a pass, in any order.
        assert max(after - before for before, after in pairwise(joined)) <= 2 * JOINS_A_STEP
        for stream in streams:
            stream.close()


async def test_a_client_that_was_refused_counts_once_and_is_handed_over_to_no_successor(autojump_clock: Clock) -> None:
    """It stays connected while the relay discards what it still sends; then the relay drains."""
    async with running() as world:
        client = world.memory.connect()
        await client.send_all(b"no hello")
        assert await client.receive_some() == b""
        state, connections = capture(world.relay)
        assert (state.arrivals, connections) == ([], [])
    assert world.relay.sessions_ended == {("memory", Refusal.BAD_HELLO.label): 1}
    client.close()
