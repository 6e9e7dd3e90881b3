"""Relays of one realm act as one, while the engine is there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cluster.realm import LEASE, Client, open_realm, until
from triorelay.protocol import EventCode, HelloOption, Refusal, address_frames, encode_event
from triorelay.relay import Config

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_frame_reaches_a_client_of_another_relay(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        a, b = await one.join("A"), await two.join("B")
        await realm.agree("AB")
        await a.send(b"B1")
        await b.expect(b"A1")
        await b.send(b"A2B3")
        await a.expect(b"B2")
        await b.expect(b"B3")
        assert one.relay.ledger.forwarded == two.relay.ledger.imported == 1


async def test_an_id_is_held_once_in_the_realm(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await one.join("A")
        assert (await two.claim("A"))[1] == Refusal.TAKEN


async def test_two_relays_that_claim_one_id_in_one_instant(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.001) as realm:
        for _ in range(100):
            answers: list[tuple[Client, int]] = []

            async def claim(number: int, answers: list[tuple[Client, int]] = answers) -> None:
                answers.append(await realm.members[number].claim("A"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(claim, 0)
                nursery.start_soon(claim, 1)
            assert sorted(code for _, code in answers) == [Refusal.WELCOME, Refusal.TAKEN]
            for client, _ in answers:
                client.stream.close()
            await realm.agree("")


async def test_an_id_is_free_at_once_when_its_client_leaves(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        for _ in range(20):
            a = await one.join("A")
            a.stream.close()
            b = await two.join("A")
            b.stream.close()
        assert trio.current_time() < LEASE


async def test_any_free_id_is_free_in_the_realm(autojump_clock: MockClock) -> None:
    async with open_realm(3) as realm:
        got = set()
        for _ in range(5):
            for member in realm.members:
                client = member.connect()
                await client.send(bytes((0, 0x80 + HelloOption.ACK)))
                answer = await client.receive(2)
                assert answer[1] == 0
                got.add(answer[0])
        assert got == set(range(255, 240, -1))


async def test_presence_spans_the_realm(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        await one.join("A")
        await realm.agree("A")
        observer, present = await two.observe()
        assert present == {"A"}
        b = await one.join("B")
        await observer.expect(encode_event(EventCode.JOINED, ord("B")))
        b.stream.close()
        await observer.expect(encode_event(EventCode.LEFT, ord("B")))
        assert two.relay.snapshot()["cluster"] == {
            "realm": "default",
            "relay": "relay2",
            "up": True,
            "elsewhere": [(ord("A"), "relay1")],
            "shared": [],
            "lost": 0,
            "garbage": 0,
            "reconnects": 0,
            "confirmed_seconds": 0,
        }


async def test_joined_comes_before_the_first_frame_and_left_after_the_last(autojump_clock: MockClock) -> None:
    async with open_realm() as realm:
        one, two = realm.members
        b, code = await two.claim("B", HelloOption.EVENTS)
        assert code == 0
        await b.expect(encode_event(EventCode.JOINED, ord("B")) + encode_event(EventCode.SYNCED, 0))
        for number in range(50):
            a = one.connect(bound=ord("A"))
            await a.send(b"B" + bytes((number,)))
            await a.stream.send_eof()
            await b.expect(encode_event(EventCode.JOINED, ord("A")) + b"A" + bytes((number,)))
            await b.expect(encode_event(EventCode.LEFT, ord("A")))


@pytest.mark.parametrize("queue_bytes", [2, 4096, 65536])
async def test_nothing_is_lost_or_reordered_however_slow_the_reader(
    autojump_clock: MockClock, queue_bytes: int
) -> None:
    size = 20_000 if queue_bytes < 100 else 3_000_000
    async with open_realm(3, config=Config(queue_bytes=queue_bytes, stall_timeout=0), latency=0.001) as realm:
        one, two, three = realm.members
        clients = {id: await member.join(id) for id, member in zip("ABC", (one, two, three), strict=True)}
        await realm.agree("ABC")
        data = {id: random.Random(id).randbytes(size // 2) for id in "AB"}

        async def send(id: str) -> None:
            await clients[id].send(bytes(address_frames(ord("C"), data[id])))

        async def receive() -> None:
            got = {ord("A"): bytearray(), ord("B"): bytearray()}
            left, half = 2 * size, b""
            while left:
                await trio.sleep(0.01)
                chunk = half + await clients["C"].stream.receive_some(65536)
                left -= len(chunk) - len(half)
                half = chunk[len(chunk) & ~1 :]
                for source, frames in got.items():
                    frames += bytes(chunk[at + 1] for at in range(0, len(chunk) - 1, 2) if chunk[at] == source)
            assert {chr(source): bytes(frames) for source, frames in got.items()} == data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, "A")
            nursery.start_soon(send, "B")
            nursery.start_soon(receive)
        assert not three.dropped()


async def test_a_reader_that_stops_pauses_its_senders_and_is_closed_where_it_is(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(stall_timeout=10)) as realm:
        one, two = realm.members
        a, b, c = await one.join("A"), await two.join("B"), await one.join("C")
        await realm.agree("ABC")
        blocked = trio.Event()

        async def flood() -> None:
            with trio.move_on_after(5) as patience:
                while True:
                    await a.send(b"Bx" * 32768)
            assert patience.cancelled_caught
            blocked.set()

        await flood()
        assert one.relay.ledger.forwarded < 1_000_000
        await c.send(b"A!")
        await a.expect(b"C!")
        await until(lambda: two.relay.exchange.registry.holder(ord("B")) is None)
        await realm.agree("AC")
        assert two.dropped()["slow_consumer"] > 0
        assert one.dropped()["peer_gone"] > 0
        b.stream.close()


async def test_the_same_principal_takes_its_id_from_another_relay(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(duplicate="replace")) as realm:
        one, two = realm.members
        old = await one.join("A", names=("a.example",))
        new = await two.join("A", names=("a.example",))
        await old.read_to_end()
        await new.send(b"A1")
        await new.expect(b"A1")
        assert (await one.claim("A", names=("b.example",)))[1] == Refusal.TAKEN
        assert (await one.claim("A"))[1] == Refusal.TAKEN


async def test_a_relay_that_drains_hands_over_what_is_queued_and_frees_its_ids(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.01) as realm:
        one, two = realm.members
        a, b = await one.join("A"), await two.join("B")
        await realm.agree("AB")
        data = random.Random(1).randbytes(30_000)
        await a.send(bytes(address_frames(ord("B"), data)))
        await a.stream.send_eof()
        await until(lambda: one.relay.ledger.accepted[ord("A")] == len(data))
        one.relay.drain()
        await b.expect(bytes(address_frames(ord("A"), data)))
        await until(lambda: not two.relay.exchange.registry.remote_holders, 1)


async def test_frames_held_for_an_absent_id_go_to_where_it_appears(autojump_clock: MockClock) -> None:
    async with open_realm(config=Config(hold_frames=10)) as realm:
        one, two = realm.members
        a = await one.join("A")
        await a.send(b"B1B2")
        await until(lambda: one.relay.exchange.queued_frames() == 2)
        b = await two.join("B")
        await b.expect(b"A1A2")
