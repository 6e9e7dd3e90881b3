"""The relay among random clients, seed by seed. `make simulate SEEDS=100000 FIRST=0` runs more of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.simulation import run_seed

ROOT = Path(__file__).parents[2]
FIRST = int(os.environ.get("FIRST") or 0)
SEEDS = int(os.environ.get("SEEDS") or 500)
BATCH = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_every_frame_is_accounted_for_with_random_clients(first: int) -> None:
    steps = left = 0
    for seed in range(first, min(first + BATCH, FIRST + SEEDS)):
        try:
            world = run_seed(seed)
            steps, left = steps + world.steps, left + world.left
        except BaseException as error:
            raise AssertionError(f"seed {seed} failed; again: make simulate FIRST={seed} SEEDS=1") from error
    assert steps > 0
    assert left > 0


def history(seed: int) -> str:
    world = run_seed(seed)
    return repr((seed, world.steps, world.sent, world.received))


def test_one_seed_is_one_history_in_another_process_too() -> None:
    """What failed can be run again: neither what ran before nor where an object lies in memory has a part in it."""
    seeds = range(12, 24)
    program = f"from tests.simulation.test_simulation import history\nfor seed in {seeds}: print(history(seed))"
    again = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert [history(seed) for seed in seeds] == again.stdout.splitlines()
