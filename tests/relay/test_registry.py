"""Which clients hold ids, and which others get events about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.relay.in_memory import World, running
from triorelay.protocol import ALL_IDS, CloseReason, HelloOption, encode_event
from triorelay.protocol import EventCode as Event
from triorelay.relay import Peer, RemoteLease
from triorelay.testing._memory import MemoryListener

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock

    from triorelay.relay._outbox import Outbox


def elsewhere(id: int, relay: str = "one", *, shared: bool = True, to: frozenset[int] | None = None) -> RemoteLease:
    """Return the lease of another relay, of which a client holds `id`."""
    return RemoteLease(id=id, token=1, relay=relay, name=relay, to=to, shared=shared)


def queue(world: World, id: int, *, shared: bool = True) -> Outbox:
    """Return a queue for `id` that writes to a connection of its own."""
    return world.relay.exchange.open_outbox(id, MemoryListener().connection(Peer("memory", "memory")), shared=shared)


async def test_watchers_get_joins_and_leaves(autojump_clock: Clock) -> None:
    heard: list[tuple[Event, int]] = []
    async with running() as world:
        world.relay.exchange.registry.watchers.add(lambda code, session: heard.append((code, session.id)))
        a = await world.settled(b"A")
        session = world.session(b"A")
        await world.claim(b"\0", HelloOption.EVENTS)
        await a.stream.send_eof()
        await session.freed.wait()
        assert heard == [(Event.JOINED, 65), (Event.LEFT, 65)]


async def test_freeing_an_old_session_twice_takes_nothing_from_the_new_one(autojump_clock: Clock) -> None:
    async with running() as world:
        e = await world.claim(b"E", HelloOption.EVENTS)
        await world.bound(b"A").settle(b"A")
        old = world.session(b"A")
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


async def test_an_id_that_relays_elsewhere_share_joins_with_the_first_and_leaves_with_the_last(
    autojump_clock: Clock,
) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        one, two = elsewhere(ord("S"), "one"), elsewhere(ord("S"), "two")
        queues = [queue(world, ord("S")), queue(world, ord("S"))]
        registry.add_remote(one, queues[0])
        registry.add_remote(two, queues[1])
        assert registry.remote_holders == {ord("S"): [one, two]}
        assert registry.shared == {ord("S"): queues}
        for gone in (one, one, two, two):
            registry.remove_remote(gone)
        assert registry.remote_holders == {}
        assert registry.shared == {ord("S"): queues}, "a queue stays until it is taken away"
        registry.remove_queue(queues[0])
        registry.remove_queue(queues[0])
        assert registry.shared == {ord("S"): queues[1:]}
        registry.remove_queue(queues[1])
        assert registry.shared == {}
        await e.expect(encode_event(Event.JOINED, ord("S")), encode_event(Event.LEFT, ord("S")))
        await e.settle(b"E")


async def test_a_holder_elsewhere_that_clients_know_of_is_placed_without_an_event(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        alone = elsewhere(ord("N"), shared=False)
        outbox = queue(world, ord("N"), shared=False)
        registry.place_remote(alone, outbox)
        registry.add_remote(alone, outbox)
        assert registry.outboxes[ord("N")] is outbox
        assert registry.remote_holders == {ord("N"): [alone]}
        registry.remove_queue(queue(world, ord("N"), shared=False))
        assert registry.outboxes[ord("N")] is outbox, "another queue was taken away"
        registry.remove_queue(outbox)
        assert registry.outboxes[ord("N")] is None
        await e.settle(b"E")
        registry.remove_remote(alone)


async def test_an_id_that_is_held_elsewhere_is_not_free(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        outboxes = queue(world, 255, shared=False), queue(world, 254)
        registry.place_remote(elsewhere(255, shared=False), outboxes[0])
        registry.place_remote(elsewhere(254), outboxes[1])
        assert registry.highest_free(frozenset(ALL_IDS)) == 253
        for outbox in outboxes:
            registry.remove_queue(outbox)
        assert registry.highest_free(frozenset(ALL_IDS)) == 255


async def test_an_answer_to_list_is_made_anew_after_each_change(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        lease, outbox = elsewhere(ord("S")), queue(world, ord("S"))
        asked, synced = encode_event(Event.LIST, 0), encode_event(Event.SYNCED, 0)
        joined = encode_event(Event.JOINED, ord("S"))
        await e.send(asked)
        await e.expect(encode_event(Event.JOINED, ord("E")), synced)
        registry.place_remote(lease, outbox)
        await e.send(asked)
        await e.expect(encode_event(Event.JOINED, ord("E")), joined, synced)
        registry.remove_remote(lease)
        registry.remove_queue(outbox)
        await e.expect(encode_event(Event.LEFT, ord("S")))
        await e.send(asked)
        await e.expect(encode_event(Event.JOINED, ord("E")), synced)
        a = await world.claim(b"A")
        a_joined = encode_event(Event.JOINED, ord("A"))
        await e.expect(a_joined)
        await e.send(asked)
        await e.expect(a_joined, encode_event(Event.JOINED, ord("E")), synced)
        await a.stream.send_eof()
        await e.expect(encode_event(Event.LEFT, ord("A")))
        await e.send(asked)
        await e.expect(encode_event(Event.JOINED, ord("E")), synced)


async def test_reported_drops_count_for_an_id_that_becomes_shared(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        a, s = ord("A"), ord("S")
        registry.note_dropped_sent(a, s)
        assert registry.has_sent_dropped(a, s)
        assert not registry.has_sent_dropped(s, a)
        outboxes = queue(world, s), queue(world, s)
        for outbox in outboxes:
            registry.place_remote(elsewhere(s), outbox)
        assert outboxes[0].dropped_sent == {a}
        assert registry.dropped_sent[s] == set()
        assert registry.has_sent_dropped(a, s)
        registry.note_dropped_sent(ord("B"), s)
        assert outboxes[0].dropped_sent == {a, ord("B")}
        assert outboxes[1].dropped_sent == set()
        registry.forget_dropped_sent(a)
        assert not registry.has_sent_dropped(a, s)
        assert registry.has_sent_dropped(ord("B"), s)
        for outbox in outboxes:
            registry.remove_queue(outbox)


async def test_who_left_gets_no_events_and_its_shared_id_goes_with_the_last(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        shares = HelloOption.EVENTS | HelloOption.SHARE
        one, two = await world.claim(b"S", shares), await world.claim(b"S", shares)
        sessions = registry.holders(ord("S"))
        assert [session.outbox for session in sessions] == registry.shared[ord("S")]
        assert (len(registry), registry.ids()) == (3, [ord("E"), ord("S")])
        for client, session in zip((one, two), sessions, strict=True):
            assert session in registry.subscribers
            await client.stream.send_eof()
            await session.freed.wait()
            assert session not in registry.subscribers
        assert registry.holders(ord("S")) == ()
        assert registry.ids() == [ord("E")]
        assert registry.shared == {}
        await e.expect(encode_event(Event.JOINED, ord("S")), encode_event(Event.LEFT, ord("S")))
        await e.settle(b"E")


async def test_an_absent_id_is_told_again_after_it_was_held_here_or_elsewhere(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        joined, left, no_route = (encode_event(code, ord("N")) for code in (Event.JOINED, Event.LEFT, Event.NO_ROUTE))
        await e.send(b"N1N2")
        await e.expect(no_route)
        n = await world.settled(b"N")
        await n.stream.send_eof()
        await e.expect(joined, left)
        await e.send(b"N3N4")
        await e.expect(no_route)
        lease, outbox = elsewhere(ord("N"), shared=False), queue(world, ord("N"), shared=False)
        registry.add_remote(lease, outbox)
        registry.remove_remote(lease)
        registry.remove_queue(outbox)
        await e.expect(joined, left)
        await e.send(b"N5N6")
        await e.expect(no_route)
        await e.settle(b"E")


async def test_of_who_leaves_no_drop_counts_as_told(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        a = await world.claim(b"A", HelloOption.EVENTS)
        session = world.session(b"A")
        registry.note_dropped_sent(ord("A"), ord("S"))
        await a.stream.send_eof()
        await session.freed.wait()
        assert not registry.has_sent_dropped(ord("A"), ord("S"))


async def test_a_holder_elsewhere_that_the_policy_hides_is_not_told(autojump_clock: Clock) -> None:
    async with running() as world:
        registry = world.relay.exchange.registry
        e = await world.claim(b"E", HelloOption.EVENTS)
        session = world.session(b"E")
        session.to = frozenset({ord("E")})
        hidden, seen = elsewhere(ord("S"), "one", to=frozenset()), elsewhere(ord("S"), "two", to=frozenset({ord("E")}))
        outbox = queue(world, ord("S"))
        registry.add_remote(hidden, outbox)
        registry.add_remote(seen, outbox)
        registry.remove_remote(seen)
        registry.remove_remote(hidden)
        registry.remove_queue(outbox)
        registry.remove_queue(outbox)
        await e.expect(encode_event(Event.JOINED, ord("S")), encode_event(Event.LEFT, ord("S")))
        await e.settle(b"E")
