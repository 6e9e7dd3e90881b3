"""What happens to clients when the engine, or a relay's way to it, fails. The engine is in memory, the clock jumps."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from tests.cluster.realm import LEASE, Client, Member, Realm, open_realm, until
from triorelay.protocol import CloseReason, EventCode, HelloOption, Refusal, address_frames, encode_event
from triorelay.relay import Config, Principal

if TYPE_CHECKING:
    from trio.testing import MockClock


async def down(*members: Member) -> None:
    """Wait until these relays know that the engine is away."""
    await until(lambda: not any(member.cluster.uplink.up for member in members), 2 * LEASE)


async def up(*members: Member) -> None:
    """Wait until these relays have the engine."""
    await until(lambda: all(member.cluster.uplink.up for member in members), 2 * LEASE)


async def counted(member: Member, reason: str, frames: int) -> None:
    """Wait until so many frames were dropped for this reason."""
    await until(lambda: member.dropped().get(reason, 0) >= frames)


async def pair(realm: Realm) -> tuple[Client, Client]:
    """Return A at the first relay and B at the second, which know of each other."""
    a, b = await realm.members[0].join("A"), await realm.members[1].join("B")
    await realm.agree("AB")
    return a, b


async def test_local_traffic_continues_and_frames_for_elsewhere_are_dropped(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await pair(realm)
        c = await one.join("C")
        realm.engine.kill()
        await down(one, two)
        await a.send(b"C1B2B3")
        await c.expect(b"A1")
        await counted(one, "cluster_down", 2)
        realm.engine.restart()
        await up(one, two)
        await realm.agree("ABC")
        await a.send(b"B4")
        await b.expect(b"A4")


async def test_ids_elsewhere_leave_when_their_leases_run_out_and_are_cluster_down_after_that(
    autojump_clock: MockClock,
) -> None:
    async with open_realm() as realm:
        one, _ = realm.members
        a, code = await one.claim("A", HelloOption.EVENTS)
        assert code == 0
        await a.receive(8)
        b = await realm.members[1].join("B")
        await a.expect(encode_event(EventCode.JOINED, ord("B")))
        realm.engine.kill()
        await down(one)
        await a.send(b"B1")
        await a.expect(encode_event(EventCode.NO_ROUTE, ord("B")))
        await a.expect(encode_event(EventCode.LEFT, ord("B")))
        await a.send(b"B2")
        await counted(one, "cluster_down", 2)
        assert "no_route" not in one.dropped()
        realm.engine.restart()
        await a.expect(encode_event(EventCode.JOINED, ord("B")))
        await a.send(b"B3")
        await b.expect(b"A3")


async def test_the_older_lease_keeps_the_id(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        older = await three.join("A")
        await realm.agree("A")
        realm.engine.kill()
        await down(one, two, three)
        await trio.sleep(2 * LEASE)
        younger = await one.join("A")
        await two.join("B")
        realm.engine.restart()
        await younger.read_to_end()
        assert one.relay.sessions_ended["memory", CloseReason.FENCED.label] == 1
        await realm.agree("AB")
        b = two.clients[-1]
        await b.send(b"A1")
        await older.expect(b"B1")


async def test_one_of_two_relays_that_took_an_id_while_the_engine_was_away_keeps_it(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.001) as realm:
        one, two = realm.members
        realm.engine.kill()
        await down(one, two)
        clients = [await one.join("A"), await two.join("A")]
        realm.engine.restart()
        await realm.agree("A")
        await until(
            lambda: sum(ord("A") in member.relay.exchange.registry.ids() for member in realm.members) == 1, LEASE
        )
        ended = [member.relay.sessions_ended["memory", CloseReason.FENCED.label] for member in realm.members]
        assert sorted(ended) == [0, 1]
        del clients


async def test_no_relay_takes_an_id_while_its_relay_comes_back_a_little_later(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await one.join("A")
        await realm.agree("A")
        realm.engine.kill()
        await down(one, two)
        await trio.sleep(2 * LEASE)
        realm.engine.restart()
        await up(two)
        assert (await two.claim("A"))[1] == Refusal.TAKEN
        assert one.relay.exchange.registry.holder(ord("A")) is not None


async def test_a_stopped_engine_delivers_nothing_late(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await pair(realm)
        realm.engine.stop()
        await a.send(b"B1")
        await until(lambda: one.relay.ledger.forwarded == 1)
        await down(one, two)
        await a.send(b"B2")
        await counted(one, "cluster_down", 1)
        realm.engine.resume()
        await up(one, two)
        await realm.agree("AB")
        await a.send(b"B3")
        await b.expect(b"A3")


async def test_a_batch_of_an_older_connection_or_lease_is_fenced(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await pair(realm)
        sent: list[tuple[str, bytes]] = []
        publish = realm.engine.publish

        def record(subject: str, payload: bytes) -> None:
            sent.append((subject, payload))
            publish(subject, payload)

        realm.engine.publish = record  # type: ignore[method-assign]
        await a.send(b"B1")
        await b.expect(b"A1")
        (old,) = sent
        realm.engine.cut(one.cluster)
        await down(one)
        await up(one)
        await realm.agree("AB")
        await a.send(b"B2")
        await b.expect(b"A2")
        recent = sent[-1]
        publish(*old)
        await counted(two, "fenced", 1)
        b.stream.close()
        new = await two.join("B")
        await realm.agree("AB")
        publish(*recent)
        await counted(two, "fenced", 2)
        await a.send(b"B3")
        await new.expect(b"A3")


async def test_a_relay_that_is_killed_loses_its_ids_after_one_lease(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await one.join("A")
        await realm.agree("A")
        one.running.cancel()
        began = trio.current_time()
        await two.join("A")
        assert 0.5 * LEASE < trio.current_time() - began <= 1.5 * LEASE
        realm.members.remove(one)
        await realm.agree("A")


async def test_lost_batches_are_counted_and_credit_comes_back(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await pair(realm)
        data = random.Random(5).randbytes(2_000_000)

        async def send() -> None:
            await a.send(bytes(address_frames(ord("B"), data)))

        realm.engine.lose_messages = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: one.relay.ledger.forwarded == one.cluster.config.window // 2)
            lost = one.relay.ledger.forwarded
            realm.engine.lose_messages = False
            rest = await b.receive(2 * (len(data) - lost))
        assert rest == address_frames(ord("A"), data[lost:])
        assert two.cluster.imports.lost == lost


async def test_claims_without_the_engine_are_refused_where_that_is_asked_for(autojump_clock: MockClock) -> None:
    async with open_realm(1) as realm:
        strict = await realm.add(fallback="refuse")
        realm.engine.kill()
        await down(strict)
        assert (await strict.claim("A"))[1] == Refusal.UNAVAILABLE
        assert (await realm.members[0].claim("A"))[1] == Refusal.WELCOME


async def test_a_claim_is_decided_here_where_the_engine_goes_silent_in_the_middle(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, _ = realm.members
        realm.engine.stop()
        client = await one.join("A")
        realm.engine.resume()
        await up(*realm.members)
        await realm.agree("A")
        await client.send(b"A1")
        await client.expect(b"A1")


async def test_a_policy_hides_ids_of_other_relays_too(autojump_clock: MockClock) -> None:
    config = Config(
        principals=(
            Principal(name="one", certificate="one", to=frozenset(b"B")),
            Principal(name="two", certificate="two", to=frozenset(b"B")),
            Principal(name="all", certificate="all"),
        )
    )
    async with open_realm(config=config) as realm:
        one, two = realm.members
        a, code = await one.claim("A", HelloOption.EVENTS, names=("one",))
        assert code == 0
        await a.expect(encode_event(EventCode.SYNCED, 0))
        await two.join("C", names=("two",))  # neither may send to the other
        await realm.agree("AC")
        await two.join("B", names=("all",))
        await a.expect(encode_event(EventCode.JOINED, ord("B")))


async def test_ids_are_given_up_while_the_engine_is_away(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, _ = await pair(realm)
        realm.engine.kill()
        await down(one, two)
        a.stream.close()
        realm.engine.restart()
        await up(one, two)
        await realm.agree("B")
        await two.join("A")
