"""Which clients hold ids, and which others get events about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.relay.in_memory import running
from triorelay.protocol import CloseReason, HelloOption, encode_event
from triorelay.protocol import EventCode as Event

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock


async def test_watchers_get_joins_and_leaves(autojump_clock: Clock) -> None:
    heard: list[tuple[Event, int]] = []
    async with running() as world:
        world.relay.exchange.registry.watchers.add(lambda code, session: heard.append((code, session.id)))
        a = world.bound(b"A")
        await a.settle(b"A")
        session = world.relay.exchange.registry.holder(65)
        assert session is not None
        await world.claim(b"\0", HelloOption.EVENTS)
        await a.stream.send_eof()
        await session.freed.wait()
        assert heard == [(Event.JOINED, 65), (Event.LEFT, 65)]


async def test_freeing_an_old_session_twice_takes_nothing_from_the_new_one(autojump_clock: Clock) -> None:
    async with running() as world:
        e = await world.claim(b"E", HelloOption.EVENTS)
        await world.bound(b"A").settle(b"A")
        old = world.relay.exchange.registry.holder(65)
        assert old is not None
        old.close(CloseReason.CLOSED)
        await old.freed.wait()
        await world.bound(b"A").settle(b"A")
        new = world.relay.exchange.registry.holder(65)
        world.relay.exchange.registry.free(old)
        assert world.relay.exchange.registry.holder(65) is new
        joined, left = encode_event(Event.JOINED, 65), encode_event(Event.LEFT, 65)
        await e.expect(joined, left, joined)
        await e.settle(b"E")


async def test_the_highest_free_id_of_the_upper_half_is_given(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        await world.claim(b"\xff")
        assert registry.highest_free(frozenset(range(256))) == 254
        assert registry.highest_free(frozenset({255, 65})) == 0
        assert registry.ids() == [255]


async def test_the_status_shows_clients_pairs_and_drops(autojump_clock: Clock) -> None:
    async with running() as world:
        a, b = world.bound(b"A"), await world.claim(b"B", HelloOption.EVENTS)
        await b.settle(b"B")
        await a.send(b"B1B2Z3")
        await a.settle(b"A")
        status = world.relay.snapshot()
        assert status["pairs"] == [(65, 65, 1), (65, 66, 2), (66, 66, 1)]
        assert status["drops"] == [[65, 90, "no_route", 1]]
        clients = status["clients"]
        assert isinstance(clients, list)
        assert [(one["name"], one["sent"], one["received"], one["events"]) for one in clients] == [
            ("A", 4, 1, False),
            ("B", 1, 3, True),
        ]
        assert all(one["waiting_for"] is None and one["queued"] == 0 for one in clients)
