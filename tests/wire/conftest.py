"""Fixtures that run the relay as a process and check its ledger at the end of every test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StartRelay(Protocol):
    def __call__(self, *options: str, config: str = "") -> RelayProcess: ...


@pytest.fixture
def start_relay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartRelay]:
    """A function that runs a relay with further options until the end of the test."""
    with ExitStack() as running:

        def start(*options: str, config: str = "") -> RelayProcess:
            return running.enter_context(RelayProcess(tmp_path, *options, config=config))

        yield start


@pytest.fixture
def relay(start_relay: StartRelay) -> RelayProcess:
    """A relay without further options."""
    return start_relay()
