"""The relay among random clients, seed by seed. `make simulate SEEDS=100000 FIRST=0` runs more of them."""

import os

import pytest

from tests.simulation.simulation import run_seed

FIRST = int(os.environ.get("FIRST") or 0)
SEEDS = int(os.environ.get("SEEDS") or 500)
BATCH = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_whatever_clients_do_every_frame_is_accounted_for(first: int) -> None:
    steps = left = 0
    for seed in range(first, min(first + BATCH, FIRST + SEEDS)):
        try:
            world = run_seed(seed)
            steps, left = steps + world.steps, left + world.left
        except BaseException as error:
            raise AssertionError(f"seed {seed} failed; again: make simulate FIRST={seed} SEEDS=1") from error
    assert steps > 0
    assert left > 0


def test_one_seed_is_one_history() -> None:
    first, second = run_seed(12), run_seed(12)
    assert (first.steps, first.sent, first.received) == (second.steps, second.sent, second.received)
