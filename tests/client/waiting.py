"""Tests of waking: what waits must end because of what the test does, or the test fails."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def woken(*waits: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Let `waits` wait, run the block, and fail unless each has ended soon after it."""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for wait in waits:
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == len(waits), "one of them did not wait"
            yield
