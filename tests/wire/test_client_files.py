"""A client that binds its name beside the relay's socket, as the article's do, runs again and again unchanged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.wire.client import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wire.relay_process import RelayProcess


def until_gone(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.01)  # no event reports it


def test_a_name_can_be_bound_again_when_its_session_has_ended(relay: RelayProcess) -> None:
    path = relay.directory / "A"
    for _ in range(3):
        client = relay.unix(str(path))
        client.settle(b"A")
        client.close()
        until_gone(path)


def test_a_name_stays_while_its_client_is_there(relay: RelayProcess) -> None:
    path = relay.directory / "A"
    client = relay.unix(str(path))
    for _ in range(3):
        client.settle(b"A")
    assert path.is_socket()
