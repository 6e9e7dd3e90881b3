"""Allowances for many keys, in a table of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triorelay.relay._buckets import KEYS, Buckets

if TYPE_CHECKING:
    from trio.testing import MockClock as Clock


async def test_a_burst_is_allowed_at_once_and_then_one_an_interval(mock_clock: Clock) -> None:
    buckets = Buckets(interval=2, burst=3)
    for _ in range(3):
        assert buckets.wait("x") == 0
        buckets.count("x")
    assert buckets.wait("x") == 2
    mock_clock.jump(1.5)
    assert buckets.wait("x") == 0.5
    mock_clock.jump(0.5)
    assert buckets.wait("x") == 0
    buckets.count("x")
    assert buckets.wait("x") == 2


async def test_keys_know_nothing_of_each_other(mock_clock: Clock) -> None:
    buckets = Buckets(interval=60)
    buckets.count("x")
    assert buckets.wait("x") == 60
    assert buckets.wait("y") == 0


async def test_a_bucket_is_full_again_and_not_fuller(mock_clock: Clock) -> None:
    buckets = Buckets(interval=1, burst=2)
    buckets.count("x")
    mock_clock.jump(1000)
    buckets.count("x")
    buckets.count("x")
    assert buckets.wait("x") == 1


async def test_the_table_stays_small_and_keeps_the_newest_keys(mock_clock: Clock) -> None:
    buckets = Buckets(interval=60)
    for key in range(3 * KEYS):
        buckets.count(key)
        buckets.count("x")
    assert len(buckets._full_at) <= KEYS
    assert buckets.wait("x") > 0
    assert buckets.wait(0) == 0
    mock_clock.jump(1e9)
    buckets.count("y")
    assert buckets.wait("x") == 0
