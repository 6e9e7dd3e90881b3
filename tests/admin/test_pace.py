"""Why asking cannot slow the relay."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from triorelay.admin._pace import REST, Pace


async def test_one_turn_at_a_time_first_come_first_served() -> None:
    pace = Pace()
    order: list[str] = []

    async def take(name: str) -> None:
        async with pace.turn():
            order.append(f"{name} begins")
            order.append(f"{name} ends")

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(take, name)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


async def test_after_a_turn_there_is_rest(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace()
    async with pace.turn():
        begun = time.perf_counter()
        while time.perf_counter() - begun < 0.01:
            pass
    before = trio.current_time()
    async with pace.turn():
        assert trio.current_time() - before >= REST * 0.01


async def test_a_turn_that_failed_lets_the_next_one_come() -> None:
    pace = Pace()
    with pytest.raises(ZeroDivisionError):
        async with pace.turn():
            raise ZeroDivisionError
    async with pace.turn():
        pass
