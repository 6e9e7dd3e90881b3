"""When the frames of a recording are sent, by a clock that jumps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from triorelay.cli._client_options import RelayOptions
from triorelay.cli._player import Player, pairs_of
from triorelay.protocol import UnixAddress
from triorelay.recording import Entry, Lost, Run
from triorelay.testing import MemoryRelay, open_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from triorelay.client import Client

SECOND = 1_000_000_000
ENTRIES: list[Entry] = [
    Run(100 * SECOND, 65, 88, b"a"),
    Run(100 * SECOND + 250_000_000, 67, 88, b"b"),
    Lost(101 * SECOND, 9),
    Run(104 * SECOND, 65, 88, b"c"),
    Run(103 * SECOND, 65, 88, b"d"),
    Run(110 * SECOND, 67, 0, b"?"),
    Run(112 * SECOND, 67, 88, b"e"),
]


@dataclass(frozen=True, slots=True)
class InMemory(RelayOptions):
    """A way to a relay in memory."""

    memory: MemoryRelay | None = None

    @asynccontextmanager
    async def open(
        self,
        *,
        observer: bool = False,
        strict: bool = False,
        reconnect: bool = False,
        shared: bool = False,
        lossy: bool = False,
    ) -> AsyncIterator[Client]:
        assert self.memory is not None
        async with self.memory.open_client(self.id, observer=observer, strict=strict) as client:
            yield client


async def arrivals(speed: float) -> list[tuple[float, str, bytes]]:
    """Play `ENTRIES` to X; return what arrived there, and when, counted from the first."""
    found: list[tuple[float, str, bytes]] = []
    start = None
    async with open_relay() as memory, memory.open_client("X") as x:
        options = InMemory(UnixAddress("none"), None, None, None, None, None, memory=memory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Player(options, None, speed).play, pairs_of(ENTRIES), ENTRIES)
            while len(found) < 5:
                source, data = await x.receive()
                start = trio.current_time() if start is None else start
                found.append((trio.current_time() - start, source, data))
    return found


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
async def test_each_run_is_sent_at_its_time(autojump_clock: MockClock, speed: float) -> None:
    expected = [(0.0, "A", b"a"), (0.25, "C", b"b"), (4.0, "A", b"c"), (4.0, "A", b"d"), (12.0, "C", b"e")]
    found = await arrivals(speed)
    assert [what[1:] for what in found] == [what[1:] for what in expected]
    assert [what[0] for what in found] == pytest.approx([due / speed for due, _, _ in expected], abs=1e-3)


async def test_at_infinite_speed_nothing_waits(autojump_clock: MockClock) -> None:
    assert {when for when, _, _ in await arrivals(float("inf"))} == {0.0}
