"""Ids that clients of several relays share. The engine is in memory, the clock jumps, and ledgers always balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.cluster.realm import LEASE, Client, Member, Realm, open_realm, until
from tests.cluster.test_faults import down, up
from triorelay.cluster._wire import KeyValue, decode_key
from triorelay.protocol import CloseReason, EventCode, HelloOption, Refusal, encode_event, encode_hello
from triorelay.relay import Config, Principal

if TYPE_CHECKING:
    from trio.testing import MockClock

ACK, EVENTS, SHARE, LOSSY = HelloOption.ACK, HelloOption.EVENTS, HelloOption.SHARE, HelloOption.LOSSY
N = ord("N")


async def share(member: Member, id: str = "N", options: HelloOption = ACK) -> Client:
    """Return one more client that shares `id`."""
    client, code = await member.claim(id, options | SHARE)
    assert code == 0
    return client


async def known(realm: Realm, *members: Member, id: str = "N") -> None:
    """Wait until every relay knows that exactly these others have a holder of `id`."""
    for member in realm.members:
        names = {other.cluster.uplink.name for other in members if other is not member}
        await until(
            lambda member=member, names=names: {lease.name for lease in member.cluster.view.holders(ord(id))} == names  # type: ignore[misc]
        )


def key(realm: Realm, id: str = "N") -> KeyValue | None:
    """Return what the engine has of `id`."""
    entry = realm.engine.entry(f"{ord(id):02x}")
    return None if entry is None or entry.value is None else decode_key(entry.value, entry.revision)


async def silent(client: Client) -> None:
    """Check that nothing comes any more."""
    with trio.move_on_after(1) as patience:
        raise AssertionError(await client.stream.receive_some(100))
    assert patience.cancelled_caught


async def test_a_frame_reaches_every_holder_of_every_relay_and_not_its_sender(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        holders = [await share(member) for member in (one, one, two, two, two)]
        a = await three.join("A")
        await known(realm, one, two)
        await a.send(b"N1")
        for holder in holders:
            await holder.expect(b"A1")
        await holders[0].send(b"N2")
        for holder in holders[1:]:
            await holder.expect(b"N2")
        await silent(holders[0])
        assert three.relay.ledger.forwarded == 2  # one copy for each relay
        assert (three.relay.ledger.copied, one.relay.ledger.copied, two.relay.ledger.copied) == (1, 1 + 1, 2 + 2)
        assert sum(member.relay.ledger.imported for member in realm.members) == 2 + 1


async def test_the_other_kind_of_claim_is_refused_whichever_relay_holds_the_id(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await share(one)
        assert (await two.claim("N"))[1] == Refusal.TAKEN
        await one.join("A")
        assert (await two.claim("A", ACK | SHARE))[1] == Refusal.TAKEN
        await share(two)
        assert (await one.claim("N"))[1] == Refusal.TAKEN


async def test_replace_does_not_concern_shared_ids_of_other_relays(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(duplicate="replace")) as realm:
        one, two = realm.members
        n, code = await one.claim("N", ACK | SHARE, names=("n.example",))
        a = await one.join("A", names=("n.example",))
        assert code == 0
        assert (await two.claim("N", names=("n.example",)))[1] == Refusal.TAKEN
        assert (await two.claim("A", ACK | SHARE, names=("n.example",)))[1] == Refusal.TAKEN
        await n.send(b"A1")
        await a.expect(b"N1")


async def test_relays_that_claim_both_kinds_in_one_instant_never_get_both(autojump_clock: MockClock) -> None:
    async with open_realm(3, latency=0.001) as realm:
        won = set()
        for number in range(60):
            answers: dict[int, tuple[Client, int]] = {}

            async def claim(at: int, shared: bool, answers: dict[int, tuple[Client, int]] = answers) -> None:
                answers[at] = await realm.members[at].claim("N", ACK | SHARE if shared else ACK)

            async with trio.open_nursery() as nursery:
                for at in range(3):
                    nursery.start_soon(claim, at, (at + number) % 3 != 0)
            exclusive = (-number) % 3
            codes = [answers[at][1] for at in range(3) if at != exclusive]
            if answers[exclusive][1] == 0:
                assert codes == [Refusal.TAKEN, Refusal.TAKEN]
            else:
                assert (answers[exclusive][1], *codes) == (Refusal.TAKEN, 0, 0)
            won.add(answers[exclusive][1])
            for client, _ in answers.values():
                client.stream.close()
            await realm.agree("")
        assert won == {0, Refusal.TAKEN}


async def test_the_id_is_free_for_one_as_soon_as_the_last_holder_has_left(autojump_clock: MockClock) -> None:
    async with open_realm(3, latency=0.001) as realm:
        one, two, three = realm.members
        for _ in range(20):
            holders = [await share(one), await share(two)]
            await known(realm, one, two)
            holders[0].stream.close()
            holders[1].stream.close()
            n = await three.join("N")
            n.stream.close()
        assert trio.current_time() < LEASE


async def test_a_holder_that_joins_while_the_last_one_leaves_keeps_the_id_shared(autojump_clock: MockClock) -> None:
    async with open_realm(3, latency=0.001) as realm:
        one, two, three = realm.members
        holder, at = await share(one), 0
        a = await three.join("A")
        for number in range(1, 30):
            at = 1 - at
            holder.stream.close()
            if number % 3:
                await trio.sleep(0.0005 * number % 0.004)
            holder = await share((one, two)[at])
            await known(realm, (one, two)[at])
            value = key(realm)
            assert value is not None
            assert [lease.name for lease in value.leases] == [(one, two)[at].cluster.uplink.name]
            await a.send(b"N", bytes((number,)))
            await holder.expect(b"A", bytes((number,)))


async def test_joined_comes_with_the_first_holder_anywhere_and_left_after_the_last(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        observers = [(await member.observe())[0] for member in realm.members]
        first = await share(one)
        for observer in observers:
            await observer.expect(encode_event(EventCode.JOINED, N))
        second, third = await share(two), await share(three)
        await known(realm, one, two, three)
        first.stream.close()
        await known(realm, two, three)
        second.stream.close()
        await known(realm, three)
        fourth = await share(one)
        await known(realm, one, three)
        third.stream.close()
        await known(realm, one)
        for observer in observers:
            await silent(observer)
        assert (await three.observe())[1] == {"N"}
        fourth.stream.close()
        for observer in observers:
            await observer.expect(encode_event(EventCode.LEFT, N))


async def test_the_status_says_how_many_share_an_id_at_each_relay(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        first = [await share(one) for _ in range(3)]
        await share(two)
        await one.join("A")
        await realm.agree("AN")
        await trio.sleep(LEASE)
        status = three.cluster.status()
        assert status.elsewhere == [(ord("A"), "relay1"), (N, "relay1"), (N, "relay2")]
        assert status.shared == [(N, "relay1", 3), (N, "relay2", 1)]
        assert two.cluster.status().shared == [(N, "relay1", 3)]
        first[0].stream.close()
        await until(lambda: three.cluster.status().shared == [(N, "relay1", 2), (N, "relay2", 1)], LEASE)


async def test_left_comes_after_the_last_frame_of_any_holder(autojump_clock: MockClock) -> None:
    async with open_realm(3, latency=0.001) as realm:
        one, two, three = realm.members
        b, code = await three.claim("B", ACK | EVENTS)
        assert code == 0
        await b.expect(encode_event(EventCode.JOINED, ord("B")), encode_event(EventCode.SYNCED, 0))
        for number in range(20):
            holders = [await share(one), await share(two)]
            await b.expect(encode_event(EventCode.JOINED, N))
            await known(realm, one, two)
            for holder in holders:
                await holder.send(b"B", bytes((number,)))
                holder.stream.close()
            await b.expect(b"N", bytes((number,)), b"N", bytes((number,)), encode_event(EventCode.LEFT, N))


async def test_without_another_holder_of_a_shared_id_it_is_no_route(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        n = await share(one, options=ACK | EVENTS)
        await n.expect(encode_event(EventCode.JOINED, N), encode_event(EventCode.SYNCED, 0))
        await n.send(b"N1")
        await n.expect(encode_event(EventCode.NO_ROUTE, N))
        other = await share(two)
        await known(realm, one, two)
        await n.send(b"N2")
        await other.expect(b"N2")
        other.stream.close()
        await known(realm, one)
        await n.send(b"N3")
        await n.expect(encode_event(EventCode.NO_ROUTE, N))
        assert one.dropped() == {"no_route": 2}


async def test_one_more_holder_here_asks_the_engine_for_nothing(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.1) as realm:
        one, _ = realm.members
        await share(one)
        value, began = key(realm), trio.current_time()
        await share(one)
        assert trio.current_time() == began
        assert key(realm) == value


async def test_one_more_holder_here_is_refused_without_the_engine_where_that_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    async with open_realm(1) as realm:
        strict = await realm.add(fallback="refuse")
        await share(strict)
        await share(realm.members[0])
        realm.engine.kill()
        await down(*realm.members)
        assert (await strict.claim("N", ACK | SHARE))[1] == Refusal.UNAVAILABLE
        await share(realm.members[0])


async def test_a_claim_that_is_refused_in_the_end_takes_the_id_from_no_other_holder(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(max_clients_per_principal=1)) as realm:
        one, two = realm.members
        n = await share(one)
        a = await two.join("A")
        await known(realm, one)
        assert (await one.claim("N", ACK | SHARE))[1] == Refusal.FULL
        await trio.sleep(LEASE)
        await a.send(b"N1")
        await n.expect(b"A1")


async def test_many_relays_renew_one_key_side_by_side(autojump_clock: MockClock) -> None:
    async with open_realm(12, latency=0.01) as realm:
        holders = []
        async with trio.open_nursery() as nursery:

            async def join(member: Member) -> None:
                holders.append(await share(member))

            for member in realm.members:
                nursery.start_soon(join, member)
        await known(realm, *realm.members)
        await trio.sleep(4 * LEASE)
        realm.engine.cut()  # so that all settle in one instant
        await up(*realm.members)
        await trio.sleep(4 * LEASE)
        await known(realm, *realm.members)
        assert [member.cluster.status().reconnects for member in realm.members] == [1] * 12
        await holders[0].send(b"N1")
        for holder in holders[1:]:
            await holder.expect(b"N1")


async def test_no_more_relays_share_an_id_than_the_engine_takes_in_one_key(autojump_clock: MockClock) -> None:
    async with open_realm(8) as realm:
        realm.engine.max_payload = 1600
        for member in realm.members:
            member.cluster.uplink.engine.max_payload = 1600  # type: ignore[union-attr]
        codes = [(await member.claim("N", ACK | SHARE))[1] for member in realm.members]
        shared = codes.index(Refusal.FULL)
        assert codes == [0] * shared + [Refusal.FULL] * (len(codes) - shared)
        assert shared > 1
        await trio.sleep(3 * LEASE)
        assert [member.cluster.status().reconnects for member in realm.members] == [0] * len(codes)
        await known(realm, *realm.members[:shared])


async def test_a_relay_that_is_killed_leaves_the_key_and_the_others_keep_the_id(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        one, two, three = realm.members
        await share(one)
        n = await share(two)
        observer, _ = await three.observe()
        await known(realm, one, two)
        one.running.cancel()
        realm.members.remove(one)
        await known(realm, two)
        await until(lambda: (value := key(realm)) is not None and len(value.leases) == 1, LEASE)
        assert (await three.claim("N"))[1] == Refusal.TAKEN
        n.stream.close()
        await observer.expect(encode_event(EventCode.LEFT, N))
        await three.join("N")


async def test_without_the_engine_holders_here_get_their_copies_and_the_sender_gets_dropped(
    autojump_clock: MockClock,
) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        near, far = await share(one), await share(two)
        a, code = await one.claim("A", ACK | EVENTS)
        assert code == 0
        await known(realm, one, two)
        await a.expect(encode_event(EventCode.JOINED, ord("A")), encode_event(EventCode.JOINED, N))
        await a.expect(encode_event(EventCode.SYNCED, 0))
        realm.engine.kill()
        await down(one, two)
        await a.send(b"N1N2")
        await near.expect(b"A1A2")
        await a.expect(encode_event(EventCode.DROPPED, N))
        assert one.dropped() == {"cluster_down": 2}
        await trio.sleep(2 * LEASE)
        realm.engine.restart()
        await up(one, two)
        await known(realm, one, two)
        await a.send(b"N3")
        await near.expect(b"A3")
        await far.expect(b"A3")
        await silent(a)  # N had a holder all the time


async def test_kinds_that_were_claimed_without_the_engine_do_not_both_stay(autojump_clock: MockClock) -> None:
    async with open_realm(3, latency=0.001) as realm:
        one, two, three = realm.members
        realm.engine.kill()
        await down(*realm.members)
        clients = [await share(one), await share(one), await two.join("N"), await share(three)]
        realm.engine.restart()
        await up(*realm.members)
        await realm.agree("N")
        await trio.sleep(LEASE)
        ended = [member.relay.sessions_ended["memory", CloseReason.FENCED.label] for member in realm.members]
        assert ended in ([2, 0, 1], [0, 1, 0])
        del clients


@pytest.mark.parametrize("older_is_shared", [True, False])
async def test_the_older_lease_decides_which_kind_stays(older_is_shared: bool, autojump_clock: MockClock) -> None:
    def options(shared: bool) -> HelloOption:
        return ACK | SHARE if shared else ACK

    async with open_realm(3) as realm:
        one, two, three = realm.members
        older, code = await three.claim("N", options(older_is_shared))
        assert code == 0
        await realm.agree("N")
        realm.engine.kill()
        await down(*realm.members)
        await trio.sleep(2 * LEASE)
        younger, code = await one.claim("N", options(not older_is_shared))
        assert code == 0
        a = await two.join("A")
        realm.engine.restart()
        await younger.read_to_end()
        await realm.agree("AN")
        await a.send(b"N1")
        await older.expect(b"A1")


async def test_a_share_that_is_known_elsewhere_is_granted_without_the_engine_and_another_kind_is_not(
    autojump_clock: MockClock,
) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await share(two)
        await two.join("B")
        await realm.agree("NB")
        realm.engine.kill()
        await down(one, two)
        began = trio.current_time()
        await share(one)
        assert trio.current_time() < began + LEASE / 4
        assert (await one.claim("B", ACK | SHARE))[1] == 0
        assert trio.current_time() > began + LEASE / 2  # it waited until that lease had run out


async def test_a_stopped_holder_elsewhere_pauses_the_sender_and_is_closed_where_it_is(
    autojump_clock: MockClock,
) -> None:
    async with open_realm(config=Config(stall_timeout=10)) as realm:
        one, two = realm.members
        a, reads, stopped = await one.join("A"), await share(two), await share(two)
        await known(realm, two)
        size = 2_000_000
        received = bytearray()

        async def send() -> None:
            await a.send(b"Nx" * size)

        async def receive() -> None:
            while len(received) < 2 * size:
                received.extend(await reads.stream.receive_some(1 << 16))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            await trio.sleep(5)
            assert 0 < len(received) <= 2 * one.cluster.config.window  # the other got what there was credit for
        assert received == b"Ax" * size
        assert two.dropped()["slow_consumer"] > 0
        await stopped.read_to_end()
        assert two.relay.sessions_ended["memory", CloseReason.SLOW_CONSUMER.label] == 1


async def test_a_lossy_holder_elsewhere_pauses_no_sender(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(stall_timeout=0)) as realm:
        one, two = realm.members
        a, reads = await one.join("A"), await share(two)
        await share(two, options=ACK | LOSSY)
        await known(realm, two)
        size = 2_000_000

        async def send() -> None:
            await a.send(b"Nx" * size)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await reads.receive(2 * size) == b"Ax" * size
        assert two.dropped()["queue_full"] > 0
        assert two.relay.ledger.copied == size


async def test_held_frames_go_to_the_first_holder_wherever_it_is(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(hold_frames=10)) as realm:
        one, two = realm.members
        a = await one.join("A")
        await a.send(b"N1N2")
        await until(lambda: one.relay.exchange.queued_frames() == 2)
        first = await share(two)
        await first.expect(b"A1A2")
        second = await share(two)
        await a.send(b"N3")
        await first.expect(b"A3")
        await second.expect(b"A3")


async def test_any_free_id_is_never_one_that_is_shared_elsewhere(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await share(one, id="\xff")
        await known(realm, one, id="\xff")
        client = two.connect()
        await client.send(encode_hello(0, ACK))
        assert await client.receive(2) == b"\xfe\0"


async def test_presence_of_a_shared_id_is_of_the_holders_that_a_client_may_know_of(autojump_clock: MockClock) -> None:
    config = Config(
        principals=(
            Principal(name="near", certificate="near", to=frozenset(b"X")),
            Principal(name="far", certificate="far", to=frozenset(b"A")),
            Principal(name="a", certificate="a", to=frozenset(b"B")),
        )
    )
    async with open_realm(config=config) as realm:
        one, two = realm.members
        a, code = await one.claim("A", ACK | EVENTS, names=("a",))
        assert code == 0
        await a.expect(encode_event(EventCode.SYNCED, 0))
        near, code = await one.claim("N", ACK | SHARE, names=("near",))
        assert code == 0
        far, code = await two.claim("N", ACK | SHARE, names=("far",))
        assert code == 0
        await a.expect(encode_event(EventCode.JOINED, N))
        near.stream.close()
        await known(realm, two)
        far.stream.close()
        await a.expect(encode_event(EventCode.LEFT, N))
