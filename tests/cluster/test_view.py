"""What a relay knows of the leases of others, from reports and by its own clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from triorelay.cluster._view import View
from triorelay.cluster._wire import LeaseValue
from triorelay.relay import RemoteLease

if TYPE_CHECKING:
    from trio.testing import MockClock

LEASE = 5.0
N = ord("N")


class Watched:
    """A view, and the changes that it reported."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.view = View(
            LEASE,
            lambda lease: self.events.append(f"+{lease.relay}{lease.token}"),
            lambda lease: self.events.append(f"-{lease.relay}{lease.token}"),
            lambda lease: self.events.append(f"again {lease.relay}{lease.token}"),
        )

    def hear(self, *leases: RemoteLease) -> list[str]:
        """Report a change of the key; return what the view tells then."""
        self.events.clear()
        self.view.hear(N, leases)
        return self.events

    def lapse(self) -> list[str]:
        self.events.clear()
        self.view.lapse()
        return self.events


def share(relay: str, token: int, renewed: int = 1) -> RemoteLease:
    return RemoteLease(N, token, relay, relay, None, shared=True, renewed=renewed)


def alone(relay: str, token: int) -> RemoteLease:
    return RemoteLease(N, token, relay, relay, None, shared=False)


async def test_a_holder_of_a_shared_id_comes_before_another_leaves(autojump_clock: MockClock) -> None:
    watched = Watched()
    assert watched.hear(share("a", 1)) == ["+a1"]
    assert watched.hear(share("b", 2)) == ["+b2", "-a1"]
    assert watched.hear(share("b", 2), share("c", 3)) == ["+c3"]
    assert watched.hear(share("b", 2)) == ["-c3"]


async def test_one_that_takes_the_place_of_another_kind_or_session_comes_after_it(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(share("a", 1))
    assert watched.hear(share("a", 2)) == ["-a1", "+a2"]
    assert watched.hear(alone("b", 3)) == ["-a2", "+b3"]
    assert watched.hear(share("b", 4)) == ["-b3", "+b4"]
    assert watched.hear() == ["-b4"]


async def test_a_lease_that_is_not_renewed_runs_out_although_others_keep_the_key(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(share("a", 1), share("b", 2))
    await trio.sleep(0.6 * LEASE)
    assert watched.hear(share("a", 1), share("b", 2, renewed=2)) == []
    assert watched.lapse() == []
    await trio.sleep(0.6 * LEASE)
    assert watched.lapse() == ["-a1"]
    assert watched.view.is_over(N, LeaseValue(relay="a" * 16, name="a")) is False  # another relay
    assert watched.hear(share("a", 1), share("b", 2, renewed=3)) == []  # it is in the key still
    assert [lease.relay for lease in watched.view.holders(N)] == ["b"]


async def test_only_a_lease_that_was_seen_not_to_be_renewed_is_over(autojump_clock: MockClock) -> None:
    watched = Watched()
    relay = "a" * 16
    value = LeaseValue(relay=relay, name="a", token=1, renewed=1)
    assert not watched.view.is_over(N, value)
    watched.hear(share(relay, 1))
    assert not watched.view.is_over(N, value)
    await trio.sleep(LEASE)
    assert watched.view.is_over(N, value)
    assert not watched.view.is_over(N, LeaseValue(relay=relay, name="a", token=1, renewed=2))
    assert not watched.view.is_over(N, LeaseValue(relay=relay, name="a", token=9, renewed=1))
    watched.view.lost()
    assert not watched.view.is_over(N, value)


async def test_a_lease_that_ran_out_here_and_is_renewed_is_reported_as_such(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(share("a", 1))
    await trio.sleep(LEASE)
    assert watched.lapse() == ["-a1"]
    assert watched.hear(share("a", 1, renewed=2)) == ["again a1", "+a1"]


async def test_after_a_new_connection_a_lease_that_ran_out_is_one_like_any_other(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(share("a", 1))
    watched.view.lost()
    await trio.sleep(LEASE)
    assert watched.lapse() == ["-a1"]
    assert watched.hear(share("a", 1)) == ["+a1"]


async def test_an_id_that_has_not_come_back_is_expected_for_one_lease(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(share("a", 1), share("b", 2))
    watched.view.lost()
    await trio.sleep(0.1)
    watched.view.confirmed()
    assert watched.view.may_come_back(N)
    watched.hear(share("b", 2))
    assert not watched.view.may_come_back(N)


async def test_an_id_that_did_not_come_back_is_free_after_the_next_connection_too(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.hear(alone("a", 1))
    for expected in (True, False):
        watched.view.lost()
        watched.view.confirmed()
        assert watched.view.may_come_back(N) is expected
        await trio.sleep(LEASE)
        watched.lapse()
