"""Fixtures that run a NATS server, and relays as processes that act as one over it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.cluster.nats_server import NEWEST, NatsServer
from tests.components import require
from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StartMember(Protocol):
    def __call__(self, *options: str) -> RelayProcess: ...


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running server."""
    (tmp_path / "nats").mkdir()
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def start_member(tmp_path: Path, nats: NatsServer) -> Iterator[StartMember]:
    """A function that runs one more relay of the realm until the end of the test."""
    with ExitStack() as running:
        count = 0

        def start(*options: str) -> RelayProcess:
            nonlocal count
            count += 1
            directory = tmp_path / f"r{count}"
            directory.mkdir()
            return running.enter_context(RelayProcess(directory, "--cluster", nats.url, *options))

        yield start


@pytest.fixture(params=["debian", "newest"])
def any_nats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer]:
    """A running server: each of the versions that are tested."""
    program = require("nats-server") if request.param == "debian" else str(NEWEST)
    (tmp_path / "nats").mkdir()
    with NatsServer(tmp_path / "nats", program=program) as server:
        yield server
