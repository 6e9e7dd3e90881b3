"""Allowances for many keys, in a table of bounded size."""

from __future__ import annotations

from triorelay.relay._buckets import KEYS, Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_at_once_and_then_one_an_interval() -> None:
    clock = Clock()
    buckets = Buckets(clock, interval=2, burst=3)
    for _ in range(3):
        assert buckets.wait("x") == 0
        buckets.count("x")
    assert buckets.wait("x") == 2
    clock.now += 1.5
    assert buckets.wait("x") == 0.5
    clock.now += 0.5
    assert buckets.wait("x") == 0
    buckets.count("x")
    assert buckets.wait("x") == 2


def test_keys_know_nothing_of_each_other() -> None:
    buckets = Buckets(Clock(), interval=60)
    buckets.count("x")
    assert buckets.wait("x") == 60
    assert buckets.wait("y") == 0


def test_a_bucket_is_full_again_and_not_fuller() -> None:
    clock = Clock()
    buckets = Buckets(clock, interval=1, burst=2)
    buckets.count("x")
    clock.now += 1000
    buckets.count("x")
    buckets.count("x")
    assert buckets.wait("x") == 1


def test_the_table_stays_small_and_keeps_the_newest_keys() -> None:
    clock = Clock()
    buckets = Buckets(clock, interval=60)
    for key in range(3 * KEYS):
        buckets.count(key)
        buckets.count("x")
    assert len(buckets._full_at) <= KEYS
    assert buckets.wait("x") > 0
    assert buckets.wait(0) == 0
    clock.now += 1e9
    buckets.count("y")
    assert buckets.wait("x") == 0
