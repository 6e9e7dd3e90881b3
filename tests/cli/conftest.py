"""What the tests of the client commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.processes import RelayProcess


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay on the path where clients look for one."""
    with relay(cwd=tmp_path) as process:
        yield process


@pytest.fixture
def place(running: RelayProcess, tmp_path: Path) -> Path:
    """The directory of a relay that is ready."""
    return tmp_path
