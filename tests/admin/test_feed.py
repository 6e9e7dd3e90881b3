"""`/events`: what it sends, to how many viewers, and at what cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from triorelay.admin._feed import EVENTS_KEPT, Feed
from triorelay.admin._pace import Pace
from triorelay.testing import MemoryRelay, open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.admin.endpoint import Endpoint


async def test_a_status_comes_at_once_and_then_again(endpoint: Endpoint) -> None:
    async with endpoint.follow("/events") as events:
        uptimes = [(await events.event_named("status"))["uptime_seconds"] for _ in range(2)]
    assert uptimes[0] < uptimes[1]


async def test_joins_and_leaves_come_as_they_happen_with_client_and_reason(endpoint: Endpoint) -> None:
    async with endpoint.follow("/events") as events:
        await events.event_named("status")
        async with endpoint.client("A"):
            joined = await events.event_named("joined")
        left = await events.event_named("left")
        async with endpoint.client("B"):
            await events.event_named("joined")
            await endpoint.post("/clients/B/close")
            closed = await events.event_named("left")
    assert {"time", "id", "name", "transport", "address", "principal", "pid", "process"} == set(joined)
    assert (joined["id"], joined["name"], joined["transport"]) == (65, "A", "memory")
    assert (left["name"], left["reason"]) == ("A", "left")
    assert (closed["name"], closed["reason"]) == ("B", "closed")


class Viewing:
    """A feed, and its viewers."""

    def __init__(self, memory: MemoryRelay, nursery: trio.Nursery) -> None:
        self.memory = memory
        self.relay = memory.relay
        self.feed = Feed(memory.relay, Pace())
        self._nursery = nursery
        nursery.start_soon(self.feed.run)

    def look(self, *, stuck: bool = False) -> tuple[list[bytes], trio.CancelScope]:
        """View the feed, and return what comes; a viewer that is stuck takes one part and no more."""
        got: list[bytes] = []
        scope = trio.CancelScope()

        async def send(data: bytes) -> None:
            got.append(data)
            if stuck:
                await trio.sleep_forever()

        async def run() -> None:
            with scope:
                await self.feed.stream().run(send)

        self._nursery.start_soon(run)
        return got, scope


@pytest.fixture
async def viewing() -> AsyncIterator[Viewing]:
    async with open_relay() as memory, trio.open_nursery() as nursery:
        yield Viewing(memory, nursery)
        nursery.cancel_scope.cancel()


def snapshots_taken(viewing: Viewing, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one item each time that the relay's status is taken."""
    taken: list[int] = []
    snapshot = viewing.relay.snapshot

    def count() -> dict[str, object]:
        taken.append(1)
        return snapshot()

    monkeypatch.setattr(viewing.relay, "snapshot", count)
    return taken


async def test_a_status_is_taken_and_encoded_once_for_all(
    autojump_clock: trio.testing.MockClock, viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshots_taken(viewing, monkeypatch)
    first, _ = viewing.look()
    second, _ = viewing.look()
    await trio.sleep(10.5)
    assert len(taken) == len(first) == len(second) == 11
    assert all(one is other for one, other in zip(first, second, strict=True))


async def test_a_later_viewer_gets_the_last_status_and_causes_no_extra_one(
    autojump_clock: trio.testing.MockClock, viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshots_taken(viewing, monkeypatch)
    first, _ = viewing.look()
    await trio.sleep(3.5)
    others = [viewing.look()[0] for _ in range(10)]
    await trio.sleep(0.2)
    assert len(taken) == len(first) == 4
    assert all(other == first[-1:] for other in others)
    await trio.sleep(1)
    assert len(taken) == len(first) == 5
    assert all(other == first[-2:] for other in others)


async def test_a_status_that_waited_long_is_taken_again(
    autojump_clock: trio.testing.MockClock, viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshots_taken(viewing, monkeypatch)
    for expected in (1, 2):
        got, scope = viewing.look()
        await trio.sleep(0.5)
        scope.cancel()
        assert (len(taken), len(got)) == (expected, 1)
        await trio.sleep(10)


async def test_without_a_viewer_nothing_is_done(
    autojump_clock: trio.testing.MockClock, viewing: Viewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshots_taken(viewing, monkeypatch)
    await trio.sleep(10)
    assert (taken, viewing.relay.exchange.registry.watchers) == ([], set())
    _, scope = viewing.look()
    await trio.sleep(0.5)
    scope.cancel()
    await trio.sleep(10)
    assert (taken, viewing.relay.exchange.registry.watchers) == ([1], set())


async def test_a_viewer_that_takes_nothing_costs_a_bounded_amount(
    autojump_clock: trio.testing.MockClock, viewing: Viewing
) -> None:
    got, _ = viewing.look(stuck=True)
    await trio.sleep(0.5)
    for _ in range(EVENTS_KEPT):
        async with viewing.memory.open_client("A"):
            await trio.sleep(0.1)
        await trio.sleep(0.1)
    (viewer,) = viewing.feed._viewers
    assert len(got) == 1
    waiting = await viewer.take()
    assert waiting.count(b"event: joined") + waiting.count(b"event: left") == EVENTS_KEPT
    assert waiting.count(b"event: status") == 1
    assert b'event: skipped\ndata: {"events":%d}' % EVENTS_KEPT in waiting


async def test_a_storm_is_counted_where_it_is_too_much_to_note(viewing: Viewing) -> None:
    got, _ = viewing.look()
    while not got:
        await trio.testing.wait_all_tasks_blocked(0.01)
    async with viewing.memory.open_client("A"):
        (session,) = viewing.relay.exchange.registry
        for _ in range(2 * EVENTS_KEPT):
            viewing.relay.exchange.registry.announce(session)
        while _joined(got)[1] == 0:
            await trio.testing.wait_all_tasks_blocked(0.01)
    told, skipped = _joined(got)
    assert told + skipped == 2 * EVENTS_KEPT + 1
    assert told <= EVENTS_KEPT + 1


def _joined(got: list[bytes]) -> tuple[int, int]:
    """How many joins were sent, and how many were only counted."""
    text = b"".join(got)
    return text.count(b"event: joined"), sum(map(int, re.findall(rb'event: skipped\ndata: {"events":(\d+)}', text)))
