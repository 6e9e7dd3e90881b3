"""Runs on their way from the relay to a recording program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triorelay.recording import Entry, Lost, Run, RunReader, pack_lost, pack_run
from triorelay.recording._runs import RUN_LIMIT

TIMES = st.integers(0, 2**64 - 1)
RUNS = st.builds(Run, TIMES, st.integers(1, 255), st.integers(0, 255), st.binary(max_size=40))
LOSSES = st.builds(Lost, TIMES, st.integers(0, 2**32 - 1))


def packed(entry: Entry) -> bytes:
    return pack_lost(*entry) if isinstance(entry, Lost) else pack_run(*entry)


@given(st.lists(RUNS | LOSSES), st.integers(1, 30))
def test_entries_come_back_whatever_the_split(entries: list[Entry], size: int) -> None:
    data, reader = b"".join(map(packed, entries)), RunReader()
    found = [entry for at in range(0, len(data), size) for entry in reader.feed(data[at : at + size])]
    assert found == entries


def test_more_lost_frames_than_a_head_can_say_are_said_in_several() -> None:
    entries = RunReader().feed(pack_lost(1, 2**33 + 5))
    assert all(isinstance(entry, Lost) for entry in entries)
    assert sum(entry.frames for entry in entries if isinstance(entry, Lost)) == 2**33 + 5


def test_a_run_over_the_limit_is_refused_before_it_is_waited_for() -> None:
    head = pack_run(1, 2, 3, bytes(RUN_LIMIT + 1))[:14]
    with pytest.raises(ValueError, match="the most"):
        RunReader().feed(head)
