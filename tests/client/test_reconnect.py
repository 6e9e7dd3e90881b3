"""When to try again after a connection was lost."""

from __future__ import annotations

import math
from itertools import islice

import pytest

from triorelay.client import Backoff
from triorelay.client._reconnect import SHORTEST, TAKEN_PATIENCE, is_passing
from triorelay.protocol import CloseReason, Refusal


def test_pauses_grow_up_to_the_maximum() -> None:
    backoff = Backoff(first=1, factor=3, maximum=10, jitter=0)
    assert list(islice(backoff.pauses(), 5)) == [1, 3, 9, 10, 10]


def test_a_first_pause_of_zero_is_an_attempt_at_once_and_no_busy_loop() -> None:
    backoff = Backoff(first=0, maximum=0.05, jitter=0)
    assert list(islice(backoff.pauses(), 5)) == [0, 0.01, 0.02, 0.04, 0.05]
    assert list(islice(Backoff(first=0, factor=1, jitter=0).pauses(), 3)) == [0, SHORTEST, SHORTEST]


def test_jitter_spreads_each_pause_by_its_part() -> None:
    pauses = list(islice(Backoff(first=10, factor=1, maximum=10, jitter=0.5).pauses(), 200))
    assert all(5 <= pause <= 15 for pause in pauses)
    assert len(set(pauses)) > 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": -1},
        {"first": 20},
        {"first": math.nan},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"first": 0, "maximum": 0},
        {"maximum": math.inf},
        {"jitter": 2},
        {"jitter": -0.1},
        {"jitter": math.nan},
        {"sends": "maybe"},
        {"sends": None},
        {"initial": "yes"},
        {"first": "1"},
        {"factor": True},
    ],
    ids=str,
)
def test_values_out_of_bounds_or_of_the_wrong_type_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{list(wrong)[-1]} must be "):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_a_passing_failure_is_tried_again() -> None:
    passing = {code for code in Refusal if is_passing(code, 1e6, CloseReason.RESET)}
    assert passing == {Refusal.FULL, Refusal.DRAINING, Refusal.UNAVAILABLE}


def test_what_a_policy_denied_another_may_allow() -> None:
    passing = {code for code in Refusal if is_passing(code, 1e6, CloseReason.DENIED)}
    assert passing >= {Refusal.NOT_ALLOWED, Refusal.AUTHENTICATION}
    assert not passing & {Refusal.TAKEN, Refusal.BAD_HELLO}


def test_a_taken_id_is_tried_again_for_as_long_as_the_relay_may_need_to_notice() -> None:
    assert is_passing(Refusal.TAKEN, TAKEN_PATIENCE - 1, CloseReason.RESET)
    assert not is_passing(Refusal.TAKEN, TAKEN_PATIENCE, CloseReason.RESET)
    assert TAKEN_PATIENCE == 40
