"""Claims that meet others half way: refused, given up, withdrawn, and made again in the same instant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.cluster.realm import LEASE, Client, Member, open_realm, until
from triorelay.cluster._wire import decode_key
from triorelay.protocol import Refusal
from triorelay.relay._connection import Peer

if TYPE_CHECKING:
    from trio.testing import MockClock

    from triorelay.relay import Grant


async def claims(member: Member, id: str, answers: list[tuple[Client, int]]) -> None:
    """Claim `id`, and note the answer."""
    answers.append(await member.claim(id))


def anybody(member: Member) -> Grant:
    """Return what the policy lets a client of this relay do."""
    return member.relay.policy.grant(Peer("memory", "memory"), b"")


async def test_the_winner_of_an_id_is_reached_after_another_claim_here_was_refused(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.01) as realm:
        one, two = realm.members
        a, c = await one.join("A"), await one.join("C")
        await realm.agree("AC")
        answers: list[tuple[Client, int]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claims, two, "A", answers)
            nursery.start_soon(claims, two, "A", answers)
            await until(lambda: len(answers) == 1)
            a.stream.close()
        assert [code for _, code in answers] == [Refusal.TAKEN, Refusal.WELCOME]
        winner = answers[1][0]
        await until(lambda: one.cluster.view.holders(ord("A")) != [])
        await c.send(b"A1")
        await winner.expect(b"C1")


async def test_what_a_claim_left_that_was_given_up_midway_is_taken_back(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.01) as realm:
        one, two = realm.members
        await one.join("C")
        await realm.agree("C")
        with trio.move_on_after(0.015) as given_up:  # the key is there, and the answer under way
            await one.cluster.claim(ord("A"), anybody(one), shared=False)
        assert given_up.cancelled_caught
        assert realm.engine.entry("41") is not None
        began = trio.current_time()
        await two.join("A")
        assert trio.current_time() - began < 0.1 * LEASE
        entry = realm.engine.entry("41")
        assert entry is not None
        assert entry.value is not None
        assert decode_key(entry.value, entry.revision).leases[0].relay == two.cluster.uplink.nonce


async def test_a_claim_that_follows_one_given_up_midway_keeps_its_key(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.01) as realm:
        one, two = realm.members
        c = await two.join("C")
        await realm.agree("C")
        for given_up_after in (0.005, 0.015, 0.025, 0.035):
            with trio.move_on_after(given_up_after):
                await one.cluster.claim(ord("A"), anybody(one), shared=False)
                one.cluster.release(ord("A"))
            a = await one.join("A")
            await realm.agree("AC")
            await c.send(b"A1")
            await a.expect(b"C1")
            a.stream.close()
            await realm.agree("C")


async def test_an_id_that_was_lost_and_is_won_again_at_once_is_reached(autojump_clock: MockClock) -> None:
    async with open_realm(latency=0.01) as realm:
        one, two = realm.members
        c = await two.join("C")
        old = await one.join("A")
        await realm.agree("AC")
        lost = one.cluster.leases.get(ord("A"))
        assert lost is not None
        realm.engine.set("41", None)
        one.cluster.leases.lose(lost, "another")
        await old.read_to_end()
        a = await one.join("A")
        await until(lambda: (seen := two.cluster.view.holders(ord("A"))) != [] and seen[0].token > lost.token)
        await c.send(b"A1")
        await a.expect(b"C1")
