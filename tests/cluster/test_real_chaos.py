"""A few seconds of chaos among real relays and a real server; `make soak` has more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.chaos import run_world

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("nats-server")

SECONDS = 5.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_relays_get_over_everything_that_fails(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_world(seed, tmp_path, SECONDS, monkeypatch)
