"""One relay for each example: on `server_socket` in its directory, and on a TCP port."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with processes.relay("--unix", "server_socket", "--tcp", "127.0.0.1:0", cwd=tmp_path) as process:
        yield process


@pytest.fixture
def triorelay_in_path(tmp_path: Path) -> Path:
    """A directory that has the command, for scripts that call it by its name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "triorelay"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m triorelay "$@"\n')
    command.chmod(0o755)
    return directory
