"""The status, and how large clients can make it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from triorelay.protocol import DropReason
from triorelay.relay._snapshot import DROPS_LISTED
from triorelay.testing import open_relay


async def test_the_largest_drops_are_listed_and_the_rest_is_summed_up() -> None:
    async with open_relay() as memory:
        dropped = memory.relay.ledger.dropped
        dropped |= {(a, b, DropReason.NO_ROUTE): 1 for a in range(1, 255) for b in range(1, 255)}
        dropped |= {(a, b, DropReason.DENIED): 2 for a in range(1, 11) for b in range(1, 101)}
        dropped[65, 66, DropReason.NO_ROUTE] = 1000
        status: dict[str, Any] = memory.relay.snapshot()
    drops = status["drops"]
    assert len(drops) == DROPS_LISTED + 1
    assert drops[0] == [65, 66, "no_route", 1000]
    assert sum(reason == "denied" for *_, reason, _ in drops) == 1000
    assert [drop[:3] for drop in drops if drop[0] is None] == [[None, None, "no_route"]]
    assert by_reason(drops) == status["ledger"]["dropped"]


async def test_drops_that_are_few_are_all_listed_most_frames_first() -> None:
    async with open_relay() as memory:
        memory.relay.ledger.dropped |= {(1, b, DropReason.NO_ROUTE): b for b in range(1, DROPS_LISTED + 1)}
        status: dict[str, Any] = memory.relay.snapshot()
    assert [frames for *_, frames in status["drops"]] == list(range(DROPS_LISTED, 0, -1))
    assert by_reason(status["drops"]) == status["ledger"]["dropped"]


def by_reason(drops: list[Any]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for *_, reason, frames in drops:
        sums[reason] += frames
    return dict(sums)
