"""Chaos among real relays and a real NATS server, for long: `make soak SEEDS=50`; one seed: `FIRST=7 SEEDS=1`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cluster.chaos import run_world

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("nats-server")

SECONDS = 30.0
FIRST, SEEDS = int(os.environ.get("FIRST") or 100), int(os.environ.get("SEEDS") or 0)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_relays_get_over_everything_that_fails(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_world(seed, tmp_path, SECONDS, monkeypatch)
